"""One benched cell on disk: a JSON file with what, how and when, and a .npz beside it with every validation and test score.

All metrics are computed from these, so a table can be checked and remade. A digest over the content makes an edited record visible.

Shapes: V validation images, M test images, C columns of the target.
"""

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
from pydantic import Field

from encoders.runtime.config import Config, json_digest, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, read_json, write_json
from encoders.runtime.paths import records_dir
from transfer.tasks.task import TaskKind

RECORD_FORMAT, VERSION = "isograft-record", 1
UNSAFE_CHARACTERS = r"[^A-Za-z0-9.@-]+"  # what a file name does not keep of an encoder's
ARRAY_NAMES = tuple(f"{part}_{what}" for part in ("val", "test") for what in ("key", "patient", "y", "scores"))
GROUP_PREFIX = "test_group_"  # and the name of a column: who a test image is of (sex, age, view, site), where the store says it


class ExternalSource(Config):
    """External validation: the task whose train and validation parts made the choice; the record's own task is the one tested."""

    task: str
    store: str = Field(description="fingerprint of its pixels")
    labels: str = Field(description="hash of its target")
    split: str = Field(description="hash of its split; `split` beside is that of the tested part, so looks at it are counted together")
    label_map: dict[str, list[str]] = Field(description="class of this task -> classes of the tested task, explicit")


class Identity(Config):
    """What makes a record the answer to one question: two records with equal identities would hold equal scores."""

    task: str
    store: str = Field(description="fingerprint of the pixels")
    labels: str = Field(description="hash of the target of every image")
    split: str = Field(description="hash of who is in which part")
    partition: str = Field(description="hash of all folds together; without folds that of the split")
    encoder: str
    encoder_sha256: str
    card: str = Field(description="digest of the card")
    protocol: str
    protocol_hash: str
    fold: int = 0
    folds: int = 1
    fraction: float = 1.0
    patients: int | None = Field(None, description="label fraction asked for as a number of train patients; `fraction` is what it makes")
    draw: int = 0
    seed: int = 0
    selected_on: ExternalSource | None = Field(None, description="external validation: where everything was chosen")
    shift: str | None = Field(None, description="acquisition shift laid over the test images (gamma, noise, ...); None: as they are")
    strength: int = Field(0, description="of the shift, 1 (slight) to 5; 0: the images as they are")
    amount: float | None = Field(None, description="what that strength is in the shift's own unit, e.g. the exponent of gamma")
    shift_version: int | None = Field(None, description="of the code that shifts, so that old and new scores are never one curve")

    @property
    def id(self) -> str:
        return json_digest(self)


class Meta(Config):
    """The JSON of a record."""

    format: str = RECORD_FORMAT
    version: int = VERSION
    identity: Identity
    status: Literal["ok", "failed"] = "ok"
    kind: TaskKind
    classes: list[str]
    role: str = Field("encoder", description="encoder, imagenet or random")
    arch: str = ""
    recipe: str = Field("", description="digest of the encoder's pretraining without its seed: equal ones differ in the seed only")
    pretraining_seed: int | None = Field(None, description="seed of the encoder's pretraining, where its card says it")
    size: int = Field(0, description="input size of the encoder, pixels")
    counts: dict[str, dict[str, int]] = Field({}, description="images and patients of each part")
    selection: dict[str, Any] = Field({})
    episodes: dict[str, dict[str, float]] = Field({}, description="few-shot: shots -> mean, sd over episodes of the AUROC on test rows")
    protocol_config: dict[str, Any] = Field({})
    leakage: list[str] = Field([], description="what --allow-leakage let pass: every table of this record says so")
    warnings: list[str] = Field([])
    seconds: dict[str, float] = Field({})
    versions: dict[str, str] = Field({})
    device: str = "cpu"
    error: str | None = None
    traceback: str | None = None
    arrays: str | None = Field(None, description="sha256 over the arrays beside this file")


@dataclass(frozen=True)
class Record:
    """meta: what was done.  arrays: `val_` and `test_` key (V,), patient (V,), y (V, C), scores (V, C); and `test_group_sex` (M,)."""

    meta: Meta
    arrays: Mapping[str, np.ndarray]

    @property
    def identity(self) -> Identity:
        return self.meta.identity

    def part(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Labels (M, C), scores (M, C) and patients (M,) of "val" or "test"."""
        return self.arrays[f"{name}_y"], self.arrays[f"{name}_scores"], self.arrays[f"{name}_patient"]

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """What is known about the test images, (M,) a column: text, or numbers for an age in years."""
        return {name.removeprefix(GROUP_PREFIX): values for name, values in self.arrays.items() if name.startswith(GROUP_PREFIX)}


def record_path(identity: Identity) -> Path:
    """Where the record of this identity is, or would be."""
    return records_dir() / identity.task / f"{re.sub(UNSAFE_CHARACTERS, '_', identity.encoder)}-{identity.protocol}-{identity.id}.json"


def write_record(record: Record) -> Path:
    """Writes the arrays, then the JSON that vouches for them; a crash between leaves no record, only arrays that nobody names."""
    path = record_path(record.identity)
    meta = record.meta
    if meta.status == "ok":
        plain = {name: _to_fixed_width(record.arrays[name]) for name in (*ARRAY_NAMES, *(GROUP_PREFIX + g for g in record.groups))}
        with atomic_write(path.with_suffix(".npz")) as part, open(part, "wb") as file:
            np.savez_compressed(file, **plain)  # type: ignore[arg-type]
        meta = meta.model_copy(update={"arrays": hash_arrays(plain)})
    content = meta.model_dump(mode="json")
    write_json(path, {**content, "digest": json_digest(content, 64)})
    return path


def read_record(path: str | Path) -> Record:
    """The record at `path`. Raises InputError when it is missing, foreign, or not what was written."""
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != RECORD_FORMAT:
        raise InputError(f"{path} is not a record of a benchmark")
    if content.get("version") != VERSION:
        raise InputError(f"{path} is a record of version {content.get('version')}, this isograft reads version {VERSION}; bench again")
    vouched = content.pop("digest", None)
    if vouched != json_digest(content, 64):
        raise InputError(f"{path} was changed after it was written (its digest does not match); remove it, or bench again with --again")
    meta = validate_config(Meta, content, str(path))
    if meta.status == "failed":
        return Record(meta, {})
    beside = path.with_suffix(".npz")
    try:
        with open(beside, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*ARRAY_NAMES, *(n for n in file.files if n.startswith(GROUP_PREFIX)))}
    except (OSError, ValueError, KeyError, BadZipFile) as wrong:
        raise InputError(f"the scores beside {path} cannot be read ({beside.name}: {wrong}); bench again with --again") from wrong
    if hash_arrays(arrays) != meta.arrays:
        raise InputError(f"{beside} was changed after it was written (its digest does not match); bench again with --again")
    return Record(meta, arrays)


def find_finished_record(identity: Identity) -> Record | None:
    """The finished record of this identity, if there is one. Raises InputError when it was edited."""
    path = record_path(identity)
    record = read_record(path) if path.is_file() else None
    return record if record is not None and record.meta.status == "ok" else None


def find_records(where: Sequence[str | Path] = ()) -> list[Path]:
    """The record files that are named, those below folders that are named, or all of this working folder."""
    paths: list[Path] = []
    for name in where or [records_dir()]:
        path = Path(name)
        inside = [path]
        if path.is_dir() or not where:
            every = sorted(path.rglob("*.json"))
            inside = [p for p in every if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if where and not inside:
            raise InputError(f"no record below {path}")
        paths += inside
    return list(dict.fromkeys(paths))


def hash_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """64 hex digits over names, shapes, types and values."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = _to_fixed_width(arrays[name])
        total.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def library_versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {name: version(name) for name in ("isograft", "torch", "timm", "numpy", "faiss-cpu")}


def to_plain_json(value: Any) -> Any:
    """A selection as JSON can hold it: NumPy numbers as Python's, NaN and infinity as null."""
    if isinstance(value, Mapping):
        return {str(k): to_plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_json(v) for v in value]
    if isinstance(value, np.generic):
        return to_plain_json(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _to_fixed_width(value: np.ndarray) -> np.ndarray:
    """Text as fixed-width unicode, so that nothing has to be pickled."""
    return value.astype(str) if value.dtype.kind in "OT" else value
