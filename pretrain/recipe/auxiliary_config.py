"""Labels as auxiliary targets of a pretraining run."""

from typing import Literal

from pydantic import Field

from encoders.runtime.config import Config


class AuxiliaryTarget(Config):
    """One label that a linear layer on the features of the backbone predicts, beside the loss of the method."""

    label: str | None = Field(None, description="column of the store: a label, or metadata such as view, sex, age; null: the entry's name")
    kind: Literal["classes", "number"] | None = Field(
        None,
        description="classes: cross-entropy; number: squared error of the value in units of its standard deviation; null: classes for text "
        "and for 0 and 1",
    )
    weight: float = Field(0.1, ge=0, description="factor of its loss in the sum; 0: off, and the label is not read")
