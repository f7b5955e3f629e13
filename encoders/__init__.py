"""Ground floor: from a file on disk to an embedding, and what pretraining and transfer both need.

`encoders.load(name).encode(images)` is the shortest way in.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

__version__ = "0.1.0"


def load(name: str, device: str = "cpu") -> "Encoder":
    """The encoder of that name: a zoo name, a card's path, `runs/X`, `runs/X@step`, `imagenet_<arch>` or `random_<arch>`.

    Raises InputError for an unknown name, and for weights that cannot be had without a network."""
    from encoders.zoo import zoo  # torch and timm are heavy: imported when used

    return zoo.load_encoder(name, device=device)
