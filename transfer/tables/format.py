"""Numbers and verdicts of a table as text."""

import math
from collections.abc import Mapping

from transfer.stats import Difference, Interval
from transfer.stats.verdict import Verdict

VERDICT_LINKS: Mapping[Verdict, str] = {
    "better": "than",
    "worse": "than",
    "equivalent": "to",
    "not inferior": "to",
    "not distinguishable": "from",
    "insufficient patients": "to compare with",
    "insufficient draws": "to compare with",
    "does not transfer": "; compared with",
}
MOST_DECIMALS = 6


def format_interval(value: Interval) -> str:
    """`0.931 [0.902, 0.953]`."""
    if math.isnan(value.value):
        return "not defined"
    ends = "insufficient patients" if math.isnan(value.low) else f"{value.low:.3f}, {value.high:.3f}"
    return f"{value.value:.3f} [{ends}]"


def format_difference(value: Difference | None) -> str:
    """`+0.021 [-0.003, +0.045]`; without an interval, `+0.021 [insufficient patients]` or `+0.021 [no interval]`."""
    if value is None or math.isnan(value.value):
        return ""
    if math.isnan(value.low):
        return f"{value.value:+.3f} [{'insufficient patients' if math.isnan(value.p) else 'no interval'}]"
    low, high = format_ends(value)
    return f"{value.value:+.3f} [{low}, {high}]"


def format_ends(value: Difference) -> tuple[str, str]:
    """Both ends with a sign. The ends of an interval that excludes zero never read as zero: they get more decimals."""
    excludes_zero = value.low > 0 or value.high < 0
    low, high = ((format_nonzero if excludes_zero else format_signed)(end) for end in (value.low, value.high))
    return low, high


def format_signed(number: float) -> str:
    """`+0.021`; zero has no minus sign."""
    return f"{number:+.3f}".replace("-0.000", "+0.000")


def format_nonzero(number: float) -> str:
    """`+0.021`, or with as many decimals as show that the number is not zero: `-0.0002`."""
    for decimals in range(3, MOST_DECIMALS):
        if round(number, decimals) != 0:
            return f"{number:+.{decimals}f}"
    return f"{number:+.{MOST_DECIMALS}f}"


def format_verdict(value: Difference | None, reference: str) -> str:
    """`better than imagenet_resnet18`."""
    if value is None:
        return ""
    link = VERDICT_LINKS[value.reported_verdict]
    margin = f" (margin {value.margin:g})" if value.reported_verdict in ("equivalent", "not inferior") else ""
    return f"{value.reported_verdict}{'' if link.startswith(';') else ' '}{link} {reference}{margin}"


def format_p(p: float) -> str:
    """`0.031`, `< 0.001`, or nothing for NaN."""
    if math.isnan(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
