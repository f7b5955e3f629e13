"""What an encoder's pretraining was, as columns of a table of runs: one filters, groups and plots by them."""

from collections.abc import Mapping, Sequence

from encoders.runtime.json_types import Json
from encoders.runtime.redact import last_path_part
from encoders.zoo.card import Card
from encoders.zoo.names import short_name


def describe_pretraining(card: Card) -> dict[str, Json]:
    """Method, architecture, pretraining images, epochs, images seen, size, data set, seed, parent and licence; None for what the card
    does not say. No value is a path or names a patient."""
    corpus, recipe, lineage = card.corpus or {}, card.config or {}, card.lineage
    images, batch = corpus.get("images"), recipe.get("batch")
    seen = count_images_seen(card.steps, int(batch), lineage.get("changes") or ()) if card.steps is not None and batch else None
    parent = lineage.get("init")
    return {
        "name": short_name(card.name),
        "method": card.method,
        "architecture": card.arch,
        "dim": card.dim,
        "size": card.preprocess.size,
        "modality": card.modality,
        "pretraining_dataset": corpus.get("dataset"),
        "pretraining_images": images,
        "images_seen": seen,
        "epochs": round(seen / images, 4) if seen is not None and images else None,
        "steps": card.steps,
        "seed": recipe.get("seed"),
        "parent": None if parent is None else short_name(last_path_part(str(parent))),
        "parent_sha256": lineage.get("init_sha256"),
        "pretraining_run": lineage.get("run"),
        "run_id": lineage.get("run_id"),
        "licence": card.licence,
    }


def count_images_seen(step: int, batch: int, changes: Sequence[Mapping[str, Json]] = ()) -> int:
    """Images that a run has drawn up to `step`, repetitions included.

    batch: images per step at the end.  changes: of settings at a resume, as in run.json, oldest first; those of `batch` count."""
    of_batch = [(_to_int(change["step"]), _to_int(change["from"])) for change in changes if change["key"] == "batch"]
    seen, start = 0, 0
    for until, before in of_batch:
        end = min(until, step)
        seen, start = seen + before * max(end - start, 0), max(start, end)
    return seen + batch * (step - start)


def _to_int(value: Json) -> int:
    return int(str(value))
