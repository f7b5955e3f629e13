"""What a card says of the comparison of an encoder with its source. It imports no torch, which tables of results do without."""

from encoders.zoo.card import Card

NEVER_COMPARED = "never compared with its source"
EQUAL_RELATIVE = 1e-5  # of the largest feature: above float32 differences of kernels, below any other function


def describe_source_check(card: Card) -> str:
    """One line: the largest difference from the source's own features, or that nothing shows that they are equal.

    Encoders that were trained here, random ones and timm's own are their own source."""
    check = card.source_check
    if check is None:
        return "its own source: the network was trained or built by this code, or is timm's" if is_own_source(card) else NEVER_COMPARED
    pixels = "" if check.gray_levels is None else f"; prepared pixels within {check.gray_levels:.2g} of 255 gray levels"
    verdict = "equal to its source" if is_equal_to_source(card) else "NOT equal to its source"
    return (
        f"{verdict}: max difference {check.absolute:.2g}, relative {check.relative:.2g}, on {check.tensors} tensors "
        f"({check.software}){pixels}"
    )


def is_own_source(card: Card) -> bool:
    """Whether the network of this code is the one that the weights were made in."""
    source = card.source or ""
    return card.config is not None or source in ("random", "pixels", "recombined", "parts") or source.startswith("hub: timm/")


def is_equal_to_source(card: Card) -> bool | None:
    """Whether the features equal those of the source; None: never compared."""
    return None if card.source_check is None else card.source_check.relative <= EQUAL_RELATIVE


def needs_source_check(card: Card) -> bool:
    """Whether nothing shows that the encoder, or a part of it, is the function that its weights were trained in."""
    return any(map(needs_source_check, card.parts)) if card.parts else card.source_check is None and not is_own_source(card)
