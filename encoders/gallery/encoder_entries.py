"""The encoders of the zoo as entries of the overview, from their cards."""

from pathlib import Path
from typing import Any, cast

import yaml

from encoders.gallery.entries import GalleryEntry, Link, modified_at, relative_link
from encoders.runtime.errors import InputError
from encoders.runtime.limited_yaml import parse_written_yaml, read_yaml_text
from encoders.runtime.sealed_json import remove_digest

RANDOM_START = "random:"


def read_encoder_entry(folder: Path, home: Path) -> GalleryEntry:
    """The entry of a folder of the zoo. Raises what a damaged card raises."""
    card, path = read_card_summary(folder / "card.yaml"), folder / "card.yaml"
    lineage, corpus = dict(card.get("lineage") or {}), dict(card.get("corpus") or {})
    has_weights = any(folder.glob("model*.safetensors"))
    entry = GalleryEntry(
        "encoder",
        folder.name,
        "in the zoo" if has_weights else "card without weights",
        "good" if has_weights else "warned",
        modified_at(path),
        numbers={
            "method": str(card.get("method") or ""),
            "network": str(card.get("arch") or ""),
            "steps": f"{int(card['steps']):,}" if card.get("steps") else "",
            "images": f"{int(corpus['images']):,}" if corpus.get("images") else "",
        },
        links=relative_link("card", path, home),
        details=[
            (key, str(value))
            for key, value in (
                ("features", f"{card.get('dim')} numbers per image"),
                ("modality", card.get("modality")),
                ("pretraining images", corpus.get("dataset")),
                ("start", describe_start_weights(lineage)),
                ("licence", card.get("licence")),
                ("source", card.get("source")),
                ("sha256", card.get("sha256")),
            )
            if value
        ],
    )
    if run := lineage.get("run"):
        entry.links.append(Link(f"run {run}", ("run", str(run))))
    parent = lineage.get("init")
    if isinstance(parent, str) and not parent.startswith(RANDOM_START):
        entry.links.append(Link(f"from {parent}", ("encoder", parent)))
    return entry


def read_card_summary(path: Path) -> dict[str, Any]:
    """The keys of a card, which is not validated. Raises InputError for what is no card, or was changed after it was written."""
    try:
        card = parse_written_yaml(read_yaml_text(path))
    except yaml.YAMLError as error:
        raise InputError(f"it is not YAML: {error}") from error
    if not isinstance(card, dict) or "arch" not in card:
        raise InputError("it is not a card: the network is not named")
    if "license" in card and "licence" not in card:  # as timm spells it, and as a card is read
        card["licence"] = card.pop("license")
    if remove_digest(card) is False:
        raise InputError("it was changed after it was written (its digest does not match)")
    return cast(dict[str, Any], card)


def describe_start_weights(lineage: dict[str, Any]) -> str:
    """`random weights, seed 0`, or the encoder that it started from; "" if the card does not say."""
    start = lineage.get("init")
    if not isinstance(start, str):
        return ""
    return f"random weights, seed {start.removeprefix(RANDOM_START)}" if start.startswith(RANDOM_START) else start
