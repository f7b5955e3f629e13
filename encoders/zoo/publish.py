"""Publishing a trained network as an entry of the zoo: atomic, and over another encoder only on request."""

import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import nn

from encoders.runtime.arrays import Array
from encoders.runtime.entry_names import check_entry_name
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, process_tag, sync_folder
from encoders.runtime.paths import records_dir, zoo_dir
from encoders.runtime.replace_folder import replace_folder
from encoders.runtime.storage_errors import name_lost
from encoders.zoo import backbone, canary, weights
from encoders.zoo.card import Card
from encoders.zoo.head import HeadWeights, write_head
from encoders.zoo.names import BUILTIN_PREFIXES, PIXELS
from encoders.zoo.removal import describe_references, find_references
from encoders.zoo.stages import inner_network, select_stages, stage_width

MANIFEST_ARRAYS = (
    "store_fingerprint",
    "sha256",
    "phash",
    "phash_trimmed",
    "patient_hash",
    "patient_near_hash",
    "datasets",
    "dataset_patients",
    "label_names",
    "labeled",
)
IDENTITY_FIELDS = ("sha256", "arch", "model_args", "preprocess", "stages", "parts", "head")


def publish_encoder(
    name: str,
    model: nn.Module,
    card: Card,
    manifest: Mapping[str, Array] | None = None,
    replace: bool = False,
    head: HeadWeights | None = None,
) -> Path:
    """Writes the folder `zoo/<name>/` and returns it; sets sha256, dim, canary and versions of the card.

    The canary comes from a second network built from the card, which proves that the entry loads. Publishing the same encoder again does
    nothing.  replace: another encoder of that name is replaced, see `publish_folder`.  head: the tensors that the card describes.
    Raises InputError for a name that another encoder has, or that no entry of the zoo can have, and ValueError for a head that is not that
    of the card."""
    check_zoo_name(name, card)
    if (None if card.head is None else card.head.sha256) != (None if head is None else head.sha256):
        raise ValueError(f"the head to write is not that of the card of {name}")
    card, state = complete_card(name, model, card)

    def fill(folder: Path) -> None:
        weights.write_state_dict(folder / "model.safetensors", state)
        if manifest is not None:
            write_manifest(folder / "manifest.npz", manifest)
        if head is not None:
            write_head(folder, head)

    return publish_folder(card, fill, replace)


def publish_folder(card: Card, fill: Callable[[Path], None], replace: bool = False) -> Path:
    """Writes the folder `zoo/<name of the card>/` with the card and what `fill` writes, all or nothing; returns it.

    Does nothing if the zoo has the same encoder. If it has another one of that name, raises InputError; with `replace` it is replaced,
    unless a run or an encoder started from it. Features and results of the old one are kept apart by the hash of their encoder."""
    folder = zoo_dir() / card.name
    replaces = folder.exists() and replace and not _is_same_entry(folder, card)
    if replaces:
        _check_no_child(card.name)
    elif folder.exists():
        return _find_same_entry(folder, card)
    part = folder.with_name(f".{card.name}.{process_tag()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with name_lost(f"the encoder {card.name}", f"the previous {card.name} is intact" if replaces else "", str(folder.parent)):
            part.mkdir(parents=True)
            fill(part)
            card.write(part / "card.yaml")
        if replaces:
            replace_folder(part, folder)
            return folder
        try:
            part.rename(folder)
        except OSError:
            if not folder.exists():  # otherwise another process published it first
                raise
            return _find_same_entry(folder, card)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def complete_card(name: str, model: nn.Module, card: Card) -> tuple[Card, weights.StateDict]:
    """The card with sha256, dim, canary and versions of `model`, and the tensors to write."""
    state = {key: value.detach().cpu() for key, value in inner_network(model).state_dict().items()}
    p = card.preprocess
    fresh = backbone.build_backbone(card.arch, card.model_args, p.channels, p.size, seed=0)
    weights.load_weights(fresh, state, f"the network to publish as {name}", prefix="")
    state = fresh.float().state_dict()
    versions = {**{lib: version(lib) for lib in ("torch", "timm", "isograft")}, **card.versions}
    width = backbone.feature_dim(fresh) if card.stages is None else stage_width(card, card.stages)
    own: dict[str, object] = {"name": name, "sha256": weights.state_dict_sha256(state), "dim": width, "versions": versions}
    network = select_stages(fresh, card.stages)
    own |= {"canary": canary.compute_canary(network, card), "network_canary": canary.compute_network_canary(network, card)}
    return card.replace(**own, pixel_canary=canary.compute_pixel_canary(card)), state


def write_manifest(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes the manifest of the pretraining images. Raises ValueError for other arrays than MANIFEST_ARRAYS and for Python objects."""
    unknown = [key for key, value in arrays.items() if key not in MANIFEST_ARRAYS or np.asarray(value).dtype.hasobject]
    if unknown:
        raise ValueError(f"manifest arrays {unknown} are not among {MANIFEST_ARRAYS}, or hold Python objects")
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **{key: np.asarray(value) for key, value in arrays.items()})


def check_zoo_name(name: str, card: Card) -> str:
    """`name`, if it is a valid name for a zoo entry with this card. Raises InputError otherwise.

    `imagenet_<arch>` is the ImageNet baseline of `<arch>`, so no other weights may have that name."""
    check_entry_name("encoder", name)
    if name == PIXELS:
        raise InputError(f"{name!r} is not a valid encoder name: it is the built-in encoder without weights; choose another --name")
    if name.startswith("random_"):
        raise InputError(f"{name!r} is not a valid encoder name: {BUILTIN_PREFIXES[1]}* encoders are never stored; choose another --name")
    if name.startswith(BUILTIN_PREFIXES[0]) and (card.config or name != f"{BUILTIN_PREFIXES[0]}{card.arch}"):
        what = "pretrained here" if card.config else f"a {card.arch}"
        raise InputError(f"{name!r} is reserved for ImageNet weights, and this encoder is {what}; choose another --name")
    return name


def _find_same_entry(folder: Path, card: Card) -> Path:
    """`folder`, if it holds the encoder of `card`. Raises InputError otherwise."""
    if different := _list_differences(folder, card):
        raise InputError(
            f"the zoo has another encoder called {card.name} (its {', '.join(different)} differ); choose another name with --name, or "
            f"replace it: `encoders import`, `pull`, `combine` and `transfer train` take --replace, otherwise `encoders remove "
            f"{card.name}` first"
        )
    return folder


def _is_same_entry(folder: Path, card: Card) -> bool:
    return not _list_differences(folder, card)


def _list_differences(folder: Path, card: Card) -> list[str]:
    """The fields in which the encoder in `folder` differs from that of `card`. Raises InputError for a folder without a card."""
    if not (folder / "card.yaml").is_file():
        raise InputError(f"{folder} exists and has no card.yaml; move it away, or choose another --name")
    old, new = Card.read(folder / "card.yaml").model_dump(), card.model_dump()
    return [key for key in IDENTITY_FIELDS if old.get(key) != new.get(key)]


def _check_no_child(name: str) -> None:
    """Raises InputError if a run or an encoder started from the entry: their lineage would name weights that they do not come from."""
    references, unread = find_references(name)
    references = [reference for reference in references if reference.kind != "record"]  # records hold the hash of their encoder
    unread = [path for path in unread if records_dir() not in path.parents]
    if references or unread:
        raise InputError(
            f"{name} was not replaced: {describe_references(references, unread)}, and would come from other weights than it says; "
            "choose another name with --name"
        )
