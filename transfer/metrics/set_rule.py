"""Which prediction sets are asked for: `0.9`, `raps=0.9`, `lac+class=0.95`."""

from dataclasses import dataclass
from typing import get_args

from encoders.runtime.errors import InputError
from transfer.metrics.conformal import SetScore

BY_CLASS = "+class"


@dataclass(frozen=True)
class SetRule:
    """Which sets are built: the probability that they hold the true class, the score, and whether it is promised for each class."""

    level: float
    score: SetScore = "aps"
    by_class: bool = False

    def describe(self) -> str:
        """The rule as a sentence without a full stop."""
        return (
            f"Sets are to hold the true class of {self.promise} of a new patient with probability {self.level:g} ({self.score.upper()}). "
            "They are calibrated on validation patients, which also chose settings: coverage on test patients shows what that costs"
        )

    @property
    def promise(self) -> str:
        """What the probability is promised for."""
        return "an image of each class" if self.by_class else "an image"


def parse_set_rule(text: str) -> SetRule:
    """`0.9`, `raps=0.9` or `lac+class=0.95`. Raises InputError."""
    name, _, level = text.rpartition("=")
    base, by_class = name.removesuffix(BY_CLASS), name.endswith(BY_CLASS)
    score = next((kind for kind in get_args(SetScore) if kind == (base or "aps")), None)
    try:
        value = float(level)
    except ValueError:
        value = float("nan")
    if score is None or not 0 < value < 1:
        raise InputError(
            f"--sets is {text!r}; expected a probability between 0 and 1, or aps=P, raps=P or lac=P, each also for every class, "
            f"e.g. 0.9 or aps{BY_CLASS}=0.9"
        )
    return SetRule(value, score, by_class)
