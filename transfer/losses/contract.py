"""What the training loop needs of an approach to imbalance.

Shapes: B images of a step, N train rows, C labels or classes.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from encoders.runtime.arrays import FloatArray


class StepLoss(Protocol):
    """The loss of a step."""

    def __call__(self, logits: Tensor, y: Tensor, progress: float) -> Tensor:
        """A scalar. logits, y: (B, C), NaN = unknown.  progress: share of the steps that are done."""


@dataclass(frozen=True)
class TrainingLoss:
    """loss: of a step.  shift: (C,) what the approach adds to the optimal logits; it is subtracted again, so that scores are probabilities
    at the train prevalence; zeros where the approach is meant to favour rare classes.

    row_weight: (N,) relative frequency with which train rows are drawn, with replacement; None: each once an epoch."""

    loss: StepLoss
    shift: FloatArray
    row_weight: FloatArray | None = None
