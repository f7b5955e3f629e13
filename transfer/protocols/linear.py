"""Linear probe: L2 logistic regression on standardised features, all strengths and all labels in one deterministic solve.

Train rows give mean and standard deviation; C is chosen on validation rows. The objective is scikit-learn's, C * sum of the losses +
|w|^2 / 2 with a free intercept, so a C means the same here and there.

Shapes: N rows, M rows to score, D width, C labels.
"""

import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from encoders.runtime.config import Config as Base
from transfer.protocols import presets, probe
from transfer.protocols.common import Array, Features, Select, best_candidate, find_labeled_rows, join_features, validation_score
from transfer.protocols.logistic import LogisticModel, logits_to_probabilities, solve_logistic

VERSION = 3
NEEDS = "pooled"


class Config(Base):
    """Which probe, and for the logistic one the grid of C and how exactly it is solved."""

    preset: Literal["logistic", "dinov2_log", "thunder", "eva", "uni", "mae", "dinov2"] = Field(
        "logistic", description="ours, or a probe as others publish it (presets.py; mae and dinov2, which augment images: probe.py)"
    )
    seed: int = Field(0, description="of order, start and augmentation of `thunder`, `eva`, `mae` and `dinov2`; the others draw nothing")
    batch: int | None = Field(None, ge=2, description="mae, dinov2: images a step; null: 16384 and 1024, at most the train part")
    length: int | None = Field(None, ge=1, description="mae: epochs; dinov2: steps; null: 90 and 12500")

    low: float = Field(-6.0, description="log10 of the smallest C (inverse strength of the L2 penalty)")
    high: float = Field(5.0, description="log10 of the largest C")
    steps: int = Field(45, ge=1, description="values of C between them; 45 from 1e-6 to 1e5 as in DINOv2's log_regression.py")
    standardise: bool = Field(
        True, description="subtract the train mean, divide by the train standard deviation; constant columns become 0"
    )
    tolerance: float = Field(
        1e-4, gt=0, description="stop when the norm of the mean loss's gradient is below; scikit-learn: 1e-4 for its largest entry"
    )
    max_iter: int = Field(500, ge=1, description="iterations for every block of the grid")
    refit: bool = Field(False, description="solve once more on train + validation rows with the chosen C")

    @property
    def grid(self) -> NDArray[np.float64]:
        return np.logspace(self.low, self.high, self.steps)


@dataclass
class Fitted:
    """One linear map a label (or class), at the chosen C."""

    model: LogisticModel
    kind: str
    selection: dict[str, Any]
    held_out: Array | None = None  # see `common.py`

    def scores(self, x: Array) -> NDArray[np.float64]:
        """Probabilities (M, C) for rows x (M, D)."""
        return logits_to_probabilities(self.model.logits(x)[0], self.kind)


def module(cfg: Config) -> ModuleType:
    """What carries a preset out: this module on cached features, `probe` on images."""
    return probe if cfg.preset in probe.PUBLISHED_BUDGETS else sys.modules[__name__]


def fit(cfg: Config, train: Features, val: Features, select: Select = validation_score) -> Fitted | presets.Fitted:
    """Solves the whole grid on `train` and chooses C on `val`; the smallest C among equals. Other presets choose in their own way."""
    if cfg.preset in probe.PUBLISHED_BUDGETS:
        raise ValueError(f"linear.preset={cfg.preset} wants images: `module(cfg)` is what carries it out")
    if cfg.preset == "dinov2_log":
        cfg = Config(standardise=False, refit=True)
    elif cfg.preset != "logistic":
        return presets.fit(cfg.preset, train, val, cfg.seed)
    train = train.at(find_labeled_rows(train.y, train.kind))
    model = solve_logistic(train.x, train.y, cfg.grid, train.kind, cfg.standardise, cfg.tolerance, cfg.max_iter)
    held_out = [logits_to_probabilities(z, val.kind) for z in model.logits(val.x)]
    table = [{"C": float(c), "score": float(select(val.y, p))} for c, p in zip(cfg.grid, held_out, strict=True)]
    chosen = best_candidate(table)
    keep = [row["C"] for row in table].index(chosen["C"])
    selection = {"C": chosen["C"], "score": chosen["score"], "table": table, "iterations": model.iterations, "converged": model.converged}
    if cfg.refit:
        both = join_features(train, val.at(find_labeled_rows(val.y, val.kind)))
        refitted = solve_logistic(both.x, both.y, cfg.grid[keep : keep + 1], both.kind, cfg.standardise, cfg.tolerance, cfg.max_iter)
        return Fitted(refitted, train.kind, selection, held_out[keep])
    return Fitted(model.at(keep), train.kind, selection)
