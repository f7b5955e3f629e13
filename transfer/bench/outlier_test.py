"""Whether an encoder notices other images: distances of validation images, and of another store's images, from a task's train images.

The validation part is used unless the test part is asked for. Labels of the train images choose the class means; no label of the other
images is read, nothing is chosen, and no score of the task is computed, so that the seal of the test part stays and the ledger has no line.

Shapes: N train images, M images of the task's part, then of the other store.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from encoders.features.embed import extract_features
from encoders.loading.worker_count import choose_worker_count
from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, permutation
from encoders.store.store import Store
from encoders.store.verified import require_intact
from encoders.zoo import zoo
from encoders.zoo.encoder import Encoder
from encoders.zoo.names import PIXELS
from transfer.metrics.outliers import OutlierScore, fit_train_features, group_by_class, score_outliers
from transfer.protocols.common import find_labeled_rows
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task

OUTLIER_SCORES: tuple[OutlierScore, ...] = get_args(OutlierScore)


@dataclass(frozen=True)
class OutlierRequest:
    """encoders: names; the floor is added.  against: paths of the other store.  limit: of the images of each side; None: all."""

    encoders: Sequence[str]
    task: str
    against: Sequence[str]
    part: Literal["val", "test"] = "val"
    limit: int | None = None
    device: str = "cpu"
    batch: int = 64
    workers: int | None = None


@dataclass(frozen=True)
class ScoredSides:
    """distance: (M,) of one encoder and kind."""

    encoder: str
    kind: OutlierScore
    distance: FloatArray


@dataclass(frozen=True)
class OutlierTest:
    """outside: (M,) 1 for the images of the other store.  patient: (M,), with their data set.  warnings: of what else differs."""

    task: str
    against: str
    part: str
    outside: FloatArray
    patient: Array
    scored: list[ScoredSides]
    warnings: list[str]


def run_outlier_test(request: OutlierRequest, log: Callable[[str], None] = lambda text: None) -> OutlierTest:
    """The distances of all images by each encoder and the floor. Raises InputError for an empty part, and for a store of its own images."""
    loaded, other = load_task(read_task(request.task)), Store.open(list(request.against))
    require_intact(loaded.store, np.concatenate([loaded.split.rows(part) for part in ("train", request.part)]).tolist())
    inside, outside = pick_rows(loaded.split.rows(request.part), request.limit), pick_rows(np.arange(len(other)), request.limit)
    if not len(inside):
        raise InputError(f"task {request.task} has no {request.part} images; use --part {'test' if request.part == 'val' else 'val'}")
    copies = set(other.column("sha256")[outside].tolist()) & set(
        loaded.sha256[np.concatenate([inside, loaded.split.rows("train")])].tolist()
    )
    if copies:
        raise InputError(
            f"{len(copies)} images of {other.paths[0].name} are images of task {request.task}; --against takes a store of other images"
        )
    train = loaded.split.rows("train")
    train = train[find_labeled_rows(loaded.y[train], loaded.task.kind)]
    scored = []
    for name in dict.fromkeys([*request.encoders, PIXELS]):
        log(f"{name}: features of {len(train):,} train, {len(inside):,} {request.part} and {len(outside):,} other images")
        encoder = zoo.load_encoder(name, request.device)
        fitted = fit_train_features(_embed(encoder, loaded.store, train, request), group_by_class(loaded.y[train], loaded.task.kind))
        sides = [_embed(encoder, store, rows, request) for store, rows in ((loaded.store, inside), (other, outside))]
        x = np.concatenate(sides)
        scored += [ScoredSides(name, kind, score_outliers(x, fitted, kind)) for kind in OUTLIER_SCORES]
    label = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    people = np.concatenate([_name_people(loaded.store, loaded.patient, inside), _name_people(other, other.column("patient"), outside)])
    warnings = list_store_differences(loaded.store, other)
    return OutlierTest(request.task, other.paths[0].stem, request.part, label, people, scored, warnings)


def pick_rows(rows: IntArray, limit: int | None) -> IntArray:
    """At most `limit` rows, drawn at random by a fixed seed."""
    return rows if limit is None or len(rows) <= limit else np.sort(rows[permutation(0, Purpose.SPLIT, 0, len(rows))[:limit]])


def _embed(encoder: Encoder, store: Store, rows: IntArray, request: OutlierRequest) -> Array:
    workers = choose_worker_count(request.workers, encoder.device, store)
    return extract_features(encoder, store, index=rows, batch=request.batch, workers=workers)


def _name_people(store: Store, patient: Array, rows: IntArray) -> Array:
    """(M,) patients with their data set: equal ids of two data sets are two patients."""
    return np.char.add(np.char.add(store.datasets[rows].astype(str), " "), patient[rows].astype(str))


def list_store_differences(task: Store, other: Store) -> list[str]:
    """What of the form of two stores differs, by which their images can be told apart without looking at them."""
    forms = [_describe_form(store) for store in (task, other)]
    different = [f"{name} {forms[0][name]} and {forms[1][name]}" for name in forms[0] if forms[0][name] != forms[1][name]]
    if not different:
        return []
    return [f"the stores differ in {', '.join(different)}: images can be told apart by that alone, whatever they show"]


def _describe_form(store: Store) -> dict[str, str]:
    attrs: Mapping[str, Any] = store.attrs
    geometry, recipe, unit = (attrs.get(name) or {} for name in ("geometry", "recipe", "unit"))
    size = geometry.get("size") or "of the files"
    return {
        "modality": store.modality,
        "ingest command": str(recipe.get("command", "unknown")),
        "channels": str(store.channels),
        "type": str(store.dtype),
        "codec": str(attrs.get("codec")),
        "size": "x".join(map(str, size)) if isinstance(size, list) else str(size),
        "resize": str(geometry.get("resize")),
        "stain": str(geometry.get("normalise")),
        "unit": str(unit.get("meaning") if isinstance(unit, Mapping) else unit),
    }
