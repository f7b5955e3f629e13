"""Small networks and cards for the tests of the zoo."""

from torch import nn

from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess

GRAY = Preprocess(size=64, channels=1, mean=(0.51,), std=(0.25,))
COLOUR = Preprocess(size=64)


def tiny_network(seed: int = 0, preprocess: Preprocess = GRAY) -> nn.Module:
    """A small ResNet with weights determined by the seed."""
    return backbone.build_backbone("test_resnet", channels=preprocess.channels, size=64, seed=seed)


def tiny_card(name: str = "mine", preprocess: Preprocess = GRAY, **more: object) -> Card:
    """The card of `tiny_network`; its dim is replaced when it is published."""
    return Card(name=name, arch="test_resnet", dim=1, preprocess=preprocess, **more)
