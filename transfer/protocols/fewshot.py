"""Few-shot probe: nearest class mean from a handful of labeled rows, over many episodes.  Source: SimpleShot, Wang et al. 2019
(arXiv:1911.04623), with the support set's own mean subtracted as in Thunder.  Nothing is trained.

An episode draws `shots` train rows of every class. The support mean is subtracted, rows are normalised to unit length, and a row is
assigned to the class with the nearest mean. Each label of a multi-label task has its own episodes, with the classes "no" and "yes". The
score is the mean over episodes of the softmax over negative squared distances, or the share of episodes that voted for the class.

The number of shots is an axis, not a hyper-parameter: every value is reported with its standard deviation over episodes, none is chosen.

Shapes: N train rows, M rows to score, D width, C labels, K classes, E episodes, S shots.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import Config as Base
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator
from transfer.protocols.common import Features, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select

VERSION = 1
NEEDS: Needs = "pooled"
EPISODE_CHUNK = 50  # episodes at a time: (M, 50 K) distances


class Config(Base):
    """The episodes and their scores."""

    shots: tuple[int, ...] = Field((1, 2, 4, 8, 16), description="train rows of each class in an episode")
    episodes: int = Field(1000, ge=2, description="support sets drawn for each number of shots")
    score: Literal["distance", "vote"] = Field("distance", description="mean softmax over negative squared distances, or share of votes")
    seed: int = Field(0, description="seed of the support sets")


@dataclass
class Fitted(FittedProtocol[Features]):
    """The train rows and the episodes' support sets; the scores are those of the largest number of shots."""

    cfg: Config
    train: Features
    shots: list[int]
    selection: dict[str, Any]

    def scores(self, rows: Features) -> FloatArray:
        """(M, C) mean scores over all episodes, at the largest number of shots."""
        total: FloatArray = sum(self.episodes(rows.x, self.shots[-1]), np.zeros((len(rows), self.train.y.shape[1])))
        return total / self.cfg.episodes

    def episodes(self, x: Array, shots: int) -> Iterator[FloatArray]:
        """Yields the scores (M, C) of every episode, always in the same order."""
        return episode_scores(self.cfg, self.train, np.asarray(x, dtype=np.float64), shots)

    def episode_summary(self, rows: Features, metric: Select) -> dict[str, dict[str, float]]:
        """For every number of shots: mean and standard deviation of `metric` over episodes, and its value for the mean score."""
        table = {}
        for shots in self.shots:
            total, values = np.zeros(rows.y.shape), []
            for scores in self.episodes(rows.x, shots):
                values.append(metric(rows.y, scores))
                total += scores
            mean, sd = float(np.nanmean(values)), float(np.nanstd(values, ddof=1))
            table[str(shots)] = {"mean": mean, "sd": sd, "together": float(metric(rows.y, total / len(values)))}
        return table


def fit(cfg: Config, train: Features, val: Features, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """Keeps the numbers of shots for which every class has enough train rows, and summarises their episodes on `val`.

    Raises InputError if there is none."""
    fewest = min(len(rows) for label in rows_by_class(train) for rows in label)
    shots = sorted(s for s in set(cfg.shots) if s <= fewest)
    if not shots:
        raise InputError(
            f"fewshot.shots is {list(cfg.shots)} but a class has {fewest} labeled train rows; choose fewer shots or give more rows"
        )
    fitted = Fitted(cfg, train, shots, {})
    table = fitted.episode_summary(val, select)
    fitted.selection = {"shots": shots[-1], "episodes": cfg.episodes, "score": table[str(shots[-1])]["together"], "table": table}
    return fitted


def rows_by_class(train: Features) -> list[list[Array]]:
    """For every classification problem (one for a multi-class task, otherwise one per label): the train rows of each class."""
    if train.kind == "multiclass":
        return [[np.flatnonzero(train.y[:, c] > 0.5) for c in range(train.y.shape[1])]]
    return [[np.flatnonzero(train.y[:, c] == value) for value in (0, 1)] for c in range(train.y.shape[1])]


def episode_scores(cfg: Config, train: Features, x: Array, shots: int) -> Iterator[FloatArray]:
    """Yields the scores (M, C) of one episode after another."""
    groups = rows_by_class(train)
    draws = [generator(cfg.seed, Purpose.PROBE, shots, label) for label in range(len(groups))]
    bank = np.asarray(train.x, dtype=np.float64)
    for start in range(0, cfg.episodes, EPISODE_CHUNK):
        n = min(EPISODE_CHUNK, cfg.episodes - start)
        parts = [
            nearest_mean_scores(bank, classes, x, shots, n, draw, cfg.score) for classes, draw in zip(groups, draws, strict=True)
        ]  # (n, M, K) each
        yield from parts[0] if train.kind == "multiclass" else np.concatenate([p[..., 1:] for p in parts], axis=-1)


def nearest_mean_scores(
    bank: Array, classes: list[Array], x: Array, shots: int, n: int, draw: np.random.Generator, score: str
) -> FloatArray:
    """(n, M, K) class scores in n episodes."""
    support = np.stack([[draw.choice(rows, shots, replace=False) for rows in classes] for _ in range(n)])  # (n, K, S)
    raw = bank[support]  # (n, K, S, D)
    middle = raw.mean(axis=(1, 2))  # (n, D)
    centre = l2_normalize(raw - middle[:, None, None]).mean(axis=2)  # (n, K, D)
    # |unit(x - m) - c|^2 = 1 + |c|^2 - 2 c.(x - m) / |x - m|, from matrix products, without an (n, M, D) array.
    across = np.einsum("md,nkd->nmk", x, centre, optimize=True) - np.einsum("nd,nkd->nk", middle, centre)[:, None]
    length = np.sqrt(
        np.maximum((x**2).sum(1) - 2 * middle @ x.T + (middle**2).sum(1)[:, None], 1e-24)
    )  # (n, M); 1e-24: a query at the mean
    distance = 1 + (centre**2).sum(-1)[:, None] - 2 * across / length[..., None]
    if score == "vote":
        votes: FloatArray = (distance.argmin(axis=-1)[..., None] == np.arange(len(classes))).astype(np.float64)
        return votes
    odds = np.exp(distance.min(axis=-1, keepdims=True) - distance)
    p: FloatArray = odds / odds.sum(axis=-1, keepdims=True)
    return p


def l2_normalize(v: FloatArray) -> FloatArray:
    """Rows of unit length; a zero row stays zero (with one shot and one class the support equals its mean)."""
    unit: FloatArray = v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)
    return unit
