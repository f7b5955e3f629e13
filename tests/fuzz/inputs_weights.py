"""Weights and encoders: weight files of every format, entries of the zoo and their cards, names of encoders.

A format without checksums cannot tell a changed number; there the truth of a changed file is what the library of its format reads.
"""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file, save_file

from encoders.importing.checkpoint import read_checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.limited_yaml import parse_written_yaml
from encoders.zoo import backbone, canary, zoo
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.feature_file import read_feature_file
from encoders.zoo.weights import read_state_dict
from tests.fuzz.harness import FuzzClass, SilentlyWrong, require_equal
from tests.fuzz.mutators import mutate_file, mutate_text, mutate_text_file, mutate_tree

ARCH, ARGS = "vit_tiny_patch16_224", {"embed_dim": 16, "depth": 1, "num_heads": 1}
GRAY = Preprocess(size=32, channels=1, mean=(0.5,), std=(0.25,))
STATE = {f"block{i}.weight": torch.arange(6.0).reshape(2, 3) + i for i in range(4)} | {"norm.steps": torch.tensor(7)}


def save_legacy(state: dict[str, torch.Tensor], path: Path) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


def save_arrays(state: dict[str, torch.Tensor], path: Path) -> None:
    np.savez(path.open("wb"), **{name: value.numpy() for name, value in state.items()})


def load_torch(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


def load_arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


class WeightFile(FuzzClass):
    """A weight file, read as `encoders import` and as the zoo read it."""

    def __init__(self, title: str, suffix: str, save: Callable[[Any, Path], None], load: Callable[[Path], Any], readers: list[Any]):
        self.name, self.file, self.save, self.load, self.readers = f"weights, {title}", f"model{suffix}", save, load, readers

    def prepare(self, folder: Path) -> None:
        self.save(STATE, folder / self.file)

    def check(self, folder: Path) -> None:
        refused, path = None, folder / self.file
        for read in self.readers:
            try:
                self.compare(path, {name: value for name, value in read(path).items() if isinstance(value, torch.Tensor)})
            except InputError as error:
                refused = error
        if refused is not None:
            raise refused

    def compare(self, path: Path, found: dict[str, torch.Tensor]) -> None:
        if found.keys() == STATE.keys() and all(_is_same(found[name], STATE[name]) for name in STATE):
            return
        try:
            other = self.load(path)
        except Exception as error:
            if isinstance(error, pickle.UnpicklingError) and all(value.numpy().tobytes() in path.read_bytes() for value in found.values()):
                return  # an import reads past objects that PyTorch refuses; what it reads are bytes of the file
            raise SilentlyWrong(f"read as {str(found)[:80]!r}, and its own library says {type(error).__name__}") from error
        for name, value in found.items():
            if name not in other or not _is_same(value, other[name]):
                raise SilentlyWrong(f"{name} is {str(value)[:60]!r}, and for its own library {str(other.get(name))[:60]!r}")


def _is_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def read_imported(path: Path) -> Any:
    checkpoint = read_checkpoint(path)
    places = checkpoint.places() or [()]  # at the top, which then is refused as no state dict
    return {name: value for place in places for name, value in checkpoint.tensors(place).items()}


class ZooEntry(FuzzClass):
    """An entry of the zoo, loaded by its name."""

    home: Path

    def __init__(self, title: str, change: Callable[[Path, Random], str]):
        self.name, self.change = f"zoo, {title}", change

    def prepare(self, folder: Path) -> None:
        os.environ["ISOGRAFT_HOME"] = str(folder)
        model = backbone.build_backbone(ARCH, ARGS, 1, 32, seed=3)
        card = Card(name="mine", arch=ARCH, model_args=ARGS, dim=1, preprocess=GRAY, steps=40, lineage={"init": "random:0", "lr": 1e-06},
                    corpus={"images": 112_120})  # fmt: skip
        zoo.publish_encoder("mine", model, card)
        self.images = canary.canary_images(1)[:1]
        encoder = zoo.load_encoder("mine")
        self.card, self.sha256, self.features = encoder.card, encoder.sha256, encoder.encode(self.images).numpy()

    def mutate(self, folder: Path, rng: Random) -> str:
        return self.change(folder / "zoo" / "mine", rng)

    def check(self, folder: Path) -> None:
        os.environ["ISOGRAFT_HOME"] = str(folder)
        encoder = zoo.load_encoder("mine")
        require_equal(encoder.card.model_dump(), self.card.model_dump(), "the card")
        require_equal(encoder.sha256, self.sha256, "the weights")
        require_equal(encoder.encode(self.images).numpy(), self.features, "the features")


def change_card_lines(entry: Path, rng: Random) -> str:
    return mutate_text_file(entry / "card.yaml", rng)


def change_card_values(entry: Path, rng: Random) -> str:
    path = entry / "card.yaml"
    tree, change = mutate_tree(parse_written_yaml(path.read_text()), rng)
    path.write_bytes(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass"))
    return change


NAMES = [
    "random_resnet10t", "random_resnet10t:size=64,seed=3", "random_resnet10t:mean=0.5/0.4/0.3,std=1/1/1", "random_resnet10t:3",
    "random_vit_tiny_patch16_224:model.depth=2,model.embed_dim=48,channels=1,seed=1", "imagenet_resnet18:size=96,resize=pad",
    "imagenet_resnet18:channels=1,mean=0.5,std=0.25", "random_resnet10t:stages=2/3/pooled", "random_resnet10t+random_resnet18:seed=2",
    "random_resnet10t~statistics=random_resnet10t:seed=1", "timm_resnet18.tv_in1k", "pixels", "runs/none@40", "features:none", "zoo/none",
]  # fmt: skip


class EncoderNames(FuzzClass):
    """A name of an encoder. One that is accepted has a canonical spelling, which names the same encoder."""

    name = "names of encoders"
    names_input = False

    def prepare(self, folder: Path) -> None:
        os.environ["ISOGRAFT_HOME"] = str(folder)
        (folder / "name").write_text(NAMES[0])

    def mutate(self, folder: Path, rng: Random) -> str:
        name, changes = rng.choice(NAMES), []
        for _ in range(rng.choice([1, 1, 2])):
            name, change = mutate_text(name, rng)
            changes.append(change)
        (folder / "name").write_bytes(name.encode("utf-8", "surrogatepass"))
        return f"{name[:80]!r}: {', '.join(changes)}"

    def check(self, folder: Path) -> None:
        name = (folder / "name").read_bytes().decode("utf-8", "surrogatepass")
        card = zoo.find_encoder(name).card
        require_equal(zoo.find_encoder(card.name).card.model_dump(), card.model_dump(), f"the encoder of its canonical name {card.name!r}")


class TileFeatures(WeightFile):
    """A file of tile features in a file of torch.save."""

    def prepare(self, folder: Path) -> None:
        torch.save({"features": torch.arange(12.0).reshape(3, 4), "coords": torch.arange(6).reshape(3, 2)}, folder / self.file)

    def check(self, folder: Path) -> None:
        found = read_feature_file(folder / self.file)
        require_equal(found.x, np.arange(12.0).reshape(3, 4), "the features")
        require_equal(found.corners, np.arange(6).reshape(3, 2), "the corners")


def change_weights(entry: Path, rng: Random) -> str:
    return mutate_file(entry / "model.safetensors", rng)


def change_card(entry: Path, rng: Random) -> str:
    return mutate_file(entry / "card.yaml", rng)


CLASSES = [
    WeightFile("safetensors", ".safetensors", save_file, load_file, [read_state_dict, read_imported]),
    WeightFile("torch.save, zip", ".pt", torch.save, load_torch, [read_state_dict, read_imported]),
    WeightFile("torch.save, legacy", ".pth", save_legacy, load_torch, [read_state_dict, read_imported]),
    WeightFile("archive of arrays", ".npz", save_arrays, load_arrays, [read_imported]),
    TileFeatures("features of tiles", ".pt", torch.save, load_torch, []),
    ZooEntry("bytes of the weights", change_weights),
    ZooEntry("bytes of the card", change_card),
    ZooEntry("lines of the card", change_card_lines),
    ZooEntry("values of the card", change_card_values),
    EncoderNames(),
]
