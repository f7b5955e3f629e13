"""One cell of a bench: an encoder, a task, a protocol, one split. Fit, freeze, open the seal, score, record.

Shapes: N images of the store, D width, C columns of the target.
"""

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from encoders.runtime.config import Config, digest
from encoders.runtime.errors import InputError
from transfer.data import Loaded
from transfer.firewall import Seal
from transfer.record import Identity, Meta, Record, plain, versions
from transfer.split import Split


@dataclass(frozen=True)
class Cell:
    """What is to be done. part: rows of the store in each part; fraction and draw are already applied to it."""

    identity: Identity
    role: str
    arch: str
    size: int
    loaded: Loaded
    split: Split
    protocol: ModuleType
    cfg: Config
    leakage: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    device: str = "cpu"


def protocol_hash(name: str, version: int, cfg: Config) -> str:
    """16 hex digits of a protocol, the version of its code and its settings; the seed stands in the identity by itself."""
    settings = {k: v for k, v in cfg.model_dump(mode="json").items() if k != "seed"}
    return digest({"protocol": name, "version": version, "config": settings})


def run(cell: Cell, encoder: Any, features: Callable[[], np.ndarray], select: Callable[..., float], log: Any = None) -> Record:
    """The record of the cell; one that failed says why. `features` gives (N, D), rows of the store, and is called only if needed."""
    begun = time.monotonic()
    try:
        arrays, more = _scored(cell, encoder, features, select, log)
        return Record(_meta(cell, begun, status="ok", **more), arrays)
    except Exception as wrong:  # noqa: BLE001  one item of a batch job: the others go on
        told = str(wrong) if isinstance(wrong, InputError) else f"{type(wrong).__name__}: {wrong}"
        return Record(_meta(cell, begun, status="failed", error=told, traceback=traceback.format_exc()), {})


def _scored(cell: Cell, encoder: Any, features: Callable[[], np.ndarray], select: Callable[..., float], log: Any) -> tuple[dict, dict]:
    images = cell.protocol.NEEDS == "images"
    of = _image_set if images else _features
    clock = [time.monotonic()]
    x = None if images else features()
    clock.append(time.monotonic())
    train, val, test = (of(cell, x, part) for part in ("train", "val", "test"))
    seal = Seal(test, cell.identity.model_dump())
    fitted = cell.protocol.fit(cell.cfg, encoder, train, val, select, log) if images else cell.protocol.fit(cell.cfg, train, val, select)
    seal.freeze(fitted)
    clock.append(time.monotonic())
    arrays: dict[str, np.ndarray] = {}
    for name, rows in (("val", val), ("test", seal.open(fitted))):
        scores = np.asarray(fitted.scores(rows if images else rows.x), dtype=np.float64)  # (M, C)
        if scores.shape != rows.y.shape or not np.isfinite(scores).all():
            raise RuntimeError(f"{cell.identity.protocol} gave {name} scores of shape {scores.shape}, expected finite {rows.y.shape}")
        arrays |= {f"{name}_key": rows.key, f"{name}_patient": rows.patient, f"{name}_y": rows.y, f"{name}_scores": scores}
    clock.append(time.monotonic())
    spent = {name: round(b - a, 3) for name, a, b in zip(("embed", "fit", "score"), clock, clock[1:], strict=False)}
    return arrays, {"selection": plain(fitted.selection), "seconds": spent}


def _features(cell: Cell, x: np.ndarray | None, part: str) -> Any:
    from transfer.protocols.common import Features

    rows, data = cell.split.rows(part), cell.loaded
    assert x is not None
    return Features(x[rows], data.y[rows], data.key[rows], data.patient[rows], data.task.kind)


def _image_set(cell: Cell, x: np.ndarray | None, part: str) -> Any:
    from transfer.protocols.common import ImageSet

    rows, data = cell.split.rows(part), cell.loaded
    return ImageSet(data.store, rows, data.y[rows], data.key[rows], data.patient[rows], data.task.kind)


def _meta(cell: Cell, begun: float, seconds: dict[str, float] | None = None, **more: Any) -> Meta:
    return Meta(
        identity=cell.identity,
        kind=cell.loaded.task.kind,
        classes=cell.loaded.task.classes,
        role=cell.role,
        arch=cell.arch,
        size=cell.size,
        counts=cell.loaded.counts(cell.split),
        protocol_config=plain(cell.cfg.model_dump(mode="json")),
        leakage=list(cell.leakage),
        warnings=list(cell.warnings),
        seconds={**(seconds or {}), "total": round(time.monotonic() - begun, 3)},
        versions=versions(),
        device=cell.device,
        **more,
    )
