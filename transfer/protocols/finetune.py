"""Full fine-tuning with early stopping on validation rows; see `fit`."""

from collections.abc import Callable
from typing import Any

from pydantic import Field

from encoders.runtime.config import Config as Base
from transfer.protocols.common import Array, ImageSet, Select, select

NEEDS = "images"


class Config(Base):
    """How the encoder is trained on labels."""

    seed: int = Field(0, description="of the head, the order and the augmentation")


class Fitted:
    selection: dict[str, Any]

    def scores(self, images: ImageSet) -> Array:
        raise NotImplementedError


def fit(
    cfg: Config, encoder: Any, train: ImageSet, val: ImageSet, select: Select = select, log: Callable[..., None] | None = None
) -> Fitted:
    """Trains a copy of the encoder's model and a linear head; the best validation step is kept."""
    raise NotImplementedError
