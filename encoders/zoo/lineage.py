"""What an encoder came from: its start, and the start of that, as far back as their cards are here."""

from collections.abc import Iterator

from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from encoders.zoo.card import Card

RANDOM_PREFIX = "random:"  # what a card's lineage calls random weights, before their seed


def lineage_chain(name: str) -> Iterator[tuple[str, zoo.EncoderLocation | None]]:
    """The encoder itself, then what each was initialised from; None for one that is no longer here, which ends the chain.

    Raises InputError when there is no encoder of that name to begin with."""
    seen, found = {name}, zoo.find_encoder(name)
    yield name, found
    while (before := parent_encoder(found.card)) is not None and before not in seen:
        seen.add(before)
        try:
            found = zoo.find_encoder(before)
        except InputError:
            yield before, None
            return
        yield before, found


def parent_encoder(card: Card) -> str | None:
    """The encoder that it was initialised from; None for random weights, and for those that came ready."""
    before = card.lineage.get("init")
    return before if isinstance(before, str) and not before.startswith(RANDOM_PREFIX) else None


def describe_lineage(name: str) -> str:
    """`mine (moco, 900 steps) <- imagenet_resnet18`: newest first."""
    words, card = [], None
    for one, found in lineage_chain(name):
        card = found.card if found else None
        done = f" ({card.method}, {card.steps} steps)" if card and card.steps else ""
        words.append(f"{one}{done}" if found else f"{one} (no longer here)")
    first = str(card.lineage.get("init")) if card else ""
    return " <- ".join(
        [*words, *([f"random weights, seed {first.removeprefix(RANDOM_PREFIX)}"] if first.startswith(RANDOM_PREFIX) else [])]
    )
