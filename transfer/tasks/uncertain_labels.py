"""What a label means where its source is not sure, or says nothing.

Chest radiograph sets mark uncertain findings (CheXpert: -1) and leave findings blank that a report does not mention. What is made of them
changes a task, so it stands in the task. The names are CheXpert's: Irvin et al. 2019 (arXiv:1901.07031), sec. 3.1.

ones, zeros   uncertain counts as present, or as absent
ignore        uncertain is unknown: neither trained on nor scored
multiclass    a class of its own; for a task with one label
smoothed      train rows get a target drawn between `smooth` (label smoothing, Pham et al. 2019, arXiv:1911.06475); unknown elsewhere

Shapes: N images.
"""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, uniform

if TYPE_CHECKING:
    from transfer.tasks.labels import LabelColumn

UNCERTAIN_POLICIES = ("ones", "zeros", "ignore", "multiclass", "smoothed")
BLANK_POLICIES = ("ignore", "zeros")


class LabelPolicy(Config):
    """How label values other than 0 and 1 are read."""

    uncertain: Literal["ones", "zeros", "ignore", "multiclass", "smoothed"] | None = Field(None, description="what `mark` becomes")
    mark: float = Field(-1.0, description="the value that says uncertain")
    smooth: tuple[float, float] = Field((0.55, 0.85), description="ends of the smoothed targets; below 0.5: uncertain leans to absent")
    blank: Literal["ignore", "zeros"] = Field("ignore", description="an empty label of an image that has a row: unknown, or absent")

    @field_validator("smooth")
    @classmethod
    def _within(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("expected two numbers, 0 <= low <= high <= 1")
        return value


def apply_policy(column: "LabelColumn", policy: LabelPolicy) -> "LabelColumn":
    """The column with 0, 1 and NaN only (and 2, a class of its own). Raises InputError for a policy on a column of text."""
    from transfer.tasks.labels import LabelColumn

    if policy == LabelPolicy():
        seen = set(np.unique(column.codes[~np.isnan(column.codes)]).tolist())
        if column.classes is None and policy.mark in seen and seen <= {0.0, 1.0, policy.mark}:
            raise InputError(
                f"label column {column.name!r} holds 0, 1 and {policy.mark:g}, which usually stands for uncertain: say with --uncertain "
                f"what it counts as ({', '.join(UNCERTAIN_POLICIES)})"
            )
        return column
    if column.classes is not None:
        raise InputError(
            f"label column {column.name!r} is text ({', '.join(column.classes[:3])}); --uncertain and --blank are for columns of 0, 1 and "
            f"{policy.mark:g}"
        )
    codes = column.codes.copy()
    if policy.blank == "zeros":
        codes[np.isnan(codes) & ~absent_rows(column)] = 0
    if policy.uncertain is not None:
        becomes = {"ones": 1.0, "zeros": 0.0, "multiclass": 2.0}.get(policy.uncertain, np.nan)
        codes[column.codes == policy.mark] = becomes
    classes = ["negative", "positive", "uncertain"] if policy.uncertain == "multiclass" else None
    return LabelColumn(column.name, codes, classes, column.absent)


def absent_rows(column: "LabelColumn") -> NDArray[np.bool_]:
    """(N,) images about which the source has no row at all, so that an empty label means nothing."""
    return np.zeros(len(column.codes), dtype=bool) if column.absent is None else column.absent


def smooth_targets(columns: Sequence["LabelColumn"], policy: LabelPolicy, key: NDArray[Any]) -> NDArray[np.float32] | None:
    """(N, C) targets of the uncertain labels, NaN elsewhere; None under another policy. A function of the image's key and the label."""
    if policy.uncertain != "smoothed":
        return None
    soft = np.full((len(key), len(columns)), np.nan, dtype=np.float32)
    for c, column in enumerate(columns):
        rows = np.flatnonzero(column.codes == policy.mark)
        words = [hashlib.sha256(f"{column.name}\t{key[i]}".encode()).digest()[:8] for i in rows]
        u = uniform(0, Purpose.UNCERTAIN, [int.from_bytes(w, "little") for w in words])[:, 0] if len(rows) else np.zeros(0)
        soft[rows, c] = policy.smooth[0] + u * (policy.smooth[1] - policy.smooth[0])
    return soft
