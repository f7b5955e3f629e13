"""Encoders that tell what the difference between an encoder and the one it was trained from is made of: weights or BatchNorm statistics.

For every requested encoder with BatchNorm that was initialised from another one: its start, the encoder with the start's statistics, and
the encoder with the start's weights (`encoders.zoo.recombine`). All three have the encoder's preprocessing where the start's can be chosen.
"""

from collections.abc import Sequence

from encoders.runtime.errors import InputError
from encoders.zoo import lineage, names, zoo
from encoders.zoo.card import Card
from encoders.zoo.recombine import has_batchnorm
from transfer.bench.baselines import EncoderEntry
from transfer.tasks.options import Diagnosis

BUILT_IN_FIELDS = ("size", "resize", "crop_pct")  # what the names of built-in encoders choose for a comparison


def add_diagnosis(entries: Sequence[EncoderEntry], kinds: Sequence[Diagnosis]) -> tuple[list[EncoderEntry], list[str]]:
    """The entries with those of the diagnosis after them, and a line for every requested encoder that cannot be diagnosed or whose start
    has another preprocessing."""
    if not kinds:
        return list(entries), []
    added, lines = list(entries), []
    for entry in [e for e in entries if e.requested and e.role == "encoder"]:
        start = find_start(entry.card)
        reason = explain_undiagnosable(entry, start)
        if reason is not None:
            lines.append(f"no BatchNorm diagnosis of {entry.name}: {reason}")
            continue
        assert start is not None
        known = next((e.name for e in added if _is_same_encoder(e.card, start)), None)
        if known is None:
            added.append(EncoderEntry(start.name, start, False))
        different = [key for key, value in start.preprocess if value != getattr(entry.card.preprocess, key)]
        if different:
            lines.append(
                f"{entry.name} and its start {start.name} differ in {', '.join(different)} as well as in weights and statistics; the "
                "encoders of the diagnosis are those of the encoder in this respect"
            )
        for what in names.SWAPS:
            name = f"{entry.name}~{what}={known or start.name}"
            added.append(EncoderEntry(name, zoo.find_encoder(name).card, False))
    return added, lines


def find_start(card: Card) -> Card | None:
    """The card of the encoder that this one was initialised from, at its size and crop where a name can choose them (and with its resize
    rule, if the start is a built-in encoder); None if it was trained from random weights, or its start is not available locally."""
    parent = lineage.parent_encoder(card)
    if parent is None or card.parts is not None:
        return None
    try:
        start = zoo.find_encoder(parent)
        if start.origin not in ("zoo", "file", "hub") or start.parts:
            return start.card
        parsed = names.parse_name(parent)
        built_in = parent.startswith(names.BUILTIN_PREFIXES)
        own, base = card.preprocess.model_dump(), zoo.find_encoder(parsed.base).card.preprocess.model_dump()
        chosen = {**parsed.preprocess, **{key: own[key] for key in (BUILT_IN_FIELDS if built_in else zoo.TEST_TIME_FIELDS)}}
        options = {key: value for key, value in chosen.items() if value != base[key]}
        return zoo.find_encoder(names.variant_name(parsed.base, options, parsed.model_args, parsed.seed, card.stages)).card
    except InputError:
        return None


def explain_undiagnosable(entry: EncoderEntry, start: Card | None) -> str | None:
    """Why an encoder cannot be compared with its start in this way; None if it can."""
    card = entry.card
    if card.parts is not None:
        return "it is made of parts; name one of them"
    if start is None:
        parent = lineage.parent_encoder(card)
        return (
            "it was trained from random weights, or its card names no start"
            if parent is None
            else f"its start {parent} does not exist here"
        )
    if start.arch != card.arch or start.preprocess.channels != card.preprocess.channels:
        return f"its start {start.name} is another network"
    return None if has_batchnorm(card) else f"{card.arch} has no BatchNorm"


def _is_same_encoder(a: Card, b: Card) -> bool:
    """Whether two cards are of one encoder, under equal or different names."""
    same = (a.arch, a.model_args, a.preprocess, a.stages) == (b.arch, b.model_args, b.preprocess, b.stages)
    return same and (a.name == b.name or (a.sha256 is not None and a.sha256 == b.sha256))
