"""Whether an encoder and its start see the same pixels: otherwise their scores differ not by the weights alone.

A run takes over the preprocessing of the weights that it starts from, but its recipe may set size, interpolation, crop, mean or std.
"""

from collections.abc import Iterable, Sequence

from encoders.zoo.card import Card, Preprocess
from encoders.zoo.lineage import lineage_chain
from encoders.zoo.names import short_name

GEOMETRY = ("size", "resize", "interpolation", "crop_pct")  # a name can hold them, so that a table may have the start in the encoder's way
NORMALISATION = ("channels", "value_range", "mean", "std")  # these belong to the weights: variants of a name fold them in exactly


def list_start_differences(card: Card, ancestors: Iterable[Card], lineup: Sequence[Card]) -> list[str]:
    """One sentence for every encoder of the table that `card` comes from and whose preprocessing differs.

    ancestors: the encoders that it was initialised from, as they were then.  lineup: all encoders of the table. The table may hold several
    variants of an ancestor, such as one at another size; the most similar one counts."""
    sentences = []
    for ancestor in ancestors:
        variants = [other for other in lineup if short_name(other.name) == short_name(ancestor.name) and other.name != card.name]
        if not variants or card.parts or ancestor.parts:
            continue
        own = list_preprocess_differences(card.preprocess, ancestor.preprocess, NORMALISATION)
        nearest = min(variants, key=lambda other: len(list_preprocess_differences(card.preprocess, other.preprocess, GEOMETRY)))
        own += list_preprocess_differences(card.preprocess, nearest.preprocess, GEOMETRY)
        if own:
            sentences.append(
                f"{card.name} is compared with {nearest.name}, from which it comes, under different preprocessing: {', '.join(own)}"
            )
    return sentences


def list_preprocess_differences(own: Preprocess, start: Preprocess, fields: Sequence[str]) -> list[str]:
    """`interpolation bilinear, was bicubic` for each of the fields that differs. The crop counts only where both crop."""
    a, b = ({"value_range": [0, 1], **p.model_dump(mode="json")} for p in (own, start))  # a dump leaves out the usual range
    cropped = own.resize == start.resize == "crop"
    return [f"{key} {a[key]}, was {b[key]}" for key in fields if a[key] != b[key] and (key != "crop_pct" or cropped)]


def find_ancestors(name: str) -> list[Card]:
    """The cards of all encoders that the encoder comes from and whose cards are available, nearest first."""
    return [location.card for _, location in list(lineage_chain(name))[1:] if location is not None]
