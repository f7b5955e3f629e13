"""Importing a weight file of any project into the zoo: the network meant for evaluation, and an account of every tensor."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from encoders.importing.checkpoint import Checkpoint, read_checkpoint
from encoders.importing.choose_network import NetworkChoice, choose_network
from encoders.importing.families import FamilyMatch
from encoders.importing.fit_tensors import FitRule, fit_tensors
from encoders.importing.import_settings import ImportSettings
from encoders.importing.key_report import KeyReport
from encoders.importing.network_plan import DEFAULT_SIZE, NetworkPlan, plan_network
from encoders.importing.stored_pixels import read_stored_pixels
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.zoo import backbone, canary, stages, weights
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.publish import publish_encoder
from encoders.zoo.register import MISMATCH_CAUSES


@dataclass(frozen=True)
class ImportedEncoder:
    """An import: the folder written, what the file is, the account of its tensors, and what could not be checked."""

    folder: Path
    match: FamilyMatch
    report: KeyReport
    card: Card
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def import_encoder(
    file: Path, settings: ImportSettings, name: str | None = None, card: Card | None = None, replace: bool = False
) -> ImportedEncoder:
    """Loads the network of a file and publishes it as `name` (or under the card's name, or that of the file).

    card: describes the network and its preprocessing; otherwise the settings, the family of the file and its tensors do. If the card has a
    canary, the network must reproduce it.  replace: as for `publish_folder`.

    Raises InputError for a file that cannot be read or recognised, a tensor of the network that is missing or of another shape, a tensor of
    the file that is unexplained, and a canary that differs."""
    if card is not None and card.parts is not None:
        raise InputError(f"card {card.name} is of an encoder made of parts: import each part, then `encoders combine` them")
    checkpoint = read_checkpoint(file)
    settings = settings if card is None else _settings_of(card, settings)
    match = choose_network(checkpoint, NetworkChoice(settings.family, settings.network, settings.prefix, _wanted_names(settings)))
    plan = plan_network(match, settings)
    card = card or describe_card(checkpoint, match, plan, settings)
    model = backbone.build_backbone(plan.arch, plan.model_args, plan.channels, plan.size, seed=0)
    report = _load(model, match, plan, settings, file)
    _check_same_weights(file, model, card)
    card = card.replace(model_args=plan.model_args, source=card.source or file.name, sha256=None, head=None)  # a head is not in the file
    model = stages.select_stages(model, card.stages)
    warnings = _check_card_canary(file, model, card)
    folder = publish_encoder(name or card.name, model, card, replace=replace)
    return ImportedEncoder(folder, match, report, Card.read(folder / "card.yaml"), plan.notes, warnings)


def _settings_of(card: Card, settings: ImportSettings) -> ImportSettings:
    """How to read the file of a card. A canary proves the arguments; without one, those of the family are added."""
    p = card.preprocess
    return replace(
        settings,
        arch=card.arch,
        model_args=card.model_args,
        size=p.size,
        channels=p.channels,
        mean=p.mean,
        std=p.std,
        position_resampling=card.position_resampling or settings.position_resampling,
    )


def _wanted_names(settings: ImportSettings) -> frozenset[str] | None:
    """The names of the tensors of the network that was named; None if none was."""
    if settings.arch is None:
        return None
    with torch.device("meta"):
        size = settings.size or _usual_size(settings.arch)
        network = backbone.build_backbone(settings.arch, settings.model_args, settings.channels or 3, size)
    return frozenset(key for key in network.state_dict() if not key.endswith("num_batches_tracked"))


def _usual_size(arch: str) -> int:
    """A size that the network can be built with: tensor names do not depend on it."""
    cfg = timm.get_pretrained_cfg(backbone.validate_arch(arch), allow_unregistered=True)
    return int(cfg.input_size[-1]) if cfg else DEFAULT_SIZE


def describe_card(checkpoint: Checkpoint, match: FamilyMatch, plan: NetworkPlan, settings: ImportSettings) -> Card:
    """The card of an import without a card. Raises InputError if the mean and std of the pixels are not known."""
    file, family, licence = checkpoint.path, match.family, match.family.licence
    known = not licence.startswith("of ") and licence != "unknown"
    rule = settings.position_resampling or family.position_resampling
    return validate_config(
        Card,
        {
            "name": file.stem,
            "arch": plan.arch,
            "model_args": plan.model_args,
            "dim": 1,  # set on publishing
            "preprocess": describe_pixels(checkpoint, match, plan, settings),
            "position_resampling": None if rule == "timm" else rule,
            "modality": settings.modality or family.modality,
            "licence": settings.licence or (licence if known else "unknown"),
            "lineage": {"file": file.name, "family": match.name, "network": match.role, "described_in": family.source},
            "source": settings.source,
        },
        "the options",
    )


def describe_pixels(checkpoint: Checkpoint, match: FamilyMatch, plan: NetworkPlan, settings: ImportSettings) -> dict[str, Any]:
    """The fields of `Preprocess`, from the settings, otherwise from the file where it has them, otherwise from the family."""
    place = match.family.pixels_at
    family: Mapping[str, Any] = {**match.family.pixels, **(read_stored_pixels(checkpoint, place) if place else {})}
    out: dict[str, Any] = {"size": plan.size, "channels": plan.channels}
    for key in ("resize", "interpolation", "crop_pct", "value_range"):
        value = getattr(settings, key) if getattr(settings, key) is not None else family.get(key)
        if value is not None:
            out[key] = value
    for key in ("mean", "std"):
        value = getattr(settings, key) or family.get(key)
        if value is None:
            raise InputError(
                f"{checkpoint.path} is {match.family.title}, whose pixels are not known: pass --mean and --std, the normalisation "
                "these weights were trained with, on [0, 1], e.g. --mean 0.5 --std 0.5"
            )
        out[key] = _per_channel(tuple(value), plan.channels, key)
    return validate_config(Preprocess, out, "the options").model_dump()


def _per_channel(values: tuple[float, ...], channels: int, key: str) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    if len(values) in (1, 3) and len(set(values)) == 1:  # one number, or the three of a gray image
        return values[:1] * channels
    raise InputError(f"{key} has {len(values)} numbers and the network {channels} input channels; pass --{key} with one per channel")


def _load(model: nn.Module, match: FamilyMatch, plan: NetworkPlan, settings: ImportSettings, file: Path) -> KeyReport:
    """Loads the tensors into `model`; the account of them. Raises InputError unless every tensor has its place."""
    rule = FitRule(
        positions=settings.position_resampling or match.family.position_resampling,
        kernels=settings.resample,
        by_order=match.rule.by_order,
        drop=settings.drop,
    )
    state, report = fit_tensors(model, match.renamed, match.outside, rule)
    report.check(str(file), plan.advice() if report.faults() else "")
    if wrong := weights.describe_wrong_types(state, model.state_dict()):
        raise InputError(f"{file} does not match the network: {wrong}")
    model.load_state_dict(state, strict=True)
    return report


def _check_same_weights(file: Path, model: nn.Module, card: Card) -> None:
    """Raises InputError if the card has a sha256 that is neither that of the file nor that of its backbone alone."""
    if card.sha256 and card.sha256 not in (sha256_file(file), weights.state_dict_sha256(model.state_dict())):
        raise InputError(
            f"{file} is not the file of card {card.name}: its sha256 differs; download it again, or remove sha256 from the card"
        )


def _check_card_canary(file: Path, model: nn.Module, card: Card) -> tuple[str, ...]:
    """Warnings. Raises InputError if the network does not reproduce the card's canary."""
    p = card.preprocess
    if card.canary is None:
        return (
            f"the card has no canary, so nothing proves that {card.arch} with model_args {card.model_args or '{}'}, mean "
            f"{list(p.mean)} and std {list(p.std)} is the network these weights were trained in (MobileNetV2 with another padding loads "
            "as well): compare with the documentation of the weights",
        )
    off = canary.canary_distance(card.canary, canary.compute_canary(model, card))
    if off > canary.CANARY_TOLERANCE:
        raise InputError(
            f"{file} loads, but its canary differs from that of card {card.name} (relative difference {off:.2g}): {MISMATCH_CAUSES}"
        )
    return ()
