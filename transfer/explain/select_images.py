"""Which images are explained, and their prepared input, batch after batch.

Shapes: B images of a batch, K channels, S side of the input.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from encoders.features.input_batches import iterate_inputs
from encoders.runtime.arrays import IntArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.random import Purpose, permutation
from encoders.store.store import Store
from transfer.explain.contract import require_tensor
from transfer.tasks.load import load_task
from transfer.tasks.options import PARTS, Part
from transfer.tasks.task import read_task
from transfer.trained.image_files import FileBatches, FileReader, FoundImages, choose_form
from transfer.trained.predict import PredictionInput, TrainedModel, count_trained_on

EXPLAIN_BATCH = 16


class ImageBatch(NamedTuple):
    """keys: of B images.  x: (n, K, S, S) prepared, of those that could be read; None if there is none.  read: (n,) their positions.

    patient: (B,) "" where it is not known.  rows: (B,) of the store; None for files.  problems: position -> why it cannot be read."""

    keys: list[str]
    patient: list[str]
    x: Tensor | None
    read: list[int]
    rows: IntArray | None
    problems: dict[int, str]
    trained_on: int


@dataclass(frozen=True)
class SelectedImages:
    """Images of a store by row, or files."""

    store: Store | None = None
    rows: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    files: FoundImages | None = None

    def __len__(self) -> int:
        return len(self.rows) if self.store is not None else len(self.files or ())


def select_images(given: PredictionInput, model: TrainedModel, keys: Sequence[str], count: int, part: Part | None) -> SelectedImages:
    """The images with these keys, in their order; without keys, `count` images (0: all) of the part, drawn by their keys.

    part: of the split of the model's task, whose store this must be.  Raises InputError for an unknown key, and for a part of files."""
    if given.store is None and given.files is None:
        raise InputError("whole slides were given, and a map is of an image; make tiles (`encoders ingest wsi`), and explain their store")
    names = given.store.column("key").astype(str).tolist() if given.store is not None else list(given.files.names if given.files else ())
    position = {name: i for i, name in enumerate(names)}
    if unknown := [key for key in keys if key not in position]:
        raise unknown_name_error("image", unknown[0], names)
    pool = np.arange(len(names)) if part is None else find_part_rows(given, model, part)
    if keys:
        chosen = np.array([position[key] for key in dict.fromkeys(keys)], dtype=np.int64)
        in_part = set(pool.tolist())
        if outside := [key for key in keys if position[key] not in in_part]:
            raise InputError(f"{outside[0]} is not in the part {part} of task {model.head.task}; leave --part out")
    else:
        by_key = pool[np.argsort(np.array(names)[pool], kind="stable")]
        chosen = by_key[permutation(0, Purpose.EXPLAIN, 0, len(by_key))[: count or None]]
        chosen = np.sort(chosen)
    if given.store is not None:
        return SelectedImages(given.store, chosen)
    assert given.files is not None, "there are files where there is no store"
    return SelectedImages(files=replace(given.files, names=[names[i] for i in chosen.tolist()]))


def find_part_rows(given: PredictionInput, model: TrainedModel, part: Part) -> IntArray:
    """The rows of a part of the model's task. Raises InputError for an unknown part and for other images than those of the task."""
    if part not in PARTS:
        raise unknown_name_error("part", part, PARTS)
    if given.store is None:
        raise InputError(f"--part {part} is of the store of task {model.head.task}, and files were given; name the store, or leave it out")
    loaded = load_task(read_task(model.head.task))
    if loaded.store.fingerprint != given.store.fingerprint:
        raise InputError(f"--part {part} is of task {model.head.task}, and this is not its store; name that one, or leave --part out")
    return np.asarray(loaded.split.rows(part), dtype=np.int64)


def iterate_images(model: TrainedModel, images: SelectedImages, workers: int = 0) -> Iterator[ImageBatch]:
    """Yields the images in their order. An image that cannot be read is a problem with its reason.  workers: processes that read stores."""
    if images.store is None:
        yield from _iterate_files(model, images.files)
        return
    store = images.store
    key, patient, sha256 = (store.column(name).astype(str) for name in ("key", "patient", "sha256"))
    parts = [images.rows[i : i + EXPLAIN_BATCH] for i in range(0, len(images.rows), EXPLAIN_BATCH)]
    for rows, x in zip(parts, iterate_inputs(model.encoder, store, parts, workers), strict=True):
        seen = count_trained_on(model, sha256[rows].tolist())
        yield ImageBatch(key[rows].tolist(), patient[rows].tolist(), require_tensor(x), list(range(len(rows))), rows, {}, seen)


def _iterate_files(model: TrainedModel, found: FoundImages | None) -> Iterator[ImageBatch]:
    assert found is not None, "there are files where there is no store"
    batches = FileBatches(FileReader(found, choose_form(model.head, model.name)), model.encoder, EXPLAIN_BATCH)
    for i in range(len(batches)):
        batch = batches[i]
        x = None if batch.inputs is None else require_tensor(batch.inputs).to(model.encoder.device)
        read = [position for position in range(len(batch.keys)) if position not in batch.problems]
        seen = count_trained_on(model, [digest for digest in batch.sha256 if digest])
        yield ImageBatch(batch.keys, [""] * len(batch.keys), x, read, None, batch.problems, seen)
