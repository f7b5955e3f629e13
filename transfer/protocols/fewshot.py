"""Few-shot probe: nearest class mean from a handful of labeled images, over many episodes.  Source: SimpleShot, Wang et al. 2019
(arXiv:1911.04623), with the support set's own mean subtracted as in Thunder.  Nothing is trained.

An episode draws `shots` train patients of every class, and one image of each. The support mean is subtracted, rows are normalised to unit
length, and a row is assigned to the class with the nearest mean. Each label of a multi-label task has its own episodes, with the classes
"no" and "yes". The score is the softmax over negative squared distances, or the vote for the nearest class.

The number of shots is an axis, not a hyper-parameter: every value is reported with its spread over episodes, none is chosen. `scores` is
the mean over episodes at the largest number of shots. With many episodes it approaches what the means of all train images give, so a number
of shots is judged by the scores of single episodes.

Departures: the sources draw images and not patients (`unit=image`).

Shapes: N train rows, M rows to score, D width, C label columns, K classes, E episodes, S shots.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.config import Config as Base
from encoders.runtime.errors import InputError
from transfer.protocols.common import Features, validation_score
from transfer.protocols.contract import EpisodeBlock, FittedProtocol, Log, Needs, Select
from transfer.protocols.support_sets import Unit, draw_supports, group_rows_by_class, hash_supports

VERSION = 2
NEEDS: Needs = "pooled"
BLOCK_VALUES = 2**21  # float32 numbers in the largest array of a block of episodes: 8 MB, which about fits in the cache


class Config(Base):
    """The episodes and their scores."""

    shots: tuple[int, ...] = Field((1, 2, 4, 8, 16), description="train patients (or images, see unit) of each class in an episode")
    episodes: int = Field(1000, ge=2, description="support sets drawn for each number of shots")
    unit: Unit = Field("patient", description="what a shot is: a patient, with one of its images; or an image, as in the literature")
    score: Literal["distance", "vote"] = Field("distance", description="mean softmax over negative squared distances, or share of votes")
    seed: int = Field(0, description="seed of the support sets")


@dataclass
class Fitted(FittedProtocol[Features]):
    """The train rows and the support sets. supports: by number of shots, for every classification problem (E, K, S) train rows.

    origin: (D,) mean of the train rows. Distances after subtracting the support mean do not depend on it; it keeps float32 accurate for
    features whose mean is much larger than their spread."""

    cfg: Config
    train: Features
    supports: dict[int, list[IntArray]]
    origin: Array
    selection: dict[str, Any]

    def __post_init__(self) -> None:
        self.shots = sorted(self.supports)

    def scores(self, rows: Features) -> FloatArray:
        """(M, C) mean scores over all episodes, at the largest number of shots."""
        total = np.zeros((len(rows), self.train.y.shape[1]))
        for block in self.score_episodes(rows, self.shots[-1]):
            total[:, block.columns] += block.scores.sum(axis=0, dtype=np.float64).T
        return total / self.cfg.episodes

    def score_episodes(self, rows: Features, shots: int) -> Iterator[EpisodeBlock]:
        """Yields the scores of every episode, always in the same order."""
        x = rows.x - self.origin  # (M, D)
        squares = np.einsum("md,md->m", x, x)
        for number, support in enumerate(self.supports[shots]):
            classes = support.shape[1]
            multiclass = self.train.kind == "multiclass"
            columns = slice(0, classes) if multiclass else slice(number, number + 1)
            size = max(1, BLOCK_VALUES // (classes * max(len(x), shots * x.shape[1])))
            for start in range(0, len(support), size):
                raw = self.train.x[support[start : start + size]] - self.origin  # (n, K, S, D)
                logits = nearest_mean_logits(raw, x, squares)
                yield EpisodeBlock(
                    columns, to_class_scores(logits, self.cfg.score) if multiclass else to_label_scores(logits, self.cfg.score)
                )

    def support_digest(self, shots: int) -> str:
        return hash_supports(self.supports[shots], self.train.key)


def fit(cfg: Config, train: Features, val: Features, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """Draws the support sets for the numbers of shots for which every class has enough train patients (or images), and scores `val`.

    Raises InputError if there is none."""
    problems = group_rows_by_class(train, cfg.unit)
    fewest = min(len(rows) for classes in problems for rows in classes)
    kept = [s for s in sorted(set(cfg.shots)) if s <= fewest]
    if not kept:
        raise InputError(
            f"fewshot.shots is {list(cfg.shots)} but a class has {fewest} labeled train {cfg.unit}s; "
            "choose fewer shots, or give more labeled rows"
        )
    supports = {s: draw_supports(problems, s, cfg.episodes, cfg.seed) for s in kept}
    origin = train.x.mean(axis=0, dtype=np.float64).astype(np.float32)
    fitted = Fitted(cfg, train, supports, origin, {})
    fitted.val_scores = fitted.scores(val)
    skipped = {str(s): f"the smallest class has {fewest} labeled train {cfg.unit}s" for s in sorted(set(cfg.shots) - set(kept))}
    fitted.selection = {
        "shots": kept[-1],
        "episodes": cfg.episodes,
        "unit": cfg.unit,
        "score": float(select(val.y, fitted.val_scores)),
        "skipped": skipped,
    }
    return fitted


def nearest_mean_logits(support: Array, x: Array, squares: Array) -> Array:
    """(n, K - 1, M) float32: the squared distance to the mean of the first class minus that to each other class, in n episodes.

    support: (n, K, S, D).  x: (M, D).  squares: (M,) squared lengths of `x`."""
    n, classes, _, width = support.shape
    middle = support.mean(axis=(1, 2))  # (n, D)
    centre = l2_normalize(support - middle[:, None, None]).mean(axis=2)  # (n, K, D)
    # |unit(x - m) - c|^2 = 1 + |c|^2 - 2 c.(x - m) / |x - m|, so the difference to the first class needs 2 (c - c_0).x and |x - m|. All
    # products with x are one matrix product; the large arrays are changed in place.
    toward = 2 * (centre - centre[:, :1])
    toward[:, 0] = -2 * middle
    product = (toward.reshape(n * classes, width) @ x.T).reshape(n, classes, len(x))
    length: Array = product[:, 0]
    logits: Array = product[:, 1:]
    length += squares
    length += (middle**2).sum(axis=1)[:, None]
    # 1e-6: a query at the support mean has no direction; in float32, its distance is known to 1e-3 of |x| only. 1e-24: x may be 0.
    np.maximum(length, 1e-6 * squares + 1e-24, out=length)
    np.sqrt(length, out=length)
    spread = (centre**2).sum(axis=-1)  # (n, K)
    logits -= np.einsum("nkd,nd->nk", toward[:, 1:], middle)[..., None]
    logits /= length[:, None]
    logits += (spread[:, :1] - spread[:, 1:])[..., None]
    return logits


def to_label_scores(logits: Array, score: str) -> Array:
    """(n, 1, M) scores of the second of two classes. logits: (n, 1, M)."""
    if score == "vote":
        return (logits > 0).astype(np.float32)
    p: Array = 1 / (1 + np.exp(-logits))
    return p


def to_class_scores(logits: Array, score: str) -> Array:
    """(n, K, M) scores of every class. logits: (n, K - 1, M)."""
    every = np.concatenate([np.zeros_like(logits[:, :1]), logits], axis=1)  # (n, K, M)
    if score == "vote":
        votes: Array = (every.argmax(axis=1)[:, None] == np.arange(every.shape[1])[:, None]).astype(np.float32)
        return votes
    odds = np.exp(every - every.max(axis=1, keepdims=True))
    p: Array = odds / odds.sum(axis=1, keepdims=True)
    return p


def l2_normalize(v: Array) -> Array:
    """Rows of unit length; a zero row stays zero (with one shot and one class the support equals its mean)."""
    unit: Array = v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    return unit
