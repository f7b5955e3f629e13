"""Cells of a bench: an encoder, a task, a protocol, one split. Fit, freeze, open the seal, score, record.

Cells that differ only in what lies over the test images (an acquisition shift) share one fit; each has a seal and a record of its own.

A protocol on bags scores slides: then a row of the record is a slide.

Shapes: N images of the store, D width, C columns of the target.
"""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from encoders.runtime.config import Config, json_digest
from encoders.runtime.errors import InputError
from transfer.bench.slide_bags import gather_slides, reduce_to_slides
from transfer.records.record import GROUP_PREFIX, Identity, Meta, Record, library_versions, to_plain_json
from transfer.records.test_seal import Seal, SealedError
from transfer.tasks.load import LoadedTask
from transfer.tasks.split import Split


@dataclass(frozen=True)
class Cell:
    """What is to be done. part: rows of the store in each part; fraction and draw are already applied to it."""

    identity: Identity
    role: str
    arch: str
    size: int
    loaded: LoadedTask
    split: Split
    protocol: ModuleType
    cfg: Config
    leakage: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device: str = "cpu"
    recipe: str = ""
    pretraining_seed: int | None = None


def hash_protocol(name: str, version: int, cfg: Config) -> str:
    """16 hex digits of a protocol, the version of its code and its settings; the seed stands in the identity by itself."""
    settings = {k: v for k, v in cfg.model_dump(mode="json").items() if k != "seed"}
    return json_digest({"protocol": name, "version": version, "config": settings})


def run_cells(cells: Sequence[Cell], encoder: Any, features: Any, select: Callable[..., float], log: Any = None) -> Iterator[Record]:
    """The record of every cell; one that failed says why. All cells share one fit.

    features: called only if needed, for (N, D), rows of the store; `features.under(shift, strength, rows)` for those of shifted images."""
    begun = time.monotonic()
    try:
        fit = CellFit(cells[0], encoder, features, select, log)
    except Exception as wrong:  # noqa: BLE001  one item of a batch job: the others go on
        yield from (_build_failed_record(cell, begun, wrong) for cell in cells)
        return
    for cell in cells:
        try:
            arrays, more = fit.scored(cell)
            yield Record(_build_meta(cell, begun, status="ok", **more), arrays)
        except Exception as wrong:  # noqa: BLE001  one item of a batch job: the others go on
            yield _build_failed_record(cell, begun, wrong)
        begun = time.monotonic()


def _build_failed_record(cell: Cell, begun: float, wrong: Exception) -> Record:
    told = str(wrong) if isinstance(wrong, InputError) else f"{type(wrong).__name__}: {wrong}"
    traced = "".join(traceback.format_exception(wrong))
    return Record(_build_meta(cell, begun, status="failed", error=told, traceback=traced), {})


class CellFit:
    """What is chosen on train and validation rows, frozen before any test rows are handed out."""

    def __init__(self, cell: Cell, encoder: Any, features: Any, select: Callable[..., float], log: Any):
        self.features, self.needs, self.select = features, cell.protocol.NEEDS, select
        clock = [time.monotonic()]
        self.x = None if self.needs == "images" else features()
        clock.append(time.monotonic())
        train, self.val = (self.rows(cell, part) for part in ("train", "val"))
        if self.needs == "images":
            self.fitted = cell.protocol.fit(cell.cfg, encoder, train, self.val, select, log)
        else:
            self.fitted = cell.protocol.fit(cell.cfg, train, self.val, select)
        self.chosen = json_digest(to_plain_json(self.fitted.selection))
        clock.append(time.monotonic())
        self.seconds = {name: round(b - a, 3) for name, a, b in zip(("embed", "fit"), clock, clock[1:], strict=False)}
        # Thresholds and temperature are chosen on these: a model that was refitted on the validation rows must not score them.
        self.val_scores = self.checked(cell, "val", self.val, getattr(self.fitted, "held_out", None))

    def rows(self, cell: Cell, part: str) -> Any:
        """The rows of a part as the protocol wants them; of the test part as the cell's shift makes them."""
        shift = cell.identity.shift if part == "test" else None
        if self.needs == "images":
            return _build_image_set(cell, part, shift)
        return (_build_bags if self.needs == "bags" else _build_features)(cell, self.x, part, shift, self.features)

    def checked(self, cell: Cell, name: str, rows: Any, given: np.ndarray | None = None) -> np.ndarray:
        """(M, C) finite scores, the given ones or the fitted model's. Raises RuntimeError when a protocol gave others."""
        made = self.fitted.scores(rows.x if self.needs == "pooled" else rows) if given is None else given
        scores = np.asarray(made, dtype=np.float64)
        if scores.shape != rows.y.shape or not np.isfinite(scores).all():
            raise RuntimeError(f"{cell.identity.protocol} gave {name} scores of shape {scores.shape}, expected finite {rows.y.shape}")
        return scores

    def scored(self, cell: Cell) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays of the cell's record, and what its JSON says of the fit. Opens a seal of the cell's own."""
        begun = time.monotonic()
        seal = Seal(self.rows(cell, "test"), cell.identity.model_dump())
        if seal.freeze(self.fitted) != self.chosen:
            raise SealedError("sealed: the selection has changed since it was made; a test part that was scored may have changed it")
        test = seal.open(self.fitted)
        arrays: dict[str, np.ndarray] = {}
        for name, rows, scores in (("val", self.val, self.val_scores), ("test", test, self.checked(cell, "test", test))):
            arrays |= {f"{name}_key": rows.key, f"{name}_patient": rows.patient, f"{name}_y": rows.y, f"{name}_scores": scores}
        arrays |= gather_test_groups(cell)
        spent = {**self.seconds, "score": round(time.monotonic() - begun, 3)}
        # A protocol of episodes keeps their spread at every number of shots; it chose nothing by it.
        spread = getattr(self.fitted, "spread", None) if cell.identity.shift is None else None
        episodes = to_plain_json(spread(test.x, test.y, self.select)) if spread else {}
        return arrays, {"selection": to_plain_json(self.fitted.selection), "episodes": episodes, "seconds": spent}


def has_same_patients(cell: Cell, known: Record) -> bool:
    """Whether a record's validation and test images, or slides, are still of the patients that the store names now.

    Pixels, labels and split can stay when patients are named anew (an official split, ingested again with the column of patients), and
    every interval is by patient."""
    for part in ("val", "test") if known.meta.status == "ok" else ():
        if cell.protocol.NEEDS == "bags":
            of = gather_slides(cell.loaded, cell.split.rows(part))
            now = dict(zip(of.key.astype(str).tolist(), of.patient.astype(str).tolist(), strict=True))
        else:
            rows = cell.split.rows(part)
            now = dict(zip(cell.loaded.key[rows].astype(str).tolist(), cell.loaded.patient[rows].astype(str).tolist(), strict=True))
        key, patient = (known.arrays[f"{part}_{name}"].astype(str).tolist() for name in ("key", "patient"))
        if any(now.get(k, p) != p for k, p in zip(key, patient, strict=True)):
            return False
    return True


def gather_test_groups(cell: Cell) -> dict[str, np.ndarray]:
    """Who the test images, or slides, are of, as a record keeps it."""
    rows = cell.split.rows("test")
    if cell.protocol.NEEDS != "bags":
        return {GROUP_PREFIX + name: values[rows] for name, values in cell.loaded.groups.items()}
    of = gather_slides(cell.loaded, rows)
    found = {GROUP_PREFIX + name: reduce_to_slides(values[of.rows], of.ends) for name, values in cell.loaded.groups.items()}
    return {name: values for name, values in found.items() if values is not None}


def _build_features(cell: Cell, x: np.ndarray | None, part: str, shift: str | None, features: Any) -> Any:
    from transfer.protocols.common import Features

    rows, data = cell.split.rows(part), cell.loaded
    return Features(_gather_features(cell, x, rows, shift, features), data.y[rows], data.key[rows], data.patient[rows], data.task.kind)


def _build_bags(cell: Cell, x: np.ndarray | None, part: str, shift: str | None, features: Any) -> Any:
    from transfer.protocols.common import Bags

    of = gather_slides(cell.loaded, cell.split.rows(part))
    return Bags(_gather_features(cell, x, of.rows, shift, features), of.ends, of.y, of.key, of.patient, cell.loaded.task.kind)


def _gather_features(cell: Cell, x: np.ndarray | None, rows: np.ndarray, shift: str | None, features: Any) -> np.ndarray:
    assert x is not None
    return np.asarray(x[rows] if shift is None else features.under(shift, cell.identity.strength, rows))


def _build_image_set(cell: Cell, part: str, shift: str | None) -> Any:
    from transfer.protocols.common import ImageSet

    rows, data, store = cell.split.rows(part), cell.loaded, cell.loaded.store
    if shift is not None:
        from transfer.bench.shifts import ShiftedStore

        store = ShiftedStore(store, shift, cell.identity.strength)
    return ImageSet(store, rows, data.y[rows], data.key[rows], data.patient[rows], data.task.kind)


def _build_meta(cell: Cell, begun: float, seconds: dict[str, float] | None = None, **more: Any) -> Meta:
    return Meta(
        identity=cell.identity,
        kind=cell.loaded.task.kind,
        classes=cell.loaded.task.classes,
        role=cell.role,
        arch=cell.arch,
        recipe=cell.recipe,
        pretraining_seed=cell.pretraining_seed,
        size=cell.size,
        counts=cell.loaded.counts(cell.split),
        protocol_config=to_plain_json(cell.cfg.model_dump(mode="json")),
        leakage=list(cell.leakage),
        warnings=list(cell.warnings),
        seconds={**(seconds or {}), "total": round(time.monotonic() - begun, 3)},
        versions=library_versions(),
        device=cell.device,
        **more,
    )
