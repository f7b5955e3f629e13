"""Verifying encoders, and exporting them for plain timm."""

from pathlib import Path
from typing import NamedTuple

from encoders.runtime.errors import InputError
from encoders.runtime.files import prepared_text
from encoders.zoo import canary, combine, stages, weights, zoo
from encoders.zoo.card import Card
from encoders.zoo.head import read_head_of
from encoders.zoo.location import EncoderLocation
from encoders.zoo.public_card import publish_card
from encoders.zoo.source_check import compare_answer, record_source_check
from encoders.zoo.source_status import describe_source_check, is_equal_to_source
from encoders.zoo.timm_call import timm_call


class EncoderCheck(NamedTuple):
    """One check of an encoder and its result."""

    name: str
    passed: bool
    detail: str


MISMATCH_CAUSES = "model_args, preprocessing or the file are not those of the card"


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
    checks = [EncoderCheck("weights", True, f"every tensor matched; {sha256}"), *_check_head(location)]
    if card.canary is None:
        return [*checks, EncoderCheck("canary", True, "not checked: the card has none")]
    expected = {"canary": card.canary, "network": card.network_canary, "pixels": card.pixel_canary}
    actual = {
        "canary": lambda: canary.compute_canary(encoder.model, card),
        "network": lambda: canary.compute_network_canary(encoder.model, card),
        "pixels": lambda: canary.compute_pixel_canary(card),
    }
    checks += [_check_canary(name, values, actual[name](), card) for name, values in expected.items() if values is not None]
    return [*checks, EncoderCheck("source", is_equal_to_source(card) is not False, describe_source_check(card))]


def _check_head(location: EncoderLocation) -> list[EncoderCheck]:
    """The check of the head; none without one."""
    if location.card.head is None:
        return []
    try:
        read_head_of(location, location.card.name)
    except InputError as error:
        return [EncoderCheck("head", False, str(error))]
    return [EncoderCheck("head", True, f"sha256 {location.card.head.sha256[:16]}... equals that of the card")]


def _check_canary(name: str, expected: list[float], actual: list[float], card: Card) -> EncoderCheck:
    off = canary.canary_distance(expected, actual)
    passed = off <= canary.CANARY_TOLERANCE
    detail = f"relative difference {off:.2g}, tolerance {canary.CANARY_TOLERANCE:g}"
    reason = "" if passed else f": {MISMATCH_CAUSES}, or a library changed (the card was written with {card.versions})"
    return EncoderCheck(name, passed, detail + reason)


def record_answer(name: str, answer: Path) -> Card:
    """Compares an encoder with the answer of its source (see `source_check`), writes the comparison on its card, and returns the card.

    Raises InputError for an encoder without a card of its own, and for an answer that is not one of its source to its tensors."""
    location = zoo.find_encoder(name)
    if location.origin not in ("zoo", "card") or location.folder is None or location.card != location.weights_card:
        raise InputError(f"{name} has no card of its own to record a comparison on; compare an entry of the zoo")
    check = compare_answer(zoo.load_location(location), answer)
    own = Path(name)
    return record_source_check(own if own.suffix in (".yaml", ".yml") else location.folder / "card.yaml", check)


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
    state = stages.inner_network(encoder.model).state_dict()
    card = publish_card(encoder.card.replace(name=file.stem, sha256=weights.state_dict_sha256(state), canary=answer, head=None))
    with prepared_text(file.with_suffix(".yaml"), card.to_yaml()):
        weights.write_state_dict(file, state)
    left_out = f"# without the head of {name}; export a folder to keep it\n" if encoder.card.head else ""
    return left_out + timm_call(card, file)
