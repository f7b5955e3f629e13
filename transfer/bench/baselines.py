"""The encoders that a bench compares: the requested ones, and the baselines that they are compared with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.npz_file import load_npz
from encoders.runtime.precision_names import FeaturePrecision
from encoders.zoo import lineage, zoo
from encoders.zoo.card import Card
from encoders.zoo.location import find_manifest
from encoders.zoo.names import PIXELS, STORED_FEATURES, parse_name, split_names
from encoders.zoo.pixels import has_network
from encoders.zoo.recombine import is_recombined

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

NON_RECIPE_KEYS = ("seed", "threads", "compile", "checkpointing", "log_every", "save_every", "keep_every", "pictures", "licence")


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder of the comparison. requested: the user named it, so that it is an error when it is missing."""

    name: str
    card: Card
    requested: bool

    @property
    def role(self) -> str:
        return encoder_role(self.name, self.card)


def encoder_role(name: str, card: Card) -> str:
    """imagenet, random, floor, diagnosis or encoder: the kind of encoder, whether it was requested or is a default baseline.

    An encoder made of parts has their role if all have the same one, otherwise it is an encoder."""
    if card.parts:
        roles = {encoder_role(part.name, part) for part in card.parts}
        return roles.pop() if len(roles) == 1 else "encoder"
    if card.source == PIXELS:
        return "floor"
    if card.source == STORED_FEATURES:
        return "encoder"
    if is_recombined(card):
        return "diagnosis"
    if card.method == "random" or card.source == "random":
        return "random"
    return "imagenet" if not name.startswith("runs/") and parse_name(name).base.startswith("imagenet_") and not card.config else "encoder"


def recipe_digest(card: Card) -> str:
    """A digest of the pretraining of an encoder without its seed and without settings that change no result; "" when the card has none."""
    if not card.config:
        return ""
    settings = {key: value for key, value in card.config.items() if key not in NON_RECIPE_KEYS}
    init = str(card.lineage.get("init", "")).partition("random:")[0] or "random"  # random weights of the seed that is excluded
    corpus = card.corpus or {}
    images = [corpus.get(name) for name in ("fingerprint", "images", "used")]  # the config only names files, whose content may differ
    return json_digest({"config": settings, "steps": card.steps, "init": [init, card.lineage.get("init_sha256")], "images": images})


def read_pretraining_seed(card: Card) -> int | None:
    """The seed of the pretraining of an encoder; None when its card has none."""
    seed = (card.config or {}).get("seed")
    return seed if isinstance(seed, int) else None


def parse_baselines(options: Sequence[str] | None) -> list[str] | None:
    """The values of `--baseline`: None for the defaults, [] for `none`."""
    given = split_names(options or [])
    return None if not given else [] if given == ["none"] else given


def resolve_encoders(
    encoders: Sequence[str], baselines: Sequence[str] | None, floor: bool = True
) -> tuple[list[EncoderEntry], dict[str, str]]:
    """The encoders in order, each once, and the default baselines that do not exist, with the reason.

    baselines: names, [] for none, None for the ImageNet and random weights of the architecture of each encoder (of each of its parts), and
    with `floor` the encoder `pixels`.  Raises InputError for an unknown name."""
    entries = {name: EncoderEntry(name, zoo.find_encoder(name).card, True) for name in [*encoders, *(baselines or [])]}
    missing: dict[str, str] = {}
    requested = [entries[name].card for name in encoders] if baselines is None else []
    for card in [part for whole in requested for part in whole.parts or (whole,) if has_network(part)]:
        for kind in ("imagenet", "random"):
            try:
                other = zoo.baseline_name(kind, card)
                if other not in entries:
                    entries[other] = EncoderEntry(other, zoo.find_encoder(other).card, False)
            except InputError as error:
                missing.setdefault(f"{kind}_{card.arch}", str(error))
    if floor and baselines is None and PIXELS not in entries:
        entries[PIXELS] = EncoderEntry(PIXELS, zoo.find_encoder(PIXELS).card, False)
    return _drop_duplicates(entries), missing


def describe_repeated_encoders(names: Sequence[str], entries: Sequence[EncoderEntry]) -> dict[str, str]:
    """The names that are in no entry, because another name has the same weights, with that name."""
    kept = {entry.name: entry.card for entry in entries}
    reasons = {}
    for name in dict.fromkeys(names):
        if name not in kept:
            card = zoo.find_encoder(name).card
            same = next(other for other, known in kept.items() if _same_stored_weights(known, card) or _same_random_weights(known, card))
            reasons[name] = f"it is the same encoder as {same}, which is benchmarked once, under that name"
    return reasons


def _drop_duplicates(entries: dict[str, EncoderEntry]) -> list[EncoderEntry]:
    """Drops encoders that differ from another only in name (`m`, `zoo/m` and `runs/m`; `random_x` and `random_x:seed=0`)."""
    kept: list[EncoderEntry] = []
    for entry in sorted(entries.values(), key=lambda e: not e.requested):
        same_random = any(_same_random_weights(k.card, entry.card) for k in kept)
        same_stored = any(_same_stored_weights(k.card, entry.card) for k in kept)
        if not same_stored and (entry.requested or not same_random):
            kept.append(entry)
    return kept


def _same_stored_weights(a: Card, b: Card) -> bool:
    fields = (a.sha256, a.preprocess, a.model_args, a.stages)
    return a.sha256 is not None and fields == (b.sha256, b.preprocess, b.model_args, b.stages)


def _same_random_weights(a: Card, b: Card) -> bool:
    """Whether two cards of random weights describe the same network; stored weights are distinguished by name."""
    if not (a.source == b.source == "random"):
        return False
    return (a.arch, a.model_args, a.preprocess, a.lineage, a.stages) == (b.arch, b.model_args, b.preprocess, b.lineage, b.stages)


def load_encoder(entry: EncoderEntry, device: str, precision: FeaturePrecision, missing: dict[str, str]) -> "Encoder | None":
    """The encoder, computing in `precision`. For a default baseline whose weights are not available: None, with the reason in `missing`."""
    try:
        return zoo.load_encoder(entry.name, device).with_precision(precision)
    except zoo.WeightsUnavailable as error:
        if entry.requested:
            raise
        missing[entry.name] = str(error)
        return None


class TrainingImages(NamedTuple):
    """An encoder and the manifest of the images that it was trained on."""

    name: str
    card: Card
    manifest: dict[str, Array]


def load_manifests(name: str) -> Iterator[TrainingImages]:
    """Yields the manifest of an encoder and of every encoder that it comes from: its start, its parts, and theirs."""
    for encoder, location in lineage.lineage_chain(name):
        path = None if location is None else find_manifest(location)  # None: the encoder that it was initialised from no longer exists
        if location is not None and path is not None:
            yield TrainingImages(encoder, location.card, load_npz(path, "copy it again: without it leaks cannot be found"))
