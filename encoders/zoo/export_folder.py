"""Exporting an encoder as a folder that timm, transformers and the Hugging Face hub read.

config.json         the network and its preprocessing in timm's form
model.safetensors   the tensors under timm's names
README.md           a model card: licence, data, recipe, results
card.yaml           isograft's card
head.safetensors    the head of an encoder that was fine-tuned on a task
manifest.npz        hashes of the training images and patients; only on request
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import nn

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.new_folder import new_folder
from encoders.zoo import canary, lineage, model_card, stages, weights, zoo
from encoders.zoo.card import Card
from encoders.zoo.encoder import Encoder
from encoders.zoo.evaluation import EvaluationReport, read_evaluation
from encoders.zoo.head import HEAD_FILE, read_head_of, write_head
from encoders.zoo.licences import LicenceHolder, licence_warnings
from encoders.zoo.location import find_manifest
from encoders.zoo.preprocess import prepare_input
from encoders.zoo.public_card import publish_card
from encoders.zoo.source_status import describe_source_check
from encoders.zoo.timm_config import build_timm_config, list_code_arguments

FOLDER_FILES = ("config.json", "model.safetensors", HEAD_FILE, "README.md", "card.yaml", "manifest.npz", "model.onnx", "model.onnx.yaml")


class ExportedFolder(NamedTuple):
    """What was written, and what whoever passes it on must know."""

    folder: Path
    sha256: str
    warnings: list[str]
    evaluation: EvaluationReport


def export_folder(name: str, folder: Path, with_manifest: bool = False, table: Path | None = None) -> ExportedFolder:
    """Writes the encoder as a folder, loads it with timm, and checks that its features are equal, bit for bit.

    table: of `transfer table`, for the results on the model card; None: records/table.csv, if it exists.  Raises InputError for an encoder
    that is not one network, and for a folder that holds other files."""
    location = zoo.find_encoder(name)
    if location.origin in ("parts", "computed"):
        reason = "is made of several networks; export each part" if location.origin == "parts" else "has no weights to export"
        raise InputError(f"{name} {reason}")
    _check_folder(folder)
    manifest = find_manifest(location) if with_manifest else None
    if with_manifest and manifest is None:
        raise InputError(f"{name} has no manifest of its training images; leave --manifest out")
    encoder = zoo.load_location(location)
    network = stages.inner_network(encoder.model)
    answer = encoder.card.canary or canary.compute_canary(encoder.model, encoder.card)
    sha = weights.state_dict_sha256(network.state_dict())
    card = publish_card(encoder.card.replace(sha256=sha, canary=answer))
    ancestors = list_licences(name)
    report = read_evaluation(location.card.name, encoder.sha256, table)
    facts = model_card.ModelCardFacts(
        card, ancestors, lineage.describe_lineage(name), report.results, _hub_base(name), describe_source_check(card)
    )
    with new_folder(folder) as part:  # also without the manifest and the ONNX file of an earlier export
        weights.write_state_dict(part / "model.safetensors", network.state_dict())
        _write_text(part / "config.json", json.dumps(build_timm_config(card, network), indent=2) + "\n")
        card.write(part / "card.yaml")
        if card.head is not None:
            write_head(part, read_head_of(location, name))
        _write_text(part / "README.md", model_card.write_model_card(facts))
        if manifest is not None:
            with atomic_write(part / "manifest.npz") as own:
                shutil.copyfile(manifest, own)
        _check_timm_loads(part, encoder, network)
    return ExportedFolder(folder, sha, licence_warnings(card.licence, ancestors) + _code_warnings(card), report)


def list_licences(name: str) -> list[LicenceHolder]:
    """The licences of the encoders that this one was trained from, nearest first."""
    chain = list(lineage.lineage_chain(name))[1:]
    return [LicenceHolder(parent, place.card.licence if place else "unknown") for parent, place in chain]


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise InputError(f"{folder} is a file; name a folder, or FILE.safetensors for the weights and the card alone")
    other = sorted(path.name for path in folder.iterdir() if path.name not in FOLDER_FILES) if folder.is_dir() else []
    if other:
        raise InputError(f"{folder} holds other files ({', '.join(other[:3])}); name a new folder, or one with an earlier export")


def _hub_base(name: str) -> str | None:
    """The hub name of the weights that the encoder was initialised from, for `base_model`."""
    parents = [place for _, place in list(lineage.lineage_chain(name))[1:] if place is not None]
    return next((place.hub.repo for place in parents if place.hub is not None), None)


def _check_timm_loads(folder: Path, encoder: Encoder, network: nn.Module) -> None:
    """Raises RuntimeError unless timm builds the same network from the folder, with the same features where config.json states them."""
    extra = list_code_arguments(encoder.card)
    if "mlp_layer" in extra:
        return  # needs a Python object; `weights.write_state_dict` has written the tensors
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    own = network.state_dict()
    same = _equal_states({key: value.cpu() for key, value in own.items()}, loaded.state_dict())
    if same and not extra:
        x = prepare_input(canary.canary_images(encoder.card.preprocess.channels), encoder.card.preprocess)
        with torch.inference_mode():
            x = x.contiguous(memory_format=torch.channels_last)
            same = torch.equal(loaded.to(memory_format=torch.channels_last)(x), network.eval()(x))
    if not same:
        raise RuntimeError(
            f"nothing was written, because timm loads another network than {encoder.card.name} from it; report this with its card"
        )


def _equal_states(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _code_warnings(card: Card) -> list[str]:
    extra = list_code_arguments(card)
    return [f"config.json cannot state {', '.join(extra)}: load it with the code in README.md"] if extra else []


def _write_text(path: Path, text: str) -> None:
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")
