"""Files of training frameworks and of ResNets with other stems, with random weights: the import gives the source's features."""

import argparse
import copy
import re
import sys
import types

import pytest
import timm
import torch
import torchvision
from torch import nn

from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from tests.encoders.importing.sources import IMAGENET, VIT, prefixed, randomised, relative_difference, save

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
NAMESPACE = argparse.Namespace(lr=0.1)


def run(file, **settings):
    done = import_encoder(file, ImportSettings(**{**IMAGENET, "size": 64, **settings}), "theirs")
    assert not done.report.unexplained
    return done


def assert_is(source, limit=1e-5):
    with torch.no_grad():
        got = zoo.load_encoder("theirs").model.to(memory_format=torch.contiguous_format)(X)
        assert relative_difference(source(X), got) <= limit


def resnet():
    return randomised(torchvision.models.resnet18())


def vit(**args):
    return randomised(timm.create_model("vit_tiny_patch16_224", **{**VIT, **args}))


class PaddedResNet(torchvision.models.ResNet):
    """As in SwAV and VICReg: the first convolution pads by 2, after a layer that pads by 1."""

    def __init__(self):
        super().__init__(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2])
        self.padding, self.conv1.padding = nn.ConstantPad2d(1, 0.0), (2, 2)
        self.fc = nn.Identity()

    def forward(self, x):
        return super().forward(self.padding(x))


HEADS = {
    "projection_head.0.weight": torch.zeros(2, 512),
    "projection_head.1.running_mean": torch.zeros(2),
    "prototypes.weight": torch.zeros(3, 2),
}
PADDED = {
    "SwAV": (lambda m: prefixed("module.", m) | {f"module.{key}": value for key, value in HEADS.items()}, "swav"),
    "SwAV, several prototypes": (lambda m: {**m.state_dict(), "prototypes.prototypes0.weight": torch.zeros(3, 2)}, "swav"),
    "VICReg and Barlow Twins": (lambda m: m.state_dict(), "plain"),
    "VICReg, training": (
        lambda m: {"model": prefixed("module.backbone.", m) | {"module.projector.0.weight": torch.zeros(2, 512)}, "optimizer": {}},
        "barlow_vicreg",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PADDED)
def test_resnets_with_a_padded_stem(tmp_path, name):
    write, family = PADDED[name]
    source = randomised(PaddedResNet())
    assert run(save(tmp_path, write(source))).match.name == family
    assert_is(source)


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone."])
def test_resnet_of_dino(tmp_path, prefix):
    source = resnet()
    source.fc = nn.Identity()
    content = {"teacher": prefixed(prefix, source), "student": prefixed("module.backbone.", source, 2), "args": NAMESPACE, "epoch": 1}
    assert run(save(tmp_path, content)).match.role == "teacher"
    assert_is(source)


@pytest.mark.parametrize("place", [None, "model"])
def test_densenet_of_monai(tmp_path, place):
    """The 2D network is torchvision's, with the layers of a dense layer in a module of their own."""
    source = randomised(torchvision.models.densenet121())
    state = {}
    for key, value in source.state_dict().items():
        if ".denselayer" in key:
            key = re.sub(r"\.((?:norm|relu|conv)[12])\.", r".layers.\1.", key)
        state[key.replace("classifier.", "class_layers.out.")] = value
    done = run(save(tmp_path, state if place is None else {place: state}))
    source.classifier = nn.Identity()
    assert done.match.name == "monai"
    assert_is(source)


def test_a_vision_transformer_of_torchvision_in_lightly(tmp_path):
    pytest.importorskip("lightly")
    from lightly.models.modules import MaskedVisionTransformerTorchvision

    inner = randomised(torchvision.models.VisionTransformer(64, 16, 2, 3, 192, 768))
    wrapped = MaskedVisionTransformerTorchvision(vit=inner)
    run(save(tmp_path, {"state_dict": prefixed("backbone.", wrapped)}))
    inner.heads = nn.Identity()
    assert_is(inner.eval())


def test_a_vision_transformer_of_timm_in_lightly(tmp_path):
    pytest.importorskip("lightly")
    from lightly.models.modules import MaskedVisionTransformerTIMM

    wrapped = MaskedVisionTransformerTIMM(vit=vit())
    student = copy.deepcopy(wrapped)
    for parameter in student.parameters():
        parameter.data.mul_(2)
    content = prefixed("teacher_backbone.", wrapped) | prefixed("student_backbone.", student)
    run(save(tmp_path, {"state_dict": content, "hyper_parameters": {"lr": 0.1}, "loops": {}}))
    assert_is(wrapped.vit.eval(), 1e-6)


@pytest.fixture
def lightly_train_classes(monkeypatch):
    """The classes that a last.ckpt refers to; gone when it is read."""
    module = types.ModuleType("lightly_train_of_this_test")

    class Wrapper(nn.Module):
        def __init__(self, model, held_in_list):
            super().__init__()
            self._model = [model] if held_in_list else model  # torchvision's ResNets are held in a list
            if held_in_list:
                self._features = nn.Sequential(*list(model.children())[:-2])

    class EmbeddingModel(nn.Module):
        def __init__(self, wrapped):
            super().__init__()
            self.wrapped_model, self.embed_head = wrapped, nn.Identity()

    for kind in (Wrapper, EmbeddingModel):
        kind.__module__, kind.__qualname__ = module.__name__, kind.__name__
        setattr(module, kind.__name__, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    yield module
    sys.modules.pop(module.__name__, None)


@pytest.mark.parametrize("build", [vit, resnet])
def test_last_checkpoint_of_lightly_train(tmp_path, build, lightly_train_classes):
    source = build()
    wrapped = lightly_train_classes.Wrapper(source, build is resnet)
    embedding = lightly_train_classes.EmbeddingModel(wrapped)
    student = copy.deepcopy(embedding)
    for parameter in student.parameters():
        parameter.data.mul_(2)
    content = {
        "state_dict": prefixed("teacher_embedding_model.", embedding) | prefixed("student_embedding_model.", student)
        | {"student_projection_head.layers.0.weight": torch.zeros(2, 192)},
        "epoch": 1,
        "loops": {},
        "lightly_train": {
            "version": "0.18.0",
            "date": "2026-01-01T00:00:00+00:00",
            "models": {"model": source, "wrapped_model": wrapped, "embedding_model": embedding},
            "normalize_args": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]},
            "license_info": "",
        },
    }  # fmt: skip
    file = save(tmp_path, content, "last.ckpt")
    sys.modules.pop(lightly_train_classes.__name__)
    done = import_encoder(file, ImportSettings(size=64), "theirs")
    assert (done.match.name, done.card.preprocess.mean, done.card.preprocess.std) == ("lightly_train", (0.5,) * 3, (0.25,) * 3)
    again = import_encoder(file, ImportSettings(size=64, std=(0.2,)), "again")  # an option is stronger than the file
    assert (again.card.preprocess.mean, again.card.preprocess.std) == ((0.5,) * 3, (0.2,) * 3)
    if build is resnet:
        source.fc = nn.Identity()
    assert_is(source)


@pytest.mark.parametrize("build", [vit, resnet])
def test_exported_file_of_lightly_train(tmp_path, build):
    source = build()
    assert run(save(tmp_path, source.state_dict(), "exported_last.pt")).match.name == "plain"
    if build is resnet:
        source.fc = nn.Identity()
    assert_is(source)


@pytest.mark.parametrize(
    "stored", [None, {}, {"mean": [0.5] * 3}, {"mean": [0.5], "std": [0.1, 0.2]}, {"mean": "a", "std": "b"}, [0.5, 0.25]]
)
def test_a_last_checkpoint_without_a_normalisation_asks_for_it(tmp_path, stored):
    content = {"lightly_train": {"models": {"model": vit().state_dict()}, "normalize_args": stored}}
    with pytest.raises(InputError, match="pass --mean and --std"):
        import_encoder(save(tmp_path, content), ImportSettings())


def test_a_normalisation_stored_as_an_object_is_read(tmp_path):
    stored = argparse.Namespace(mean=(0.1, 0.2, 0.3), std=[0.4, 0.5, 1])
    content = {"lightly_train": {"models": {"model": vit().state_dict()}, "normalize_args": stored}}
    done = import_encoder(save(tmp_path, content), ImportSettings())
    assert (done.card.preprocess.mean, done.card.preprocess.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 1.0))
