"""Storing an encoder made of parts: one weight file and one manifest per part, and one card that holds the cards of all parts.

Each part is stored as it is loaded (after a variant has been resampled or folded), so that the stored encoder depends on no other entry of
the zoo. What was written is loaded again and must give the same features for the canary images, bit for bit.
"""

import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, prepared_text
from encoders.zoo import canary, parts, weights, zoo
from encoders.zoo.card import Card
from encoders.zoo.encoder import Encoder
from encoders.zoo.location import EncoderLocation, find_manifest, part_file
from encoders.zoo.public_card import publish_card
from encoders.zoo.publish import check_zoo_name, publish_folder
from encoders.zoo.stages import inner_network
from encoders.zoo.timm_call import timm_call


def combine_encoders(names: Sequence[str], name: str, replace: bool = False) -> Path:
    """Writes the encoder made of `names` as the entry `name` of the zoo; returns its folder.  replace: as for `publish_folder`.

    Raises InputError for fewer than two encoders, for the same one twice, and for a name that another encoder has."""
    if len(names) < 2:
        raise InputError(f"an encoder is combined of two or more, and {len(names)} was named; write `encoders combine A B --name AB`")
    location = parts.join_locations([zoo.find_encoder(each) for each in names])
    encoder = zoo.load_location(location)
    card = complete_joined_card(check_zoo_name(name, location.card), location, encoder)
    folder = publish_folder(card, lambda folder: _write_parts(folder, "model", location, encoder), replace)
    _check_same_features(encoder, zoo.load_encoder(str(folder)), folder)
    return folder


def export_parts(location: EncoderLocation, file: Path) -> str:
    """Writes FILE.part1.safetensors, FILE.part2.safetensors, ... and one card; returns the timm calls that load the files.

    `--encoder FILE.yaml` loads them together. A part without weights has no file."""
    encoder = zoo.load_location(location)
    card = publish_card(complete_joined_card(file.stem, location, encoder))
    with prepared_text(file.with_suffix(".yaml"), card.to_yaml()):
        _write_parts(file.parent, file.stem, location, encoder)
    _check_same_features(encoder, zoo.load_encoder(str(file.with_suffix(".yaml"))), file)
    own = [(part, part_file(file.parent, file.stem, i, ".safetensors")) for i, part in enumerate(card.parts or ())]
    return "\n".join(timm_call(part, path) if path.is_file() else f"{part.name}: no weights" for part, path in own)


def complete_joined_card(name: str, location: EncoderLocation, encoder: Encoder) -> Card:
    """The card to store: each part's with the sha256 of its file, and its canary."""
    own = [_complete_part(place.card, part) for place, part in zip(location.parts, encoder.parts, strict=True)]
    versions = {library: version(library) for library in ("torch", "timm", "isograft")}
    return location.card.replace(name=name, parts=[card.model_dump() for card in own], versions=versions)


def _complete_part(card: Card, part: Encoder) -> Card:
    if not list(part.model.parameters()):
        return card
    sha = weights.state_dict_sha256(inner_network(part.model).state_dict())
    return card.replace(sha256=sha, canary=card.canary or canary.compute_canary(part.model, card))


def _write_parts(folder: Path, stem: str, location: EncoderLocation, encoder: Encoder) -> None:
    """Writes the weight file and the manifest of every part that has one."""
    for i, (place, part) in enumerate(zip(location.parts, encoder.parts, strict=True)):
        if list(part.model.parameters()):
            weights.write_state_dict(part_file(folder, stem, i, ".safetensors"), inner_network(part.model).state_dict())
        if (manifest := find_manifest(place)) is not None:
            with atomic_write(part_file(folder, stem, i, ".manifest.npz")) as own:
                shutil.copyfile(manifest, own)


def _check_same_features(encoder: Encoder, loaded: Encoder, where: Path) -> None:
    """Raises RuntimeError unless what was written gives the same features."""
    images = canary.canary_images()
    if loaded.sha256 != encoder.sha256 or not torch.equal(encoder.encode(images), loaded.encode(images)):
        raise RuntimeError(f"{where} was written and gives other features when it is loaded; the file system may be damaged")
