"""Weights of others become an entry of the zoo; and the tests that an entry must pass afterwards."""

from pathlib import Path
from typing import Any, NamedTuple

from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.zoo import backbone, canary, weights, zoo
from encoders.zoo.card import Card
from encoders.zoo.publish import publish_encoder


class RegisteredEncoder(NamedTuple):
    """An import: where it went, what became of the tensors, and what could not be checked."""

    folder: Path
    report: weights.LoadReport
    warnings: list[str]


class EncoderCheck(NamedTuple):
    """One test of an encoder and how it went."""

    what: str
    good: bool
    detail: str


def register_encoder(file: Path, card: Card, name: str | None = None, prefix: str | None = None) -> RegisteredEncoder:
    """Reads `file` into the network of `card`, every tensor matched, and publishes it as `name` (or the card's own name).

    A canary in the card must be met: then the network is the one its maker had. Without one, arguments that keep the tensors (padding,
    pooling, activation) cannot be checked, and a warning says so."""
    p = card.preprocess
    model = backbone.build_backbone(card.arch, card.model_args, p.channels, p.size, seed=0)
    report = weights.load_weights(model, weights.read_state_dict(file), str(file), prefix)
    _check_same_weights(file, model, card)
    warnings = []
    if card.canary is None:
        warnings.append(
            f"the card has no canary, so nothing proves that {card.arch} with model_args {card.model_args or '{}'}, mean "
            f"{list(p.mean)} and std {list(p.std)} is the network these weights were trained in (MobileNetV2 with other padding loads "
            "as well): compare with its maker's statement"
        )
    else:
        off = canary.canary_distance(card.canary, canary.compute_canary(model, card))
        if off > canary.CANARY_TOLERANCE:
            raise InputError(
                f"{file} loads, but does not answer as the canary of card {card.name} says (off by {off:.2g}): {_MISMATCH_CAUSES}"
            )
    card = card.changed(source=card.source or file.name, sha256=None)
    return RegisteredEncoder(publish_encoder(name or card.name, model, card), report, warnings)


_MISMATCH_CAUSES = "model_args, preprocessing or the file are not those the card was made with"


def _check_same_weights(file: Path, model: Any, card: Card) -> None:
    """Raises InputError when the card names other weights, by the file's hash or by that of its backbone alone."""
    if card.sha256 and card.sha256 not in (sha256_file(file), weights.state_dict_sha256(model.state_dict())):
        raise InputError(f"{file} is not the file of card {card.name}: its sha256 differs; fetch it again, or remove sha256 from the card")


def verify_encoder(name: str) -> list[EncoderCheck]:
    """The tests of an encoder: its file is whole and is its card's, every tensor finds its place, the canary is met.

    Raises InputError for an unknown name and for weights that are not here; what is wrong with those that are is a failed check."""
    card = zoo.find_encoder(name).card
    try:
        encoder = zoo.load_encoder(name)
    except zoo.WeightsUnavailable:
        raise
    except InputError as wrong:
        return [EncoderCheck("weights", False, str(wrong))]
    told = f"sha256 {card.sha256[:16]}... is that of the card" if card.sha256 else "no sha256 in the card to compare with"
    checks = [EncoderCheck("weights", True, f"every tensor matched; {told}")]
    if card.canary is None:
        return [*checks, EncoderCheck("canary", True, "none in the card: not checked")]
    off = canary.canary_distance(card.canary, canary.compute_canary(encoder.model, card))
    good = off <= canary.CANARY_TOLERANCE
    detail = f"answers differ by {off:.2g} of the largest number, allowed {canary.CANARY_TOLERANCE:g}"
    return [
        *checks,
        EncoderCheck("canary", good, detail if good else f"{detail}: {_MISMATCH_CAUSES}, or a library changed ({card.versions})"),
    ]


def export_encoder(name: str, file: Path) -> str:
    """Writes the encoder's tensors, named as timm names them, and its card beside them; returns how plain timm loads the file."""
    if file.suffix != ".safetensors":
        raise InputError(f"{file} should end in .safetensors: it holds tensors only, which any program can read without running code")
    encoder = zoo.load_encoder(name)
    told = encoder.card.canary or canary.compute_canary(encoder.model, encoder.card)
    sha = weights.write_state_dict(file, encoder.model.state_dict())
    card = encoder.card.changed(name=file.stem, sha256=sha, canary=told)
    card.write(file.with_suffix(".yaml"))
    p = card.preprocess
    args: dict[str, Any] = {"num_classes": 0, "in_chans": p.channels, **card.model_args}
    if backbone.has_fixed_size(card.arch):
        args.setdefault("img_size", p.size)
    options = ", ".join(f"{key}={value!r}" for key, value in args.items())
    return f"timm.create_model({card.arch!r}, {options}, checkpoint_path={str(file)!r})"
