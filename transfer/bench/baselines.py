"""The encoders that a bench compares: the requested ones, and the baselines that they are compared with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.zoo import lineage, zoo
from encoders.zoo.card import Card
from encoders.zoo.names import parse_name

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
    """imagenet, random or encoder: the kind of encoder, whether it was requested or is a default baseline."""
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
    return None if not options else [] if list(options) == ["none"] else list(options)


def resolve_encoders(encoders: Sequence[str], baselines: Sequence[str] | None) -> tuple[list[EncoderEntry], dict[str, str]]:
    """The encoders in order, each once, and the default baselines that do not exist, with the reason.

    baselines: names, [] for none, None for the ImageNet and random weights of the architecture of each encoder.
    Raises InputError for an unknown name."""
    entries = {name: EncoderEntry(name, zoo.find_encoder(name).card, True) for name in [*encoders, *(baselines or [])]}
    missing: dict[str, str] = {}
    for name in encoders if baselines is None else []:
        card = entries[name].card
        for kind in ("imagenet", "random"):
            try:
                other = zoo.baseline_name(kind, card)
                if other not in entries:
                    entries[other] = EncoderEntry(other, zoo.find_encoder(other).card, False)
            except InputError as error:
                missing.setdefault(f"{kind}_{card.arch}", str(error))
    return _drop_duplicates(entries), missing


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
    return a.sha256 is not None and (a.sha256, a.preprocess, a.model_args) == (b.sha256, b.preprocess, b.model_args)


def _same_random_weights(a: Card, b: Card) -> bool:
    """Whether two cards of random weights describe the same network; stored weights are distinguished by name."""
    if not (a.source == b.source == "random"):
        return False
    return (a.arch, a.model_args, a.preprocess, a.lineage) == (b.arch, b.model_args, b.preprocess, b.lineage)


def load_encoder(entry: EncoderEntry, device: str, missing: dict[str, str]) -> "Encoder | None":
    """The encoder. For a default baseline whose weights are not available: None, with the reason in `missing`."""
    try:
        return zoo.load_encoder(entry.name, device)
    except zoo.WeightsUnavailable as error:
        if entry.requested:
            raise
        missing[entry.name] = str(error)
        return None


def load_manifests(name: str) -> Iterator[tuple[str, dict[str, Array]]]:
    """Yields name and pretraining manifest of an encoder and of the encoders that it was initialised from."""
    for encoder, location in lineage.lineage_chain(name):
        if location is None:  # the encoder that it was initialised from no longer exists
            return
        # The manifest of a run is beside the folders of its export and of its checkpoints.
        folders = [location.folder, location.folder.parent] if location.folder and encoder.startswith("runs/") else [location.folder]
        for path in [f / "manifest.npz" for f in folders if f is not None and (f / "manifest.npz").is_file()][:1]:
            with np.load(path, allow_pickle=False) as file:
                yield encoder, {key: file[key] for key in file.files}
