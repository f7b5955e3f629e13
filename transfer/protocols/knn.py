"""k-nearest-neighbour probe.  Source: Wu et al. 2018 (arXiv:1805.01978), sec. 3.4.  Nothing is trained.

The score of a row for a class is the weighted share of its k nearest train rows (cosine) with that class, among those with a known label.
Departures: the weights are normalised separately for every k (DINOv2 normalises once over the largest k, so that scores of a smaller k are
not comparable between rows, as an AUROC requires); k and the temperature are chosen on validation rows. Equally similar train rows are
taken in the order of the hashes of their images, so that the scores do not depend on the order of the store.

Shapes: N train rows, M rows to score, D width, C labels, K neighbours.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pydantic import Field

from encoders.features.nearest import find_neighbours
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import Config as Base
from encoders.runtime.errors import InputError
from transfer.protocols.common import Features, best_candidate, find_labeled_rows, in_image_order, join_features, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select

VERSION = 3
NEEDS: Needs = "pooled"


class Config(Base):
    """The grid of the probe; validation rows choose from it."""

    k: tuple[int, ...] = Field(
        (1, 3, 5, 10, 20, 30, 50, 100, 200), description="numbers of neighbours to try; those above the number of train rows are skipped"
    )
    temperature: tuple[float, ...] = Field((0.07,), description="temperatures of the softmax weights to try; 0.07 as Wu et al.")
    vote: Literal["weighted", "majority"] = Field(
        "weighted", description="weights exp(similarity / temperature), or one vote per neighbour"
    )
    refit: bool = Field(False, description="after k is chosen, search train and validation rows")


@dataclass
class Fitted(FittedProtocol[Features]):
    """The labeled rows that are searched, and the chosen k."""

    bank: Features
    k: int
    temperature: float
    vote: str
    selection: dict[str, Any]
    val_scores: Array | None = None

    def scores(self, rows: Features) -> FloatArray:
        """(M, C) class shares among the neighbours."""
        similarity, index = find_neighbours(self.bank.x, rows.x, self.k)  # (M, K) each
        (shares,) = prefix_votes(neighbour_weights(similarity, self.temperature, self.vote), self.bank.y, index, [self.k])
        return shares


def fit(cfg: Config, train: Features, val: Features, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """Chooses k and the temperature on `val`. Raises InputError if no k of the grid is at most the number of train rows."""
    bank = in_image_order(train.at(find_labeled_rows(train.y, train.kind)))
    ks = sorted({k for k in cfg.k if k <= len(bank)})
    if not ks:
        raise InputError(f"knn.k is {list(cfg.k)} but the train split has {len(bank)} labeled rows; choose a k of at most {len(bank)}")
    similarity, index = find_neighbours(bank.x, val.x, ks[-1])
    table: list[dict[str, Any]] = []
    for temperature in cfg.temperature if cfg.vote == "weighted" else cfg.temperature[:1]:
        shares = prefix_votes(neighbour_weights(similarity, temperature, cfg.vote), bank.y, index, ks)
        table += [{"k": k, "temperature": temperature, "score": float(select(val.y, s))} for k, s in zip(ks, shares, strict=True)]
    chosen = best_candidate(table)
    selection = {"k": chosen["k"], "temperature": chosen["temperature"], "vote": cfg.vote, "score": chosen["score"], "table": table}
    fitted = Fitted(bank, chosen["k"], chosen["temperature"], cfg.vote, selection)
    return replace(fitted, bank=in_image_order(join_features(bank, val)), val_scores=fitted.scores(val)) if cfg.refit else fitted


def neighbour_weights(similarity: Array, temperature: float, vote: str) -> Array:
    """(M, K) weights of the neighbours. The nearest has weight 1, so that a small temperature cannot overflow; only ratios matter."""
    if vote == "majority":
        return np.ones_like(similarity)
    weight: Array = np.exp((similarity - similarity[:, :1]) / temperature)
    return weight


def prefix_votes(weight: Array, y: Array, index: Array, ks: list[int]) -> list[FloatArray]:
    """The vote (M, C) of the first k neighbours for every k of the ascending `ks`, in one pass over the K columns.

    A row whose neighbours all have unknown labels gets the prevalence among the train rows."""
    from scipy.sparse import csr_array

    given, known = np.nan_to_num(y).astype(np.float64), (~np.isnan(y)).astype(np.float64)
    total, mass = np.zeros((len(index), y.shape[1])), np.zeros((len(index), y.shape[1]))
    shares = []
    for start, stop in zip([0, *ks[:-1]], ks, strict=True):
        part = weight[:, start:stop].astype(np.float64)  # (M, k)
        # As rows of a sparse (M, N) matrix, which avoids an (M, k, C) array.
        ends = np.arange(0, part.size + 1, stop - start)
        sparse = csr_array((part.ravel(), index[:, start:stop].ravel(), ends), shape=(len(index), len(y)))
        total = total + sparse @ given
        mass = mass + (part.sum(axis=1, keepdims=True) if known.all() else sparse @ known)
        shares.append(np.where(mass > 0, total / np.where(mass > 0, mass, 1), class_prevalence(y)))
    return shares


def class_prevalence(y: Array) -> FloatArray:
    """(C,) share of positives among the known labels; 0 where none is known."""
    prevalence: FloatArray = np.nansum(y, axis=0, dtype=np.float64) / np.maximum((~np.isnan(y)).sum(axis=0), 1)
    return prevalence
