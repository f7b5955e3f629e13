"""A trained network becomes an entry of the zoo: whole or not at all, and never over another one."""

import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import nn

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, process_tag, sync_folder
from encoders.runtime.paths import zoo_dir
from encoders.zoo import backbone, canary, weights
from encoders.zoo.card import Card
from encoders.zoo.names import BUILTIN_PREFIXES

MANIFEST_ARRAYS = ("store_fingerprint", "sha256", "phash", "patient_hash")
IDENTITY_FIELDS = ("sha256", "arch", "model_args", "preprocess")


def publish_encoder(name: str, model: nn.Module, card: Card, manifest: Mapping[str, np.ndarray] | None = None) -> Path:
    """Writes `zoo/<name>/` and returns it; sha256, dim, canary and versions of the card are filled in here.

    The canary is the answer of a network built anew from the card, so what was written is proved to load. The same encoder again is a
    no-op. Raises InputError when the name is taken by another encoder."""
    folder = zoo_dir() / check_zoo_name(name, card)
    card, state = complete_card(name, model, card)
    if folder.exists():
        return _find_same_entry(folder, card)
    part = folder.with_name(f".{name}.{process_tag()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        weights.write_state_dict(part / "model.safetensors", state)
        card.write(part / "card.yaml")
        if manifest is not None:
            write_manifest(part / "manifest.npz", manifest)
        try:
            part.rename(folder)
        except OSError:  # somebody else was faster
            return _find_same_entry(folder, card)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def complete_card(name: str, model: nn.Module, card: Card) -> tuple[Card, weights.StateDict]:
    """The card with sha256, dim, canary and versions of `model`, and the tensors to write."""
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    p = card.preprocess
    fresh = backbone.build_backbone(card.arch, card.model_args, p.channels, p.size, seed=0)
    weights.load_weights(fresh, state, f"the network to be published as {name}", prefix="")
    state = fresh.float().state_dict()
    versions = {**{lib: version(lib) for lib in ("torch", "timm", "isograft")}, **card.versions}
    own = {"name": name, "sha256": weights.state_dict_sha256(state), "dim": backbone.feature_dim(fresh), "versions": versions}
    return card.changed(**own, canary=canary.compute_canary(fresh, card)), state


def write_manifest(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes what the encoder was trained on; only the four known arrays, none of Python objects."""
    odd = [key for key, value in arrays.items() if key not in MANIFEST_ARRAYS or np.asarray(value).dtype.hasobject]
    if odd:
        raise ValueError(f"manifest arrays {odd} are not among {MANIFEST_ARRAYS}, or hold Python objects")
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})


def check_zoo_name(name: str, card: Card) -> str:
    """`name`, if it can be an entry of the zoo for what the card describes. Raises InputError otherwise.

    imagenet_* are the first baseline of every network of that name: pretraining of one's own must not pass for it."""
    plain = name.replace("_", "").replace("-", "").replace(".", "")
    if not plain.isascii() or not plain.isalnum() or name.startswith("."):
        raise InputError(f"{name!r} cannot name an encoder; use letters, digits, '_', '-' and '.'")
    if name.startswith("random_"):
        raise InputError(f"{name!r} cannot name an entry of the zoo: {BUILTIN_PREFIXES[1]}* are drawn, not stored; choose another --name")
    if name.startswith(BUILTIN_PREFIXES[0]) and (card.config or name != f"{BUILTIN_PREFIXES[0]}{card.arch}"):
        what = "pretrained here" if card.config else f"a {card.arch}"
        raise InputError(f"{name!r} is the name of that network's ImageNet weights, and this is {what}; choose another --name")
    return name


def _find_same_entry(folder: Path, card: Card) -> Path:
    """`folder`, if it holds the encoder of `card` already."""
    if not (folder / "card.yaml").is_file():
        raise InputError(f"{folder} exists and has no card; move it away, or choose another --name")
    there = Card.read(folder / "card.yaml")
    unlike = [key for key in IDENTITY_FIELDS if getattr(there, key) != getattr(card, key)]
    if unlike:
        raise InputError(
            f"the zoo has another encoder called {card.name} (its {', '.join(unlike)} differ); choose another name with --name, or remove "
            f"{folder} if that one is not wanted"
        )
    return folder
