"""Where an encoder is: its card, and the file, hub entry or parts that its weights come from."""

from pathlib import Path
from typing import Literal, NamedTuple

from encoders.zoo.builtin import HubWeights
from encoders.zoo.card import Card
from encoders.zoo.weights import StateDict

# drawn: random weights.  computed: no network.  parts: several encoders.  recombined: weights of one and statistics of another encoder.
Origin = Literal["zoo", "card", "run", "file", "hub", "drawn", "computed", "parts", "recombined"]


class EncoderLocation(NamedTuple):
    """An encoder's card and the place of its weights. A variant's `card` differs from `weights_card` in size, channels or stages."""

    card: Card  # of the encoder
    weights_card: Card  # of the weights as they were trained
    origin: Origin
    file: Path | None = None  # the weights; None if they are on the hub or random
    state: StateDict | None = None  # the tensors, if they are in a run's checkpoint
    hub: HubWeights | None = None
    folder: Path | None = None  # of the card
    parts: "tuple[EncoderLocation, ...]" = ()  # parts: those of the card.  recombined: of the weights, of the statistics
    manifest: Path | None = None  # of the training images, if it has another place than beside the card


def find_manifest(location: EncoderLocation) -> Path | None:
    """The manifest of the images that the weights at this place were trained on; None if there is none."""
    if location.manifest is not None or location.folder is None:
        return location.manifest
    # The manifest of a run is beside the folders of its export and of its checkpoints.
    folders = [location.folder, location.folder.parent] if location.origin == "run" else [location.folder]
    return next((folder / "manifest.npz" for folder in folders if (folder / "manifest.npz").is_file()), None)


def weight_stem(card_file: Path) -> str:
    """The name, without suffix, of the weight files that belong to a card file: `model` for card.yaml and wherever no other exists."""
    own = card_file.stem
    named = card_file.name != "card.yaml" and any(card_file.parent.glob(f"{own}*.safetensors"))
    return own if named else "model"


def part_file(folder: Path, stem: str, i: int, suffix: str) -> Path:
    """The file of part `i`, counted from 0: `model.part1.safetensors`, `model.part1.manifest.npz`."""
    return folder / f"{stem}.part{i + 1}{suffix}"
