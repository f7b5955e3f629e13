"""The record of one cell of a benchmark: a JSON file with its settings, and an .npz file with all validation and test scores.

All metrics are computed from records, so every table can be checked and made again. A digest over the content reveals an edited record.

Shapes: V validation images, M test images, C columns of the target.
"""

import hashlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from encoders.runtime.arrays import Array
from encoders.runtime.config import Config, json_digest, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, prepared_json, read_json
from encoders.runtime.json_types import Json
from encoders.runtime.paths import records_dir
from encoders.runtime.precision_names import FeaturePrecision
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.sealed_json import DIGEST_KEY, remove_digest
from transfer.records.statistics_file import StatisticsFile
from transfer.records.stored_arrays import open_arrays
from transfer.tasks.task import TaskKind

RECORD_FORMAT, VERSION = "isograft-record", 1
RECORD_DIGITS = 64  # of the digest of a record
UNSAFE_CHARACTERS = r"[^A-Za-z0-9.@-]+"  # characters of an encoder's name that its file names replace by _
ID_COLUMNS = ("key", "patient")  # columns that identify images or patients
ARRAY_NAMES = tuple(f"{part}_{column}" for part in ("val", "test") for column in (*ID_COLUMNS, "y", "scores"))
GROUP_PREFIX = "test_group_"  # followed by the name of a group column of the test images (sex, age, view, site)
# Few-shot, followed by the number of shots; `transfer.records.episodes` says what they hold.
EPISODE_PREFIXES = ("test_episode_auroc_", "test_episode_label_auroc_", "test_placement_")
STUDY_ARRAYS = ("val_study", "test_study")  # of stores that have a column `study`
OPTIONAL_PREFIXES = (GROUP_PREFIX, *EPISODE_PREFIXES, *STUDY_ARRAYS)


class ExternalSource(Config):
    """External validation: the task that was trained and selected on. The record's own task is the tested one."""

    task: str
    store: str = Field(description="fingerprint of its pixels")
    labels: str = Field(description="hash of its targets")
    split: str = Field(description="hash of its split; the identity's `split` is that of the tested part, whose uses are counted together")
    label_map: dict[str, list[str]] = Field(description="class of this task -> classes of the tested task, as the user gave it")


class Identity(Config):
    """All that determines the scores of a record: records with equal identities hold equal scores."""

    task: str
    store: str = Field(description="fingerprint of the pixels")
    labels: str = Field(description="hash of the targets of all images")
    split: str = Field(description="hash of the images of each part")
    partition: str = Field(description="hash of all folds together; without folds that of the split")
    encoder: str
    encoder_sha256: str
    card: str = Field(description="digest of the card")
    protocol: str
    protocol_hash: str
    fold: int = 0
    folds: int = 1
    fraction: float = 1.0
    patients: int | None = Field(
        None, description="label fraction requested as a number of train patients; `fraction` is the resulting share"
    )
    draw: int = 0
    seed: int = 0
    selected_on: ExternalSource | None = Field(None, description="external validation: the task that was selected on")
    shift: str | None = Field(None, description="acquisition shift of the test images (gamma, noise, ...); None: unchanged images")
    strength: int = Field(0, description="strength of the shift, 1 (slight) to 5 (strong); 0: unchanged images")
    amount: float | None = Field(None, description="the strength in the shift's own unit, e.g. the exponent of gamma")
    shift_version: int | None = Field(None, description="version of the shift's code, so that one curve never mixes two versions")
    precision: FeaturePrecision = Field(
        "fp32", description="arithmetic of the frozen network; a protocol that trains the network has a setting of its own"
    )

    @model_serializer(mode="wrap")
    def _without_fp32(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields; `precision` only if it is not fp32, so that the id of a record of an earlier version stays what it was."""
        return {key: value for key, value in serialize(self).items() if (key, value) != ("precision", "fp32")}

    @property
    def id(self) -> str:
        """16 hex digits of all fields; part of the file name."""
        return json_digest(self)


class Meta(Config):
    """The JSON of a record."""

    format: str = RECORD_FORMAT
    version: int = VERSION
    identity: Identity
    status: Literal["ok", "failed"] = "ok"
    ids: Literal["names", "pseudonyms", "salted"] = Field("names", description="of images and patients; `names`: of an earlier version")
    salt: str = Field("", description="digits by which secrets of --salt-file differ; they do not tell the secret")
    kind: TaskKind
    classes: list[str]
    order: list[str] = Field([], description="the classes from lowest to highest; empty: classes without an order")
    role: str = Field("encoder", description="encoder, imagenet or random")
    arch: str = ""
    recipe: str = Field(
        "", description="digest of the encoder's pretraining without its seed: encoders with equal digests differ in the seed only"
    )
    pretraining_seed: int | None = Field(None, description="seed of the encoder's pretraining, if its card says it")
    size: int = Field(0, description="input size of the encoder, pixels")
    cost: dict[str, Any] = Field({}, description="of a protocol that trains the network: parameters, images seen, validations, memory")
    counts: dict[str, dict[str, int]] = Field({}, description="images and patients of each part")
    selection: dict[str, Any] = Field({})
    episodes: dict[str, dict[str, float]] = Field(
        {}, description="few-shot: number of shots -> mean and sd over episodes of the test AUROC"
    )
    episode_supports: dict[str, str] = Field({}, description="few-shot: number of shots -> digest of the support sets of all episodes")
    protocol_config: dict[str, Any] = Field({})
    leakage: list[str] = Field([], description="confirmed leaks that --allow-leakage allowed; every table with this record states them")
    warnings: list[str] = Field([])
    seconds: dict[str, float] = Field({})
    versions: dict[str, str] = Field({})
    device: str = "cpu"
    computed_on: dict[str, str] = Field({}, description="model of the GPU and SLURM job, as far as there were any")
    error: str | None = None
    traceback: str | None = None
    test_set: str = Field("", description="digest of the test images, whose ids are in `test_sets/` beside the ledger")
    scored_by: str = Field("", description="not in files: what a row is if not an image, e.g. `study, mean over its images`")
    arrays: str | None = Field(None, description="sha256 of the arrays in the .npz file")


@dataclass(frozen=True, eq=False)  # compared by identity, so that a record can be the key of what is computed from it
class Record:
    """meta: the JSON.  arrays: `val_key`, `val_patient` (V,), `val_y`, `val_scores` (V, C), the same for `test_`, `test_group_sex` (M,).

    A few-shot record also has its episodes (`transfer.records.episodes`). Those of a record in a file are read when they are used.

    digest: of the file, or of what a record was computed from; equal digests mean equal records. "" for a record in memory only.
    statistics: where results are kept that were computed from it; None: nowhere.  local_error: of a failed cell, with names; in no file."""

    meta: Meta
    arrays: Mapping[str, Array]
    digest: str = ""
    statistics: StatisticsFile | None = None
    local_error: str = ""

    @property
    def identity(self) -> Identity:
        return self.meta.identity

    def part(self, name: Literal["val", "test"]) -> tuple[Array, Array, Array]:
        """Labels (M, C), scores (M, C) and patients (M,) of the validation or test part."""
        return self.arrays[f"{name}_y"], self.arrays[f"{name}_scores"], self.arrays[f"{name}_patient"]

    @property
    def class_order(self) -> tuple[int, ...]:
        """The columns of the classes from lowest to highest; () for classes without an order."""
        return tuple(map(self.meta.classes.index, self.meta.order))

    @property
    def arrays_without_groups(self) -> dict[str, Array]:
        """All arrays but the group columns and studies, which depend on the store as it is now."""
        return {name: self.arrays[name] for name in self.arrays if not name.startswith((GROUP_PREFIX, *STUDY_ARRAYS))}

    @property
    def groups(self) -> dict[str, Array]:
        """The group columns of the test images, (M,) each: text, or numbers for an age in years."""
        return {name: self.arrays[GROUP_PREFIX + name] for name in self.group_columns}

    @property
    def group_columns(self) -> list[str]:
        """The names of the group columns."""
        return [name.removeprefix(GROUP_PREFIX) for name in self.arrays if name.startswith(GROUP_PREFIX)]


def record_path(identity: Identity) -> Path:
    """The JSON file of the record with this identity, whether or not it exists."""
    return records_dir() / identity.task / f"{re.sub(UNSAFE_CHARACTERS, '_', identity.encoder)}-{identity.protocol}-{identity.id}.json"


def write_record(record: Record) -> Path:
    """Writes the arrays, then the JSON with their digest, and returns its path. A crash in between leaves arrays without a record.

    Both are on the disk before either gets its name: a full disk leaves an earlier record as it was. Raises StorageError then."""
    return store_record(record)[0]


def store_record(record: Record) -> tuple[Path, Record]:
    """As `write_record`, with the record as it would be read: what is computed from it can be kept."""
    path = record_path(record.identity)
    meta, arrays = record.meta, dict(record.arrays)
    if meta.scored_by:
        raise RuntimeError(f"a record holds the scores of images; one by {meta.scored_by} is never written")
    scored = meta.status == "ok"
    if scored:
        arrays = {name: _to_fixed_width(record.arrays[name]) for name in (*ARRAY_NAMES, *optional_arrays(record.arrays))}
        meta = meta.model_copy(update={"arrays": hash_arrays(arrays)})
    content = meta.model_dump(mode="json")
    digest = json_digest(content, RECORD_DIGITS)
    with prepared_json(path, {**content, DIGEST_KEY: digest}, private=True):  # gets its name after the arrays
        if scored:
            with atomic_write(path.with_suffix(".npz"), private=True) as part, open(part, "wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return path, Record(meta, arrays, digest, StatisticsFile(path, digest))


def read_record(path: str | Path) -> Record:
    """The record at `path`. Raises InputError when it is missing, of another format, or was edited."""
    path = Path(path)
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != RECORD_FORMAT:
        raise InputError(f"{path} is not a record of a benchmark")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path} is a record of version {content.get('version')}, this isograft reads version {VERSION}; run `transfer bench` again"
        )
    if not (digest := content.get(DIGEST_KEY)) or not remove_digest(content, RECORD_DIGITS):
        raise InputError(
            f"{path} was changed after it was written (its digest does not match); remove it, or run `transfer bench` with --again"
        )
    meta = validate_config(Meta, content, str(path))
    statistics = StatisticsFile(path, digest)
    if meta.status == "failed":
        return Record(meta, {}, digest, statistics)
    scores = path.with_suffix(".npz")

    def verify(arrays: Mapping[str, Array]) -> None:
        if hash_arrays(arrays) != meta.arrays:
            raise InputError(f"{scores} was changed after it was written (its digest does not match); run `transfer bench` with --again")

    try:
        arrays = open_arrays(scores, statistics, lambda names: [*ARRAY_NAMES, *optional_arrays(names)], verify)
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(
            f"the scores of {path} cannot be read ({scores.name}: {describe_reason(error)}); run `transfer bench` with --again"
        ) from error
    return Record(meta, arrays, digest, statistics)


def find_finished_record(identity: Identity) -> Record | None:
    """The successful record with this identity; None if there is none. Raises InputError when it was edited."""
    path = record_path(identity)
    record = read_record(path) if path.is_file() else None
    return record if record is not None and record.meta.status == "ok" else None


def find_records(paths: Sequence[str | Path] = ()) -> list[Path]:
    """The given record files and those inside the given folders; without arguments, all of the working folder."""
    files: list[Path] = []
    for path in map(Path, paths or [records_dir()]):
        inside = [path]
        if path.is_dir() or not paths:
            every = sorted(path.rglob("*.json"))
            inside = [p for p in every if not any(part.startswith(".") for part in p.relative_to(path).parts)]
        if paths and not inside:
            raise InputError(f"{path} contains no record")
        files += inside
    return list(dict.fromkeys(files))


def optional_arrays(names: Iterable[str]) -> list[str]:
    """The names of arrays that not every record has: group columns, studies and few-shot episodes."""
    return [name for name in names if name.startswith(OPTIONAL_PREFIXES)]


def hash_arrays(arrays: Mapping[str, Array]) -> str:
    """64 hex digits over the names, shapes, types and values of the arrays."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        value = _to_fixed_width(arrays[name])
        total.update(f"{name} {value.dtype.str} {value.shape} ".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def library_versions() -> dict[str, str]:
    """The versions of the libraries that the scores depend on."""
    return {name: version(name) for name in ("isograft", "torch", "timm", "numpy", "faiss-cpu")}


def to_plain_json(value: object) -> Json:
    """A value in JSON's types: NumPy numbers as Python numbers, NaN and infinity as null. Other types are returned as they are."""
    if isinstance(value, Mapping):
        return {str(k): to_plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_json(v) for v in value]
    if isinstance(value, np.generic):
        return to_plain_json(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else cast(Json, value)


def _to_fixed_width(value: Array) -> Array:
    """Text as fixed-width Unicode, which .npz files hold without pickling."""
    return value.astype(str) if value.dtype.kind in "OT" else value
