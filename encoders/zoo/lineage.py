"""The lineage of an encoder: the encoders that its weights come from, and theirs, as far back as cards are available locally.

An encoder comes from the one that it was initialised from, from its parts, or from the two whose weights and statistics it combines.
"""

from collections.abc import Iterator

from encoders.runtime.errors import InputError
from encoders.zoo import removal, zoo
from encoders.zoo.card import Card

RANDOM_PREFIX = "random:"  # in a card's lineage: random weights, followed by their seed


def lineage_chain(name: str) -> Iterator[tuple[str, zoo.EncoderLocation | None]]:
    """The encoder, then every encoder that it comes from, each once, as (name, location); nearest first.

    A removed encoder is at the place of its kept card. The location is None for one of which nothing was kept, whose own lineage is
    unknown. Raises InputError for an unknown `name`."""
    queue: list[tuple[str, zoo.EncoderLocation | None]] = [(name, zoo.find_encoder(name))]
    seen = {name}
    while queue:
        encoder, location = queue.pop(0)
        yield encoder, location
        for parent, place in _find_parents(location) if location else ():
            if parent not in seen:
                seen.add(parent)
                queue.append((parent, place))


def _find_parents(location: zoo.EncoderLocation) -> list[tuple[str, zoo.EncoderLocation | None]]:
    """The encoders that one comes from directly. Those it holds itself are not looked up by name, which may mean another encoder now."""
    if location.parts:
        return [(part.card.name, part) for part in location.parts]
    parent = parent_encoder(location.card)
    if parent is None:
        return []
    try:
        return [(parent, zoo.find_encoder(parent))]
    except InputError:
        kept = removal.find_removed(parent)
        return [(parent, zoo.find_encoder(str(kept)) if kept else None)]


def parent_encoder(card: Card) -> str | None:
    """The encoder that this one was initialised from; None for random weights and for imported ones."""
    parent = card.lineage.get("init")
    return parent if isinstance(parent, str) and not parent.startswith(RANDOM_PREFIX) else None


def describe_lineage(name: str) -> str:
    """The lineage as text, newest first: `mine (moco, 900 steps) <- imagenet_resnet18`; parts stand in brackets, separated by `;`."""
    return _describe(name, zoo.find_encoder(name), frozenset())


def _describe(name: str, location: zoo.EncoderLocation | None, seen: frozenset[str]) -> str:
    if location is None:
        return f"{name} (not available locally)"
    card = location.card
    task = f" on {card.lineage['task']}" if card.lineage.get("task") else ""  # of a stage of training with labels
    words = f"{name} ({card.method}{task}, {card.steps} steps)" if card.method and card.steps else name
    before = [_describe(parent, place, seen | {name}) for parent, place in _find_parents(location) if parent not in seen | {name}]
    first = str(card.lineage.get("init"))
    if not before:
        return f"{words} <- random weights, seed {first.removeprefix(RANDOM_PREFIX)}" if first.startswith(RANDOM_PREFIX) else words
    return f"{words} <- {before[0] if len(before) == 1 else '[' + '; '.join(before) + ']'}"
