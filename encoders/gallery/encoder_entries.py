"""The encoders of the zoo as entries of the overview, from the parts of their cards that it shows."""

import re
from pathlib import Path
from typing import Any, cast

import yaml

from encoders.gallery.entries import GalleryEntry, Link, modified_at, relative_link

SHOWN_KEYS = ("name", "arch", "dim", "modality", "method", "steps", "lineage", "corpus", "licence", "sha256", "source")
RANDOM_START = "random:"
BLOCK_PATTERN = re.compile(
    r"^(\w+):[^\n]*\n(?:[ \-#][^\n]*\n|\n)*", re.MULTILINE
)  # a key at the start of a line, and what is indented below it
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with libyaml


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
    """The keys of a card that the overview shows. The others, such as thousands of canary numbers, are not parsed.

    Raises ValueError for what is no card."""
    text = path.read_text() + "\n"
    wanted = "".join(match[0] for match in BLOCK_PATTERN.finditer(text) if match[1] in SHOWN_KEYS)
    try:
        card = yaml.load(wanted, YAML_LOADER)
        if not isinstance(card, dict) or "arch" not in card:
            card = yaml.load(text, YAML_LOADER)  # a card in another layout than ours
    except yaml.YAMLError as error:
        raise ValueError(f"it is not YAML: {error}") from error
    if not isinstance(card, dict) or "arch" not in card:
        raise ValueError("it is not a card: the network is not named")
    return cast(dict[str, Any], card)


def describe_start_weights(lineage: dict[str, Any]) -> str:
    """`random weights, seed 0`, or the encoder that it started from; "" if the card does not say."""
    start = lineage.get("init")
    if not isinstance(start, str):
        return ""
    return f"random weights, seed {start.removeprefix(RANDOM_START)}" if start.startswith(RANDOM_START) else start
