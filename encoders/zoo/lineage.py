"""The lineage of an encoder: the weights it was initialised from, and theirs, as far back as cards are available locally."""

from collections.abc import Iterator

from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from encoders.zoo.card import Card

RANDOM_PREFIX = "random:"  # in a card's lineage: random weights, followed by their seed


def lineage_chain(name: str) -> Iterator[tuple[str, zoo.EncoderLocation | None]]:
    """The encoder, then the encoder that each was initialised from, as (name, location).

    The location is None for an encoder that no longer exists, which ends the chain. Raises InputError for an unknown `name`."""
    seen, location = {name}, zoo.find_encoder(name)
    yield name, location
    while (parent := parent_encoder(location.card)) is not None and parent not in seen:
        seen.add(parent)
        try:
            location = zoo.find_encoder(parent)
        except InputError:
            yield parent, None
            return
        yield parent, location


def parent_encoder(card: Card) -> str | None:
    """The encoder that this one was initialised from; None for random weights and for imported ones."""
    parent = card.lineage.get("init")
    return parent if isinstance(parent, str) and not parent.startswith(RANDOM_PREFIX) else None


def describe_lineage(name: str) -> str:
    """The lineage as text, newest first: `mine (moco, 900 steps) <- imagenet_resnet18`."""
    words, card = [], None
    for encoder, location in lineage_chain(name):
        card = location.card if location else None
        training = f" ({card.method}, {card.steps} steps)" if card and card.steps else ""
        words.append(f"{encoder}{training}" if location else f"{encoder} (not available locally)")
    first = str(card.lineage.get("init")) if card else ""
    return " <- ".join(
        [*words, *([f"random weights, seed {first.removeprefix(RANDOM_PREFIX)}"] if first.startswith(RANDOM_PREFIX) else [])]
    )
