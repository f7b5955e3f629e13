"""Cells of a bench: one encoder, task, protocol and split. Fit, freeze the selection, open the test seal, score, record.

Cells that differ only in the acquisition shift of the test images share one fit; each has its own seal and record. With a protocol on bags,
which scores slides, a row of the record is a slide.

Shapes: N images of the store, D width, M test rows, C columns of the target.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import Config, json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.job_columns import describe_computing_place
from encoders.runtime.json_types import Json
from encoders.runtime.local_notes import LOCAL_ERRORS, append_private, describe_frames
from encoders.runtime.redact import could_be_count, redact_names, redact_text
from encoders.runtime.storage_errors import StorageError
from transfer.bench.episodes import measure_episodes
from transfer.bench.feature_source import FeatureSource
from transfer.bench.slide_bags import SlideBags, gather_slides, reduce_to_slides
from transfer.protocols.contract import AnyProtocol, FittedProtocol, Log, Needs, ResumableProtocol, Rows, Select
from transfer.protocols.fit_place import FitPlace
from transfer.records.episodes import Episodes, episode_arrays
from transfer.records.record import GROUP_PREFIX, Identity, Meta, Record, library_versions, record_path, to_plain_json
from transfer.records.record_ids import hide_record_ids
from transfer.records.scored_images import ScoredImages, identify_images
from transfer.records.test_seal import Seal, SealedError
from transfer.tasks.load import LoadedTask
from transfer.tasks.options import Part
from transfer.tasks.split import Split

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder
    from transfer.protocols.common import Bags, Features, ImageSet


@dataclass(frozen=True)
class Cell:
    """The work for one record. split: rows of the store in each part, after fraction and draw."""

    identity: Identity
    role: str
    arch: str
    size: int
    loaded: LoadedTask
    split: Split
    protocol: AnyProtocol
    cfg: Config
    leakage: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device: str = "cpu"
    recipe: str = ""
    pretraining_seed: int | None = None

    def slides(self, part: Part) -> SlideBags | None:
        """The slides of a part when the protocol scores slides; None when it scores images."""
        return gather_slides(self.loaded, self.split.rows(part)) if self.protocol.NEEDS == "bags" else None

    def tested_images(self) -> ScoredImages:
        """The images that scoring the cell uses: the whole test part, which with slides is all of their tiles."""
        rows = self.split.rows("test")
        return identify_images(self.loaded.task.name, self.loaded.key[rows], self.loaded.sha256[rows])


def hash_protocol(name: str, version: int, cfg: Config) -> str:
    """16 hex digits of a protocol, the version of its code and its settings, without the seed, which is a field of the identity."""
    return json_digest({"protocol": name, "version": version, "config": cfg.model_dump(mode="json", exclude={"seed"})})


def run_cells(
    cells: Sequence[Cell],
    encoder: "Encoder",
    features: FeatureSource,
    select: Select,
    log: Log | None = None,
    place: FitPlace | None = None,
) -> Iterator[Record]:
    """Yields the record of every cell; a failed one holds the error. All cells share one fit. `features` is called only if needed.

    place: where a protocol that can go on after an interruption keeps its state; None: nowhere."""
    started = time.monotonic()
    try:
        fit = CellFit(cells[0], encoder, features, select, log, place)
    except StorageError:  # such as a full disk: the others would fail as well
        raise
    except Exception as error:  # noqa: BLE001  one item of a batch job: the others continue
        yield from (_build_failed_record(cell, started, error) for cell in cells)
        return
    for cell in cells:
        try:
            yield fit.score(cell, started)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001  one item of a batch job: the others continue
            yield _build_failed_record(cell, started, error)
        started = time.monotonic()


def _build_failed_record(cell: Cell, started: float, error: Exception) -> Record:
    message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
    failed = {
        "status": "failed",
        "error": hide_task_names(cell.loaded, message),
        "traceback": hide_task_names(cell.loaded, describe_frames(error)),
    }
    whole = "".join(traceback.format_exception(error))
    append_private(record_path(cell.identity).parent / LOCAL_ERRORS, f"{cell.identity.encoder}, {cell.identity.protocol}\n{whole}\n")
    return Record(_build_meta(cell, started).model_copy(update=failed), {}, local_error=message)


def hide_task_names(loaded: LoadedTask, text: str) -> str:
    """A text without the images and patients of a task, without paths, hosts and users."""
    names = {str(name) for column in (loaded.key, loaded.patient) for name in column.tolist()} - {""}
    return redact_text(redact_names(text, {name for name in names if not could_be_count(name)}))


class CellFit:
    """A protocol fitted and selected on train and validation rows; its selection is frozen before test rows are handed out."""

    def __init__(
        self, cell: Cell, encoder: "Encoder", features: FeatureSource, select: Select, log: Log | None, place: FitPlace | None = None
    ):
        self.encoder, self.features = encoder, features
        self.build_rows = ROW_BUILDERS[cell.protocol.NEEDS]
        clock = [time.monotonic()]
        self.pooled = None if cell.protocol.NEEDS == "images" else features()
        clock.append(time.monotonic())
        train, self.val = self.build_rows(self, cell, "train", None), self.build_rows(self, cell, "val", None)
        protocol = cell.protocol
        if place is not None and isinstance(protocol, ResumableProtocol):
            self.fitted = protocol.fit_resumable(place, cell.cfg, train, self.val, select, log)
        else:
            self.fitted = protocol.fit(cell.cfg, train, self.val, select, log)
        self.selection_digest = json_digest(to_plain_json(self.fitted.selection))
        clock.append(time.monotonic())
        self.seconds = {name: round(b - a, 3) for name, a, b in zip(("embed", "fit"), clock, clock[1:], strict=False)}
        # Thresholds and temperature are chosen on these: a model that was refitted on the validation rows must not score them.
        refitted = self.fitted.val_scores
        self.val_scores = self._check_scores(cell, "val", self.val, self.fitted.scores(self.val) if refitted is None else refitted)

    def score(self, cell: Cell, started: float) -> Record:
        """The record of the cell. Opens a seal of its own.

        Raises SealedError when the selection has changed since the fit, RuntimeError for wrong scores of the protocol."""
        scoring = time.monotonic()
        images = cell.tested_images()
        seal = Seal(self.build_rows(self, cell, "test", cell.identity.shift), images, cell.identity.model_dump())
        if seal.freeze(self.fitted) != self.selection_digest:
            raise SealedError("sealed: the selection has changed since it was made; scoring a test part may have changed it")
        test = seal.open(self.fitted)
        test_scores = self._check_scores(cell, "test", test, self.fitted.scores(test))
        arrays: dict[str, Array] = {}
        for part, rows, scores in (("val", self.val, self.val_scores), ("test", test, test_scores)):
            arrays |= {f"{part}_key": rows.key, f"{part}_patient": rows.patient, f"{part}_y": rows.y, f"{part}_scores": scores}
        arrays |= gather_test_groups(cell) | gather_studies(cell)
        clock = [scoring, time.monotonic()]
        # Few-shot episodes are reported for every number of shots; nothing is chosen by them.
        episodes = measure_episodes(self.fitted, test) if cell.identity.shift is None else {}
        arrays |= episode_arrays(episodes)
        clock.append(time.monotonic())
        seconds = {**self.seconds, "score": round(clock[1] - clock[0], 3), "episodes": round(clock[2] - clock[1], 3)}
        meta = _build_meta(cell, started, seconds, self.fitted, episodes)
        return hide_record_ids(Record(meta.model_copy(update={"test_set": images.digest}), arrays))

    def _check_scores(self, cell: Cell, part: str, rows: Rows, scores: Array) -> FloatArray:
        """(M, C) finite scores as float64. Raises RuntimeError for another shape, NaN or inf."""
        checked = np.asarray(scores, dtype=np.float64)
        if checked.shape != rows.y.shape or not np.isfinite(checked).all():
            raise RuntimeError(
                f"{cell.identity.protocol} returned {part} scores of shape {checked.shape}, expected finite scores of shape {rows.y.shape}"
            )
        return checked


def gather_test_groups(cell: Cell) -> dict[str, Array]:
    """The group columns of the test images (or slides), as a record stores them; a column that varies within a slide is left out."""
    slides = cell.slides("test")
    if slides is None:
        rows = cell.split.rows("test")
        return {GROUP_PREFIX + name: values[rows] for name, values in cell.loaded.groups.items()}
    columns = {GROUP_PREFIX + name: reduce_to_slides(values[slides.rows], slides.ends) for name, values in cell.loaded.groups.items()}
    return {name: values for name, values in columns.items() if values is not None}


def _rows_of_part(cell: Cell, part: Part) -> Array:
    """Rows of the store in a part. Those of the train part are in the order of their images, so that no draw, order of batches or tie
    depends on the order of the store; the others are in the order of a record's columns."""
    from transfer.protocols.common import order_by_image

    rows = cell.split.rows(part)
    return rows[order_by_image(cell.loaded.key[rows], cell.loaded.sha256[rows])] if part == "train" else rows


def gather_studies(cell: Cell) -> dict[str, Array]:
    """The studies of the validation and test images (or slides), as a record stores them; {} for a store without a column `study`.

    A slide whose tiles are of several studies has none."""
    store = cell.loaded.store
    if not store.has_column("study"):
        return {}
    study, arrays = np.asarray(store.column("study")).astype(str), {}
    parts: tuple[Part, ...] = ("val", "test")
    for part in parts:
        slides = cell.slides(part)
        if slides is None:
            arrays[f"{part}_study"] = study[cell.split.rows(part)]
        else:
            tiles = np.split(study[slides.rows], slides.ends[1:-1])
            arrays[f"{part}_study"] = np.array([names[0] if len(set(names.tolist())) == 1 else "" for names in tiles])
    return arrays


def _build_features(fit: CellFit, cell: Cell, part: Part, shift: str | None) -> "Features":
    from transfer.protocols.common import Features

    rows, data = _rows_of_part(cell, part), cell.loaded
    x = _gather_features(fit, cell, rows, shift)
    return Features(x, data.y[rows], data.key[rows], data.patient[rows], data.task.kind, data.sha256[rows])


def _build_bags(fit: CellFit, cell: Cell, part: Part, shift: str | None) -> "Bags":
    from transfer.protocols.common import Bags

    slides = gather_slides(cell.loaded, cell.split.rows(part))
    x = _gather_features(fit, cell, slides.rows, shift)
    return Bags(x, slides.ends, slides.y, slides.key, slides.patient, cell.loaded.task.kind)


def _gather_features(fit: CellFit, cell: Cell, rows: Array, shift: str | None) -> Array:
    assert fit.pooled is not None
    return np.asarray(fit.pooled[rows] if shift is None else fit.features.shifted(shift, cell.identity.strength, rows))


def _build_image_set(fit: CellFit, cell: Cell, part: Part, shift: str | None) -> "ImageSet":
    from transfer.protocols.common import ImageSet

    rows, data, store = _rows_of_part(cell, part), cell.loaded, cell.loaded.store
    if shift is not None:
        from transfer.bench.shifted_store import ShiftedStore

        store = ShiftedStore(store, shift, cell.identity.strength)
    return ImageSet(store, fit.encoder, rows, data.y[rows], data.key[rows], data.patient[rows], data.task.kind, data.sha256[rows])


# How the rows of a part are built for what a protocol needs: (fit, cell, part, shift of the images or None) -> rows.
ROW_BUILDERS: dict[Needs, Callable[[CellFit, Cell, Part, str | None], Rows]] = {
    "pooled": _build_features,
    "bags": _build_bags,
    "images": _build_image_set,
}


def _to_plain_mapping(value: Mapping[str, object]) -> dict[str, Json]:
    return {name: to_plain_json(item) for name, item in value.items()}


def _build_meta(
    cell: Cell,
    started: float,
    seconds: dict[str, float] | None = None,
    fitted: FittedProtocol[Any] | None = None,
    episodes: Mapping[int, Episodes] | None = None,
) -> Meta:
    return Meta(
        identity=cell.identity,
        kind=cell.loaded.task.kind,
        classes=cell.loaded.task.classes,
        order=cell.loaded.task.order,
        role=cell.role,
        arch=cell.arch,
        recipe=cell.recipe,
        pretraining_seed=cell.pretraining_seed,
        size=cell.size,
        counts=cell.loaded.counts(cell.split),
        selection=_to_plain_mapping(fitted.selection) if fitted is not None else {},
        cost=_to_plain_mapping(fitted.cost) if fitted is not None else {},
        episodes={str(shots): {"mean": e.mean, "sd": e.std} for shots, e in (episodes or {}).items()},
        episode_supports={str(shots): e.supports for shots, e in (episodes or {}).items()},
        protocol_config=_to_plain_mapping(cell.cfg.model_dump(mode="json")),
        leakage=list(cell.leakage),
        warnings=list(cell.warnings),
        seconds={**(seconds or {}), "total": round(time.monotonic() - started, 3)},
        versions=library_versions(),
        device=cell.device,
        computed_on=describe_computing_place(cell.device),
    )
