"""The tensors of a head, in `head.safetensors` beside the weights of its encoder.

Shapes: D width of the features, C classes.
"""

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.zoo import weights
from encoders.zoo.card import Card
from encoders.zoo.location import EncoderLocation

HEAD_FILE = "head.safetensors"
TRAIN_ADVICE = "train one with `transfer train --encoder {} --task TASK --name NAME`"


class HeadWeights(NamedTuple):
    """logits = features @ weight.T + bias.  weight: (C, D).  bias: (C,)."""

    weight: Tensor
    bias: Tensor

    def state(self) -> weights.StateDict:
        """The tensors by the names that they have in the file."""
        return {"weight": self.weight.float(), "bias": self.bias.float()}

    @property
    def sha256(self) -> str:
        """Of the file."""
        return weights.state_dict_sha256(self.state())


def write_head(folder: Path, head: HeadWeights) -> None:
    """Writes `head.safetensors` in the folder of its encoder."""
    weights.write_state_dict(folder / HEAD_FILE, head.state())


def read_head(folder: Path, card: Card) -> HeadWeights:
    """The head of the encoder in a folder. Raises InputError if the card has none, or the file is not that of the card."""
    if card.head is None:
        raise InputError(f"{card.name} has no head: {TRAIN_ADVICE.format(card.name)}")
    path = folder / HEAD_FILE
    if not path.is_file():
        raise InputError(f"the head of {card.name} is not at {path}; copy it again, or train it again")
    state = weights.read_state_dict(path)
    if (actual := sha256_file(path)) != card.head.sha256:
        raise InputError(
            f"{path} has sha256 {actual[:16]}..., the card of {card.name} has {card.head.sha256[:16]}...: the file was changed or damaged; "
            "copy it again, or train it again"
        )
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    expected = {"weight": (len(card.head.classes), card.dim), "bias": (len(card.head.classes),)}
    if shapes != expected or not all(torch.isfinite(value).all() for value in state.values()):
        raise InputError(f"{path} holds {shapes}, expected {expected}, all finite; train it again")
    return HeadWeights(state["weight"], state["bias"])


def read_head_of(location: EncoderLocation, name: str) -> HeadWeights:
    """The head of the encoder at this place. Raises InputError if it has none.  name: as the user wrote it."""
    if location.card.head is not None and location.folder is not None:
        return read_head(location.folder, location.card)
    stored = location.weights_card
    if stored.head is not None:
        raise InputError(f"{name} has no head: that of {stored.name} was calibrated for {stored.name} as it is; write {stored.name}")
    raise InputError(f"{name} has no head: {TRAIN_ADVICE.format(name)}")
