"""Few-shot episodes on the test rows, as a record holds them.

Shapes: E episodes, M test rows, C labels.
"""

import numpy as np

from encoders.runtime.arrays import Array
from transfer.metrics import macro
from transfer.protocols.contract import FittedProtocol, RowsT
from transfer.records.episodes import Episodes
from transfer.stats.placement_components import has_one_class, placement_values


def measure_episodes(fitted: FittedProtocol[RowsT], rows: RowsT) -> dict[int, Episodes]:
    """The AUROC of every episode and the mean placement values of the rows, for every number of shots.

    {} for a protocol without episodes, and when no label has rows of both classes."""
    y = np.asarray(rows.y)
    defined = [c for c in range(y.shape[1]) if not has_one_class(y[:, c])]
    return {shots: _measure_shots(fitted, rows, y, shots, defined) for shots in fitted.shots} if defined else {}


def _measure_shots(fitted: FittedProtocol[RowsT], rows: RowsT, y: Array, shots: int, defined: list[int]) -> Episodes:
    known, positive = ~np.isnan(y), y > 0.5
    areas: list[list[Array]] = [[] for _ in range(y.shape[1])]
    total = np.full(y.shape, np.nan)
    for c in defined:
        total[known[:, c], c] = 0.0
    for block in fitted.score_episodes(rows, shots):
        for scores, c in zip(np.moveaxis(block.scores, 1, 0), range(y.shape[1])[block.columns], strict=True):
            if c in defined:
                placement = placement_values(positive[known[:, c], c], scores[:, known[:, c]])  # (episodes, known rows)
                total[known[:, c], c] += placement.sum(axis=0)
                areas[c].append(placement[:, positive[known[:, c], c]].mean(axis=1))
    each = {c: np.concatenate(areas[c]) for c in defined}
    episodes = len(each[defined[0]])
    label_auroc = np.stack([each.get(c, np.full(episodes, np.nan)) for c in range(y.shape[1])], axis=1)  # (E, C)
    placement = (total / episodes).astype(np.float32)
    return Episodes(macro(label_auroc)[0], label_auroc, placement, fitted.support_digest(shots))
