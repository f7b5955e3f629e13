"""The verdict that a table would report for one simulated test set."""

from dataclasses import dataclass
from typing import Literal

from transfer.stats.estimate import Estimate, estimate_interval, pair_estimates
from transfer.stats.patients import MIN_PATIENTS
from transfer.stats.verdict import CHANCE, SIGNIFICANT, Verdict, decide_verdict

Goal = Literal["different", "equivalent", "not-inferior"]
GOAL_VERDICTS: dict[Goal, tuple[Verdict, ...]] = {
    "different": SIGNIFICANT,  # of these, the one in the planned direction
    "equivalent": ("equivalent",),
    "not-inferior": ("better", "equivalent", "not inferior"),
}


@dataclass(frozen=True)
class VerdictRule:
    """comparisons: of the planned table; each is tested at 5 % divided by their number (Bonferroni).  margin: as of `transfer compare`."""

    comparisons: int = 1
    margin: float | None = None
    alpha: float = 0.05

    @property
    def corrected_alpha(self) -> float:
        """The level of one comparison. Holm's correction never rejects less than this."""
        return self.alpha / self.comparisons


def planned_verdict(a: Estimate, b: Estimate, rule: VerdictRule) -> Verdict:
    """The reported verdict on `a` compared with `b`, from the ends of the interval at the levels that decide it.

    It equals `Difference.reported_verdict` of `estimate_difference`, which takes twenty times as long for its p-values, with two
    exceptions: the correction is Bonferroni's, and there is no permutation test for insufficient patients."""
    paired = pair_estimates(a, b) if a.smaller_class >= MIN_PATIENTS else None
    if paired is None:
        return "insufficient patients"
    value, ends, _ = paired
    alone = decide_verdict(*ends(1 - rule.alpha))
    if alone == "insufficient patients":
        return alone
    if alone in SIGNIFICANT and estimate_interval(a if value > 0 else b).low <= CHANCE:
        return "does not transfer"
    verdict = alone if rule.comparisons == 1 else decide_verdict(*ends(1 - rule.corrected_alpha))
    if verdict in SIGNIFICANT:
        return verdict
    if rule.margin is None:
        return verdict
    low, high = ends(1 - 2 * rule.corrected_alpha)  # two one-sided tests
    if -rule.margin < low and high < rule.margin:
        return "equivalent"
    return "not inferior" if low > -rule.margin else verdict
