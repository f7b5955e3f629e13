"""Linear probe: L2 logistic regression on standardised features, all penalties and all labels in one deterministic solve.

Train rows give mean and standard deviation; C is chosen on validation rows. The objective is that of scikit-learn, C * sum of the losses +
|w|^2 / 2 with a free intercept, so that C has the same meaning. Presets on cached features are in `presets`, those that augment images in
`augmented_probe`; `transfer.protocols.resolve_protocol` chooses between this module and `augmented_probe`.

Shapes: N rows, M rows to score, D width, C labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.json_types import Json
from transfer.protocols import presets
from transfer.protocols.common import Features, best_candidate, find_labeled_rows, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select
from transfer.protocols.linear_config import PUBLISHED_BUDGETS, Config
from transfer.protocols.logistic import LogisticModel, logits_to_probabilities, solve_logistic

VERSION = 4
NEEDS: Needs = "pooled"


@dataclass
class Fitted(FittedProtocol[Features]):
    """One linear map per label (or class), at the chosen C."""

    model: LogisticModel
    kind: str
    selection: Mapping[str, Json]
    val_scores: Array | None = None

    def scores(self, rows: Features) -> FloatArray:
        """(M, C) probabilities."""
        return logits_to_probabilities(self.model.logits(rows.x)[0], self.kind)


def fit(cfg: Config, train: Features, val: Features, select: Select = validation_score, log: Log | None = None) -> FittedProtocol[Features]:
    """Solves the whole grid on `train` and chooses C on `val`; the smallest C among equals. Other presets choose as published.

    Raises ValueError for a preset that needs images."""
    if cfg.preset in PUBLISHED_BUDGETS:
        raise ValueError(f"linear.preset={cfg.preset} needs images; get the protocol that runs it from `resolve_protocol(name, cfg)`")
    if cfg.preset == "dinov2_log":
        cfg = Config(standardise=False, refit=True)
    elif cfg.preset != "logistic":
        return presets.fit_preset(cfg.preset, train, val, cfg.seed)
    train = train.at(find_labeled_rows(train.y, train.kind))
    model = solve_logistic(train.x, train.y, cfg.grid, train.kind, cfg.standardise, cfg.tolerance, cfg.max_iter)
    val_scores = (logits_to_probabilities(z, val.kind) for z in model.iterate_logits(val.x))
    table = [
        {"C": float(c), "score": float(select(val.y, p)), "converged": bool(ok.all())}
        for c, p, ok in zip(cfg.grid, val_scores, model.converged, strict=True)
    ]
    chosen = best_candidate(table)
    keep = [row["C"] for row in table].index(chosen["C"])
    selection: dict[str, Json] = {
        "C": chosen["C"],
        "score": chosen["score"],
        "table": table,
        "iterations": model.iterations,
        "converged": chosen["converged"],
        "converged_all": all(row["converged"] for row in table),
    }
    fitted = Fitted(model.at(keep), train.kind, selection)
    if not cfg.refit:
        return fitted
    labeled = val.at(find_labeled_rows(val.y, val.kind))
    x, y = [train.x, labeled.x], np.concatenate([train.y, labeled.y])
    refitted = solve_logistic(x, y, cfg.grid[keep : keep + 1], train.kind, cfg.standardise, cfg.tolerance, cfg.max_iter)
    selection["converged"] = bool(chosen["converged"] and refitted.converged.all())
    return Fitted(refitted, train.kind, selection, fitted.scores(val))
