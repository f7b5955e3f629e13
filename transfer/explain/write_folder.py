"""The folder of explanations: a picture for each image and method, the maps, a table, and a page. Only this user may read it.

explanations.csv   one row per image: number, key, label, probabilities, decision, names of its pictures, problem
explanations.json  the same without keys, for `transfer report --explanations`
maps.h5            key (N,), label (N,), probability (N, C), maps/METHOD (N, S, S) float32
index.html         all of it on a page; evaluation.csv: the measurements, if they were asked for

Shapes: N images that could be read, C labels or classes, S side of the input.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from encoders.runtime.errors import InputError
from encoders.runtime.escape import format_csv
from encoders.runtime.hdf5_file import atomic_hdf5
from encoders.runtime.new_folder import new_folder
from encoders.zoo.head_card import NEVER, Head
from transfer.explain.contract import Method
from transfer.explain.evaluate import Evaluation
from transfer.explain.evaluation_table import evaluation_csv_rows
from transfer.explain.explained import ExplainedBatch
from transfer.explain.overlay import PATIENT_MARK, SYNTHETIC_MARK, PictureText, to_picture, write_overlay
from transfer.explain.page import render_explanations
from transfer.explain.saved import CSV_NAME, FORMAT, JSON_NAME, MAPS_NAME, PAGE_NAME, SavedExplanation
from transfer.explain.select_images import SelectedImages
from transfer.tasks.plain_classes import negative_class, plain_class
from transfer.trained.predict import TrainedModel

EVALUATION_NAME = "evaluation.csv"


@dataclass
class WrittenExplanations:
    """What was written. images: those with a map.  problems: (key, reason).  trained_on: images that trained the model."""

    images: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    trained_on: int = 0
    saved: list[SavedExplanation] = field(default_factory=list)


def check_folder(out: Path, replace: bool, mark: str = JSON_NAME, what: str = "explanations") -> None:
    """Raises InputError for a folder that holds anything, unless it holds `what`, as the file `mark` shows, and may be replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; name a folder")
    if not out.exists() or not any(out.iterdir()):
        return
    if not (out / mark).is_file():
        raise InputError(f"--out {out} holds other files than {what}; name a new folder")
    if not replace:
        raise InputError(f"{out} holds {what}; choose another --out, or replace them with --replace")


def choose_mark(images: SelectedImages) -> str:
    """What every picture says of its origin."""
    synthetic = images.store is not None and all(bool(part.attrs.get("synthetic")) for part in images.store.parts)
    return SYNTHETIC_MARK if synthetic else PATIENT_MARK


def write_explanations(
    batches: Iterable[ExplainedBatch],
    model: TrainedModel,
    methods: Sequence[Method],
    mark: str,
    out: Path,
    evaluation: Evaluation | None = None,
    made_at: str = "",
) -> WrittenExplanations:
    """Writes the folder, whole or not at all."""
    done = WrittenExplanations()
    with private_folder(out) as folder:
        with atomic_hdf5(folder / MAPS_NAME) as file:
            lines = list(_write_batches(batches, model, methods, mark, folder, MapFile(file, model, methods), done))
        header = _list_table_columns(model.head, methods)
        (folder / CSV_NAME).write_text(format_csv([header, *lines]), encoding="utf-8", errors="replace")
        facts = {"format": FORMAT, "model": model.name, "task": model.head.task, "mark": mark, "methods": [m.name for m in methods]}
        (folder / JSON_NAME).write_text(json.dumps(facts | {"images": [saved.asdict() for saved in done.saved]}, indent=1) + "\n")
        if evaluation is not None:
            (folder / EVALUATION_NAME).write_text(format_csv(evaluation_csv_rows(evaluation)))
        page = render_explanations(model, methods, mark, folder, done.saved, done.problems, evaluation, made_at)
        (folder / PAGE_NAME).write_text(page, encoding="utf-8", errors="replace")
        for path in folder.iterdir():
            path.chmod(0o600)
    return done


@contextmanager
def private_folder(out: Path) -> Iterator[Path]:
    """Yields a folder that only this user may enter, which becomes `out` when the block succeeds."""
    with new_folder(out) as folder:
        folder.chmod(0o700)
        yield folder


class MapFile:
    """The maps as they are computed, in an open HDF5 file."""

    def __init__(self, file: h5py.File, model: TrainedModel, methods: Sequence[Method]):
        side, self.file = model.encoder.card.preprocess.size, file
        text = h5py.string_dtype()
        file.attrs["classes"] = json.dumps(model.head.classes)
        file.create_dataset("key", (0,), text, maxshape=(None,), chunks=(1024,))
        file.create_dataset("label", (0,), text, maxshape=(None,), chunks=(1024,))
        file.create_dataset("probability", (0, len(model.head.classes)), np.float64, maxshape=(None, None), chunks=True)
        for method in methods:
            file.create_dataset(f"maps/{method.name}", (0, side, side), np.float32, maxshape=(None, side, side), chunks=(1, side, side))

    def append(self, columns: dict[str, Any]) -> None:
        """Adds rows. columns: name of the dataset -> rows."""
        for name, rows in columns.items():
            data = self.file[name]
            start = data.shape[0]
            data.resize(start + len(rows), axis=0)
            data[start:] = rows


def _write_batches(
    batches: Iterable[ExplainedBatch],
    model: TrainedModel,
    methods: Sequence[Method],
    mark: str,
    folder: Path,
    maps: MapFile,
    done: WrittenExplanations,
) -> Iterator[list[object]]:
    """Writes the pictures and maps; yields the rows of the table."""
    head, number = model.head, 0
    empty = [""] * (len(_list_table_columns(head, methods)) - 3)
    for batch in batches:
        done.trained_on += batch.images.trained_on
        position = {image: row for row, image in enumerate(batch.images.read)}
        for i, key in enumerate(batch.images.keys):
            number += 1
            if (row := position.get(i)) is None:
                done.problems.append((key, batch.images.problems[i]))
                yield [number, key, *empty, batch.images.problems[i]]
                continue
            saved = _write_image(batch, row, number, model, methods, mark, folder)
            done.saved.append(saved)
            done.images += 1
            probabilities = [f"{p:.8g}" for p in batch.probability[row].tolist()]
            yield [number, key, head.classes[int(batch.label[row])], *probabilities, saved.decision, *saved.pictures.values(), ""]
        if batch.images.x is not None:
            keys = [batch.images.keys[i] for i in batch.images.read]
            labels = [head.classes[c] for c in batch.label.tolist()]
            each = {f"maps/{name}": explained.maps.cpu().numpy() for name, explained in batch.maps.items()}
            maps.append({"key": keys, "label": labels, "probability": batch.probability, **each})


def _write_image(
    batch: ExplainedBatch, row: int, number: int, model: TrainedModel, methods: Sequence[Method], mark: str, folder: Path
) -> SavedExplanation:
    """Writes the pictures of one image."""
    assert batch.images.x is not None, "an explained image was read"
    label = plain_class(model.head.classes[int(batch.label[row])])
    probability = float(batch.probability[row, batch.label[row]])
    decision = describe_decision(model.head, batch, row)
    picture, pictures = to_picture(batch.images.x[row], model.encoder.card.preprocess), {}
    for method in methods:
        pictures[method.name] = f"{number:05d}-{method.name.replace('+', 'p')}.png"
        found = batch.maps[method.name]
        text = PictureText(number, label, probability, decision, method.title, found.cells, mark)
        write_overlay(folder / pictures[method.name], picture, found.maps[row].double().cpu().numpy(), text)
    return SavedExplanation(number, label, probability, decision, pictures)


def describe_decision(head: Head, batch: ExplainedBatch, row: int) -> str:
    """`decided pneumonia (threshold 0.512)`; of a label that is not decided positive, `decided not pneumonia (...)`."""
    if head.thresholds is None:
        return f"decided {head.classes[int(batch.decided[row].argmax())]}"
    label, cut = int(batch.label[row]), head.thresholds[int(batch.label[row])]
    name = plain_class(head.classes[label]) if batch.decided[row, label] else negative_class(head.classes[label])
    return f"decided {name} ({f'threshold {cut:.3f}' if cut < NEVER else 'never positive'})"


def _list_table_columns(head: Head, methods: Sequence[Method]) -> list[str]:
    """The columns of the table."""
    pictures = [f"picture_{method.name}" for method in methods]
    return ["number", "key", "label", *(f"probability_{name}" for name in head.classes), "decision", *pictures, "problem"]
