"""The few numbers of an encoder that are shown first: mean AUROC over tasks with an interval, and mean rank.

Both are over the (task, protocol) cells that every ranked encoder has, so that the means of two encoders are over the same cells; the
other cells are counted. Rows at the largest number of labels count. A row about a recipe is not ranked: its seeds are.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from transfer.stats import Interval
from transfer.tables.rows import Row, Section, rows_with_most_labels

RANKED_ROLES = ("encoder", "imagenet", "random")


@dataclass(frozen=True)
class Headline:
    """auroc: mean over `cells` of `tasks` tasks.  rank: mean, 1 for the best; equal values share their mean rank.  ranked: encoders.

    left_out: cells that the encoder has and others do not, or without an interval."""

    auroc: Interval
    rank: float
    ranked: int
    cells: int
    tasks: int
    left_out: int


def build_headlines(sections: Sequence[Section]) -> dict[str, Headline]:
    """The headline of every encoder, pretrained, ImageNet or random; {} if no cell is shared by all of them."""
    cells = [(section, _ranked_rows(section)) for section in sections]
    encoders = {name for _, rows in cells for name in rows}
    shared = [(s, rows) for s, rows in cells if rows and set(rows) == encoders and not any(map(_lacks_interval, rows.values()))]
    if not shared:
        return {}
    headlines = {}
    for name in encoders:
        parts = [(section.store, rows[name].metrics["auroc"]) for section, rows in shared]
        ranks = [rank_value(rows[name].metrics["auroc"].value, [r.metrics["auroc"].value for r in rows.values()]) for _, rows in shared]
        own = sum(name in rows for _, rows in cells)
        tasks = len({section.task for section, _ in shared})
        rank = math.fsum(ranks) / len(ranks)
        headlines[name] = Headline(mean_interval(parts), rank, len(encoders), len(shared), tasks, own - len(shared))
    return headlines


def _ranked_rows(section: Section) -> dict[str, Row]:
    rows = [row for row in rows_with_most_labels(section) if row.role in RANKED_ROLES and not row.seeds]
    return {row.encoder: row for row in rows}


def _lacks_interval(row: Row) -> bool:
    return any(math.isnan(end) for end in row.metrics["auroc"].ends)


def rank_value(value: float, values: Sequence[float]) -> float:
    """The rank of `value` among `values`, 1 for the largest; the mean rank of equal ones."""
    return 1 + sum(other > value for other in values) + (sum(other == value for other in values) - 1) / 2


def mean_interval(parts: Sequence[tuple[str, Interval]]) -> Interval:
    """The mean of values with its interval, from theirs.  parts: (store, value with interval).

    Values on different stores are of different test patients: the distances to the ends are added in squares (MOVER for a sum, Zou and
    Donner 2008). Values on one store share patients and are correlated to an unknown degree: their distances are added, which holds for
    any correlation, and is too wide for small ones."""
    count = len(parts)
    below, above = defaultdict[str, float](float), defaultdict[str, float](float)
    for store, value in parts:
        below[store] += value.value - value.low
        above[store] += value.high - value.value
    mean = math.fsum(value.value for _, value in parts) / count
    low, high = (math.hypot(*distances.values()) / count for distances in (below, above))
    return Interval(mean, mean - low, mean + high, "mean of intervals")
