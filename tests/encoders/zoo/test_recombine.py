"""Weights of one encoder with the statistics of another, for the kinds of BatchNorm that timm's networks have."""

import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.zoo import backbone, lineage, zoo
from encoders.zoo.card import Preprocess
from tests.encoders.zoo.small import tiny_card

# BatchNorm2d; BatchNormAct2d; with a stem of its own; BatchNorm in a hybrid of convolutions and attention; one-dimensional BatchNorm
ARCHS = ["resnet10t", "mobilenetv2_050", "regnety_002", "efficientvit_m0", "levit_128s"]


def publish(name: str, arch: str, seed: int, size: int = 64, **lineage_of: object) -> None:
    """An encoder whose running statistics are random as well."""
    model = backbone.build_backbone(arch, size=size, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    for key, buffer in model.named_buffers():
        if key.endswith(("running_mean", "running_var")):
            buffer.copy_(torch.rand(buffer.shape, generator=draw) + 0.5)
    zoo.publish_encoder(name, model, tiny_card(name, Preprocess(size=size), lineage=lineage_of).replace(arch=arch))


@pytest.mark.parametrize("arch", ARCHS)
def test_only_the_statistics_are_exchanged(arch):
    size = 224 if arch in ("efficientvit_m0", "levit_128s") else 64
    publish("start", arch, 1, size)
    publish("mine", arch, 2, size, init="start")
    start, mine = (zoo.load_encoder(name).model.state_dict() for name in ("start", "mine"))
    for name, own, other in (("mine~statistics=start", mine, start), ("mine~weights=start", start, mine)):
        state = zoo.load_encoder(name).model.state_dict()
        taken = [key for key in state if "running_" in key]
        assert taken
        assert all(torch.equal(state[key], other[key]) for key in taken)
        assert all(torch.equal(value, own[key]) for key, value in state.items() if "running_" not in key)


def test_the_preprocessing_is_that_of_the_first_and_the_lineage_that_of_both():
    publish("start", "resnet10t", 1, 96)
    publish("mine", "resnet10t", 2, 64, init="start")
    for name in ("mine~weights=start", "mine~statistics=start"):
        card = zoo.find_encoder(name).card
        assert (card.name, card.preprocess.size, card.sha256, card.canary) == (name, 64, None, None)
        assert {n for n, _ in lineage.lineage_chain(name)} == {name, "start", "mine"}
    assert zoo.find_encoder("start~weights=mine").card.preprocess.size == 96


def test_networks_without_statistics_and_parts_are_refused():
    vit = "random_vit_tiny_patch16_224:size=32,model.depth=1"
    with pytest.raises(InputError, match="no BatchNorm"):
        zoo.load_encoder(f"{vit}~statistics={vit.replace(':', ':seed=1,')}")
    publish("start", "test_resnet", 1)
    zoo.publish_encoder("folded", backbone.build_backbone("test_resnet", channels=1, size=64, seed=0), tiny_card("folded"))
    with pytest.raises(InputError, match="of 3 channels, and folded is a test_resnet of 1"):
        zoo.find_encoder("start~statistics=folded")
