"""The labels that a run is trained with, and what the notes, the card and the manifest say about them.

Shapes: N rows of the store, P rows of the corpus, T auxiliary targets, L columns.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.store.sealed_images import list_sealed_tasks
from pretrain.loop.corpus import Corpus
from pretrain.loop.usable_labels import UsedLabel, exclude_test_images, use_label
from pretrain.recipe.config import Recipe
from pretrain.recipe.target_columns import read_target_column

ENTRY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ -]*")  # of an auxiliary target: part of the name of a metric
MAX_COUNTS_SHOWN = 8
MAX_NUMERIC_CLASSES = 20  # of method.label: a column of more numbers is a measurement, such as an age


@dataclass(frozen=True)
class LabelUse:
    """All labels of a run; empty for a run without labels.

    positives: whose classes the method needs.  tasks: whose test images are left out.  notes: sentences for the user."""

    positives: UsedLabel | None = None
    auxiliary: tuple[UsedLabel, ...] = ()
    tasks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def used(self) -> list[UsedLabel]:
        return [*([self.positives] if self.positives else []), *self.auxiliary]

    def class_ids(self) -> IntArray | None:
        """(N,) class of each image for a method that needs it, -1 = unlabeled; None for other methods."""
        return None if self.positives is None else np.nan_to_num(self.positives.values, nan=-1).astype(np.int64)

    def targets(self) -> FloatArray | None:
        """(N, T) auxiliary targets, NaN = unlabeled; None without targets."""
        return np.stack([label.values for label in self.auxiliary], axis=1) if self.auxiliary else None

    def manifest(self, images: Corpus) -> dict[str, Array]:
        """`label_names` (L,), and `labeled` (P, L): of which images the label of each column was used. {} without labels."""
        columns = list(dict.fromkeys(label.column for label in self.used))
        if not columns:
            return {}
        of_column = [[np.isfinite(u.values[images.index]) for u in self.used if u.column == column] for column in columns]
        return {"label_names": np.array(columns, dtype=str), "labeled": np.stack([np.any(masks, axis=0) for masks in of_column], axis=1)}

    def lineage(self) -> dict[str, Json]:
        """The entry `labels` of a card's lineage; {} without labels."""
        if not self.used:
            return {}
        columns: list[Json] = [describe_for_card(label) for label in self.used]
        return {"labels": {"columns": columns, "without_test_images_of": list(self.tasks)}}


def gather_labels(
    recipe: Recipe, images: Corpus, column: str | None, drawn: FloatArray | None = None, card: Mapping[str, object] | None = None
) -> LabelUse:
    """The labels that the recipe asks for.

    column: whose classes the method needs; None: it needs none.  drawn: (P,) how often each image is drawn; None: equally often.
    card: of the checkpoint that a run continues from, whose labels are used again; None: of a new run.
    Raises InputError for a column that does not exist or is constant, and for labels that have changed since the run began."""
    entries = {name: entry for name, entry in recipe.auxiliary.items() if entry.weight > 0}
    if column is None and not entries:
        return LabelUse()
    if recipe.data.positives != "image":
        raise InputError(
            f"data.positives={recipe.data.positives}: the second view then shows another image, whose label may differ; labels need "
            "data.positives=image"
        )
    before = find_card_labels(card)
    listed, unlisted = list_sealed_tasks()
    tasks = listed if before is None else [str(name) for name in before.get("without_test_images_of", ())]
    reasons = exclude_test_images(images.store, tasks, recipe.data.label_keys)
    weights = np.ones(len(images.index)) if drawn is None else drawn
    positives, auxiliary = None, []
    if column is not None:
        read = read_target_column(images.store, column, "classes", "method.label")
        if not read.is_text and len(read.names or ()) > MAX_NUMERIC_CLASSES:
            raise InputError(
                f"method.label={column}: the column holds {len(read.names or ())} different numbers, a measurement; images of one class "
                "are positives, so name a column of classes"
            )
        positives = use_label("positives", "positives", 1.0, read, images.index, weights, reasons, "method.label")
    for name, entry in entries.items():
        if not ENTRY_NAME.fullmatch(name):
            raise InputError(f"auxiliary.{name}: names have letters, digits, _ and -; give the column by auxiliary.NAME.label={name!r}")
        setting = f"auxiliary.{name}.label"
        read = read_target_column(images.store, entry.label or name, entry.kind, setting)
        auxiliary.append(use_label(name, "auxiliary", entry.weight, read, images.index, weights, reasons, setting))
    use = LabelUse(positives, tuple(auxiliary), tuple(tasks))
    if before is not None and use.lineage()["labels"] != before:
        raise InputError(
            "the labels of this run are not those that it began with: a column of the store, the file data.label_keys, or a task whose "
            f"test images are left out ({', '.join(tasks) or 'none'}) was changed; restore it, or start another run"
        )
    return replace(use, notes=tuple(describe_labels(use, len(images.index), unlisted, [name for name in listed if name not in tasks])))


def find_card_labels(card: Mapping[str, object] | None) -> Mapping[str, Sequence[Json]] | None:
    """The entry `labels` in the lineage of a card; None without one."""
    lineage = card["lineage"] if card is not None else None
    labels = lineage.get("labels") if isinstance(lineage, Mapping) else None
    return labels if isinstance(labels, Mapping) else None


def describe_for_card(label: UsedLabel) -> dict[str, Json]:
    """What the card says about a label; the digest is of the used values, in the order of the store."""
    is_number = label.names is None
    return {
        "column": label.column,
        "role": label.role,
        "weight": label.weight,
        "classes": list(label.names or ()),
        **({"mean": round(label.mean, 6), "std": round(label.std, 6)} if is_number else {}),
        "images": dict(label.counts),
        "digest": hashlib.sha256(np.nan_to_num(label.values, nan=-1e9).astype("<f8").tobytes()).hexdigest()[:16],
    }


def describe_labels(use: LabelUse, images: int, unlisted: Sequence[str], later: Sequence[str]) -> list[str]:
    """Sentences on the labels.

    images: in the corpus.  unlisted: tasks whose test images are unknown.  later: tasks that were added after the run began."""
    notes = []
    for label in use.used:
        shown = [f"{n:,} {what}" for what, n in label.counts.items()]
        more = f", and {len(shown) - MAX_COUNTS_SHOWN} other groups" if len(shown) > MAX_COUNTS_SHOWN else ""
        purpose = "images of one class are positives" if label.role == "positives" else f"auxiliary loss of weight {label.weight:g}"
        notes.append(f"label {label.column!r}, {purpose}; of {images:,} images: {', '.join(shown[:MAX_COUNTS_SHOWN])}{more}")
    columns = ", ".join(dict.fromkeys(label.column for label in use.used))
    notes.append(f"the encoder is trained with labels ({columns}); its card and manifest say so, and `transfer bench` does")
    if metadata := ", ".join(dict.fromkeys(label.column for label in use.used if label.is_metadata)):
        notes.append(
            f"shortcut risk: features that tell {metadata} apart may stand in for a disease that is more frequent with some of its values; "
            "compare subgroups and other sites with a run without it"
        )
    if unlisted:
        notes.append(
            f"the test images of {', '.join(unlisted)} are unknown, because an earlier version added these tasks, and their labels are not "
            "left out; `transfer tasks keys TASK --out FILE` writes the list"
        )
    if later:
        notes.append(f"labels of test images of {', '.join(later)} may be in use: these tasks were added after the run began")
    return notes
