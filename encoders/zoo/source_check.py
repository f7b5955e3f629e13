"""Whether an imported encoder was compared with its source: the module that the weights were trained in."""

from encoders.zoo.card import Card

NEVER_COMPARED = "never compared with its source"


def describe_source_check(card: Card) -> str:
    """One line: the largest difference from the source's own features, or that nothing shows that they are equal.

    Encoders that were trained here, random ones and timm's own are their own source."""
    if is_own_source(card):
        return "its own source: the network was trained or built by this code, or is timm's"
    return NEVER_COMPARED


def is_own_source(card: Card) -> bool:
    """Whether the network of this code is the one that the weights were made in."""
    source = card.source or ""
    return card.config is not None or source in ("random", "pixels", "recombined") or source.startswith("hub: timm/")
