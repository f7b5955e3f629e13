"""Importing weight files into the zoo, verifying encoders, and exporting them for plain timm."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.zoo import backbone, canary, combine, stages, weights, zoo
from encoders.zoo.card import Card
from encoders.zoo.location import EncoderLocation
from encoders.zoo.publish import publish_encoder
from encoders.zoo.timm_call import timm_call


class RegisteredEncoder(NamedTuple):
    """An import: the folder written, which tensors were used, and what could not be checked."""

    folder: Path
    report: weights.LoadReport
    warnings: list[str]


class EncoderCheck(NamedTuple):
    """One check of an encoder and its result."""

    name: str
    passed: bool
    detail: str


def register_encoder(file: Path, card: Card, name: str | None = None, prefix: str | None = None) -> RegisteredEncoder:
    """Loads `file` into the network of `card`, every tensor matched, and publishes it as `name` (or under the card's own name).

    If the card has a canary, the network must reproduce it. Without a canary, arguments that do not change the tensors (padding, pooling,
    activation) cannot be checked, and a warning says so.  prefix: as in `load_weights`.  Raises InputError if the file, the card or the
    canary do not match."""
    p = card.preprocess
    if card.parts is not None:
        raise InputError(f"card {card.name} is of an encoder made of parts: import each part, then `encoders combine` them")
    model = backbone.build_backbone(card.arch, card.model_args, p.channels, p.size, seed=0)
    report = weights.load_weights(model, weights.read_state_dict(file), str(file), prefix)
    _check_same_weights(file, model, card)
    model = stages.select_stages(model, card.stages)
    warnings = []
    if card.canary is None:
        warnings.append(
            f"the card has no canary, so nothing proves that {card.arch} with model_args {card.model_args or '{}'}, mean "
            f"{list(p.mean)} and std {list(p.std)} is the network these weights were trained in (MobileNetV2 with another padding loads "
            "as well): compare with the documentation of the weights"
        )
    else:
        off = canary.canary_distance(card.canary, canary.compute_canary(model, card))
        if off > canary.CANARY_TOLERANCE:
            raise InputError(
                f"{file} loads, but its canary differs from that of card {card.name} (relative difference {off:.2g}): {_MISMATCH_CAUSES}"
            )
    card = card.replace(source=card.source or file.name, sha256=None)
    return RegisteredEncoder(publish_encoder(name or card.name, model, card), report, warnings)


_MISMATCH_CAUSES = "model_args, preprocessing or the file are not those of the card"


def _check_same_weights(file: Path, model: nn.Module, card: Card) -> None:
    """Raises InputError if the card has a sha256 that is neither that of the file nor that of its backbone alone."""
    if card.sha256 and card.sha256 not in (sha256_file(file), weights.state_dict_sha256(model.state_dict())):
        raise InputError(
            f"{file} is not the file of card {card.name}: its sha256 differs; download it again, or remove sha256 from the card"
        )


def verify_encoder(name: str) -> list[EncoderCheck]:
    """The checks of an encoder: the file is intact and has the card's sha256, every tensor matches, and the canary is reproduced.

    A damaged or wrong file is a failed check. Raises InputError for an unknown name and for weights that are not available locally."""
    location = zoo.find_encoder(name)
    if location.origin == "parts":
        return [check._replace(name=f"{part.card.name}, {check.name}") for part in location.parts for check in verify_location(part)]
    return verify_location(location)


def verify_location(location: EncoderLocation) -> list[EncoderCheck]:
    """The checks of the encoder of one network at this place."""
    card = location.card
    try:
        encoder = zoo.load_location(location)
    except zoo.WeightsUnavailable:
        raise
    except InputError as error:
        return [EncoderCheck("weights", False, str(error))]
    if location.origin == "computed":
        return [EncoderCheck("weights", True, "none: the features are computed from the image")]
    sha256 = f"sha256 {card.sha256[:16]}... equals that of the card" if card.sha256 else "the card has no sha256 to compare with"
    checks = [EncoderCheck("weights", True, f"every tensor matched; {sha256}")]
    if card.canary is None:
        return [*checks, EncoderCheck("canary", True, "not checked: the card has none")]
    off = canary.canary_distance(card.canary, canary.compute_canary(encoder.model, card))
    passed = off <= canary.CANARY_TOLERANCE
    detail = f"relative difference {off:.2g}, tolerance {canary.CANARY_TOLERANCE:g}"
    reason = "" if passed else f": {_MISMATCH_CAUSES}, or a library changed (the card was written with {card.versions})"
    return [*checks, EncoderCheck("canary", passed, detail + reason)]


def export_encoder(name: str, file: Path) -> str:
    """Writes the encoder's tensors under timm's names, with its card next to them; returns the timm call that loads the file.

    An encoder made of parts becomes one file per part and one card; see `combine.export_parts`. Raises InputError if `file` does not end
    in .safetensors."""
    if file.suffix != ".safetensors":
        raise InputError(f"{file} should end in .safetensors, the only format that is written: it holds tensors and no code")
    location = zoo.find_encoder(name)
    if location.origin == "parts":
        return combine.export_parts(location, file)
    if location.origin == "computed":
        raise InputError(f"{name} has no weights to export")
    encoder = zoo.load_location(location)
    answer = encoder.card.canary or canary.compute_canary(encoder.model, encoder.card)
    sha = weights.write_state_dict(file, stages.inner_network(encoder.model).state_dict())
    card = encoder.card.replace(name=file.stem, sha256=sha, canary=answer)
    card.write(file.with_suffix(".yaml"))
    return timm_call(card, file)
