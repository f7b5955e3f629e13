"""Policies for uncertain and blank labels.

Chest radiograph data sets mark uncertain findings (CheXpert: -1) and leave findings blank that a report does not mention. The policy
changes the task, so it is saved with it. The names are those of CheXpert: Irvin et al. 2019 (arXiv:1901.07031), sec. 3.1.

ones, zeros   uncertain counts as present, or as absent
ignore        uncertain is unknown: neither trained on nor scored
multiclass    uncertain is a third class; for a task with one label
smoothed      train rows get a random target from the range `smooth` (Pham et al. 2019, arXiv:1911.06475); unknown elsewhere

Shapes: N images, C label columns.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from encoders.runtime.arrays import Array
from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, uniform
from transfer.tasks.options import BlankPolicy, UncertainPolicy

if TYPE_CHECKING:
    from transfer.tasks.labels import LabelColumn


class LabelPolicy(Config):
    """How label values other than 0 and 1 are read."""

    uncertain: UncertainPolicy | None = Field(None, description="what `mark` becomes")
    mark: float = Field(-1.0, description="the value that marks an uncertain label")
    smooth: tuple[float, float] = Field((0.55, 0.85), description="range of the smoothed targets; below 0.5 leans towards absent")
    blank: BlankPolicy = Field("ignore", description="empty label of an image that has a row: unknown (ignore) or absent (zeros)")

    @field_validator("smooth")
    @classmethod
    def _within(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("expected two numbers with 0 <= low <= high <= 1")
        return value


def apply_policy(column: "LabelColumn", policy: LabelPolicy) -> "LabelColumn":
    """The column with the values 0, 1 and NaN (and 2 for the class `uncertain`). Raises InputError for a policy on a text column."""
    from transfer.tasks.labels import LabelColumn

    if policy == LabelPolicy():
        seen = set(np.unique(column.codes[~np.isnan(column.codes)]).tolist())
        if column.classes is None and policy.mark in seen and seen <= {0.0, 1.0, policy.mark}:
            raise InputError(
                f"label column {column.name!r} holds 0, 1 and {policy.mark:g}, which usually marks uncertain labels; choose how to count "
                f"them with --uncertain ({', '.join(get_args(UncertainPolicy))})"
            )
        return column
    if column.classes is not None:
        raise InputError(
            f"label column {column.name!r} is text ({', '.join(column.classes[:3])}); --uncertain and --blank need a column of 0, 1 "
            f"and {policy.mark:g}"
        )
    codes = column.codes.copy()
    if policy.blank == "zeros":
        codes[np.isnan(codes) & ~absent_rows(column)] = 0  # an image without a row stays unknown
    if policy.uncertain is not None:
        becomes = {"ones": 1.0, "zeros": 0.0, "multiclass": 2.0}.get(policy.uncertain, np.nan)
        codes[column.codes == policy.mark] = becomes
    classes = ["negative", "positive", "uncertain"] if policy.uncertain == "multiclass" else None
    return LabelColumn(column.name, codes, classes, column.without_row)


def absent_rows(column: "LabelColumn") -> NDArray[np.bool_]:
    """(N,) images without a row in the source."""
    return np.zeros(len(column.codes), dtype=bool) if column.without_row is None else column.without_row


def smooth_targets(columns: Sequence["LabelColumn"], policy: LabelPolicy, key: Array) -> NDArray[np.float32] | None:
    """(N, C) targets of the uncertain labels, NaN elsewhere; None under another policy. They depend on image key and label name only."""
    if policy.uncertain != "smoothed":
        return None
    soft = np.full((len(key), len(columns)), np.nan, dtype=np.float32)
    for c, column in enumerate(columns):
        rows = np.flatnonzero(column.codes == policy.mark)
        words = [hashlib.sha256(f"{column.name}\t{key[i]}".encode()).digest()[:8] for i in rows]
        u = uniform(0, Purpose.UNCERTAIN, [int.from_bytes(w, "little") for w in words])[:, 0] if len(rows) else np.zeros(0)
        soft[rows, c] = policy.smooth[0] + u * (policy.smooth[1] - policy.smooth[0])
    return soft
