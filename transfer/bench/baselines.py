"""Which encoders a bench compares: those asked for, and the baselines that make their numbers mean something."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.zoo import lineage, zoo
from encoders.zoo.card import Card
from encoders.zoo.names import parse_name

NON_RECIPE_KEYS = ("seed", "threads", "compile", "checkpointing", "log_every", "save_every", "keep_every", "pictures", "licence")


@dataclass(frozen=True)
class EncoderEntry:
    """One encoder of the comparison; `asked` says that the user named it, so that its absence is an error and no row."""

    name: str
    card: Card
    asked: bool

    @property
    def role(self) -> str:
        return encoder_role(self.name, self.card)


def encoder_role(name: str, card: Card) -> str:
    """imagenet, random, or encoder: what it is, not how it came into the comparison."""
    if card.method == "random" or card.source == "random":
        return "random"
    return "imagenet" if not name.startswith("runs/") and parse_name(name).base.startswith("imagenet_") and not card.config else "encoder"


def recipe_digest(card: Card) -> str:
    """A digest of how an encoder was pretrained, its seed and what changes no result left out; "" where the card does not say."""
    if not card.config:
        return ""
    told = {key: value for key, value in card.config.items() if key not in NON_RECIPE_KEYS}
    init = str(card.lineage.get("init", "")).partition("random:")[0] or "random"  # weights drawn by the seed that is left out
    of = card.corpus or {}
    images = [of.get(name) for name in ("fingerprint", "images", "used")]  # the config names files, which may hold anything
    return json_digest({"config": told, "steps": card.steps, "init": [init, card.lineage.get("init_sha256")], "images": images})


def read_pretraining_seed(card: Card) -> int | None:
    """The seed of an encoder's pretraining; None where its card does not say."""
    seed = (card.config or {}).get("seed")
    return seed if isinstance(seed, int) else None


def parse_baselines(given: Sequence[str] | None) -> list[str] | None:
    """What `--baseline` asks for: None for the defaults, [] for `none`."""
    return None if not given else [] if list(given) == ["none"] else list(given)


def resolve_encoders(encoders: Sequence[str], baselines: Sequence[str] | None) -> tuple[list[EncoderEntry], dict[str, str]]:
    """The encoders in order, each once, and the default baselines that cannot exist with the reason.

    baselines: names, [] for none, None for the ImageNet and random encoder of each one's architecture.
    Raises InputError for a name that is not known."""
    entries = {name: EncoderEntry(name, zoo.find_encoder(name).card, True) for name in [*encoders, *(baselines or [])]}
    missing: dict[str, str] = {}
    for name in encoders if baselines is None else []:
        card = entries[name].card
        for kind in ("imagenet", "random"):
            try:
                other = zoo.baseline_name(kind, card)
                if other not in entries:
                    entries[other] = EncoderEntry(other, zoo.find_encoder(other).card, False)
            except InputError as wrong:
                missing.setdefault(f"{kind}_{card.arch}", str(wrong))
    return _drop_duplicates(entries), missing


def _drop_duplicates(entries: dict[str, EncoderEntry]) -> list[EncoderEntry]:
    """Without default baselines and encoders that differ from another in their name only (`random_x` and `random_x:seed=0`)."""
    kept: list[EncoderEntry] = []
    for entry in sorted(entries.values(), key=lambda e: not e.asked):
        drawn = any(_same_random_weights(k.card, entry.card) for k in kept)
        stored = any(
            _same_stored_weights(k.card, entry.card) for k in kept
        )  # `m`, `zoo/m` and `runs/m` are one encoder, not three comparisons
        if not stored and (entry.asked or not drawn):
            kept.append(entry)
    return kept


def _same_stored_weights(a: Card, b: Card) -> bool:
    return a.sha256 is not None and (a.sha256, a.preprocess, a.model_args) == (b.sha256, b.preprocess, b.model_args)


def _same_random_weights(a: Card, b: Card) -> bool:
    """Whether two cards of drawn weights describe the same network; stored weights are told apart by their name."""
    if not (a.source == b.source == "random"):
        return False
    return (a.arch, a.model_args, a.preprocess, a.lineage) == (b.arch, b.model_args, b.preprocess, b.lineage)


def load_encoder(entry: EncoderEntry, device: str, missing: dict[str, str]) -> Any | None:
    """The encoder; None, with a reason in `missing`, for a default baseline that cannot be had."""
    try:
        return zoo.load_encoder(entry.name, device)
    except zoo.WeightsUnavailable as wrong:
        if entry.asked:
            raise
        missing[entry.name] = str(wrong)
        return None


def load_manifests(name: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """What an encoder was trained on, and what those that it started from were trained on."""
    for one, found in lineage.lineage_chain(name):
        if found is None:  # the encoder that it started from is no longer here
            return
        # A run keeps its manifest beside the folder of its export and of its checkpoints.
        folders = [found.folder, found.folder.parent] if found.folder and one.startswith("runs/") else [found.folder]
        for path in [f / "manifest.npz" for f in folders if f is not None and (f / "manifest.npz").is_file()][:1]:
            with np.load(path, allow_pickle=False) as file:
                yield one, {key: file[key] for key in file.files}
