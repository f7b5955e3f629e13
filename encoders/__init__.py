"""Image stores, encoders and their features, and the code that `pretrain` and `transfer` share.

`encoders.load(name).encode(images)` returns the features of images.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

__version__ = "0.1.0"


def load(name: str, device: str = "cpu") -> "Encoder":
    """The encoder of that name: an entry of the zoo, the path of a card, `runs/X`, `runs/X@step`, `imagenet_<arch>` or `random_<arch>`.

    Raises InputError for an unknown name, and for weights that are neither available locally nor downloadable."""
    from encoders.zoo import zoo  # torch and timm are slow to import: only when used

    return zoo.load_encoder(name, device=device)
