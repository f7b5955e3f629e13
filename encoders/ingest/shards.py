"""Writes every item of a source to one store: in parallel, resumable, and with the same bytes after any interruption.

During the ingest, a folder OUT.shards holds the plan (recipe and items), and the pixels and the table of every finished shard. A shard is
finished when its table exists under its final name; unfinished files that `kill -9` leaves are ignored. At the end the shards are merged in
order, and the folder is removed.
"""

import fcntl
import glob
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypedDict

from encoders import __version__
from encoders.ingest.merge_shards import IngestSummary, join_shards
from encoders.ingest.shard_io import is_finished, write_shard
from encoders.ingest.source import ImageRow, ItemT, Source, Unreadable, file_stamp, is_gray, unit_to_json
from encoders.ingest.workers import Tick, WorkerDied, WorkerPool, available_cpus
from encoders.runtime.errors import InputError
from encoders.runtime.files import read_json, write_json
from encoders.runtime.json_types import Json
from encoders.runtime.progress import skip_items
from encoders.runtime.read_errors import READ_ERRORS
from encoders.runtime.storage_errors import find_storage_error, name_lost

__all__ = ["ImageRow", "IngestSummary", "Source", "Unreadable", "available_cpus", "file_stamp", "ingest", "is_gray"]


class ShardPlan(TypedDict):
    """What an ingest is going to write; an interrupted ingest resumes only with the same plan."""

    recipe: Mapping[str, Json]
    items: Sequence[Sequence[str]]  # name and stamp of every item


def ingest(source: Source[ItemT], out: str | Path, workers: int = 1, overwrite: bool = False, tick: Tick | None = None) -> IngestSummary:
    """Writes every row of `source` to the store `out`. If it is interrupted, the same call resumes it.

    workers: number of processes; 1: this process.  tick: called with the number of items done since the last call.
    Raises InputError if `out` exists (unless `overwrite`), cannot be written, or was started with another recipe or other files."""
    out, tick = Path(out), tick or (lambda n: None)
    items = source.items()
    if not items:
        raise InputError("the source has no images; nothing was written")
    kept = f"{'the previous file and ' if out.exists() else ''}finished shards are kept; free space, and rerun the same command to resume"
    with name_lost(out.name, kept), lock_shard_folder(out, overwrite) as folder:
        shards = plan_shards(source, items, folder, overwrite)
        todo = {k: shard for k, shard in enumerate(shards) if not is_finished(folder, k)}
        skip_items(tick, len(items) - sum(map(len, todo.values())))
        write_shards(source, todo, folder, workers, tick)
        summary = join_shards(source, folder, len(shards), out, ingest_recipe(source))
        shutil.rmtree(folder)
    return summary


@contextmanager
def lock_shard_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """The folder OUT.shards, locked against a second ingest to the same store."""
    folder = out.with_name(out.name + ".shards")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the store file to write, e.g. {out / 'images.h5'}")
    if out.exists() and not folder.exists() and not overwrite:
        raise InputError(f"{out} exists; write to another name, or pass --overwrite to replace it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if known := find_storage_error(error, folder):
            raise known from error
        raise InputError(f"cannot write {folder}: {error.strerror}; choose a folder with write permission") from error
    with hold_lock(folder / "lock", out):
        for left in (*folder.glob(".*.part"), *out.parent.glob(f".{glob.escape(out.name)}.*.part")):
            left.unlink()  # from a killed process, which held the lock: no process writes it now
        yield folder


@contextmanager
def hold_lock(lock: Path, out: Path) -> Iterator[None]:
    """Holds the lock file while `out` is written. Raises InputError if another process holds it."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"another ingest is writing {out}; wait until it ends") from error
        yield


def plan_shards(source: Source[ItemT], items: Sequence[ItemT], folder: Path, overwrite: bool) -> list[Sequence[ItemT]]:
    """The items of each shard. Saves the plan in the folder.

    Raises InputError if the folder has a different plan, unless `overwrite`."""
    size = min(1000, max(25, -(-len(items) // 16)))  # at most 1000; smaller for small sources, so that every worker has a shard
    plan: ShardPlan = {"recipe": ingest_recipe(source), "items": [[source.name(item), source.stamp(item)] for item in items]}
    if len({name for name, _ in plan["items"]}) < len(items):
        raise ValueError("two items of the source have the same name")
    path = folder / "plan.json"
    if path.exists() and (why := describe_difference(read_plan(path), plan)):
        if not overwrite:
            raise InputError(
                f"{folder} was started with other settings: {why}. Repeat the old command to finish it, or pass --overwrite to start over"
            )
        for left in folder.glob("[0-9]*"):
            left.unlink()
        path.unlink()
    if not path.exists():
        write_json(path, plan)
    return [items[i : i + size] for i in range(0, len(items), size)]


def read_plan(path: Path) -> ShardPlan | None:
    """The plan of an earlier start; None if it was damaged."""
    try:
        content = read_json(path)
        names = [[str(name), str(stamp)] for name, stamp in content["items"]]
        return {"recipe": dict(content["recipe"]), "items": names}
    except READ_ERRORS:  # InputError among them
        return None


def ingest_recipe(source: Source[ItemT]) -> dict[str, Json]:
    """Everything that determines the store, except the items."""
    unit = unit_to_json(source.unit) if source.unit else None
    settings: dict[str, Json] = {
        "modality": source.modality,
        "dataset": source.dataset,
        "codec": source.codec,
        "channels": source.channels or "auto",
    }
    return {"tool": f"isograft {__version__}", **settings, "unit": unit, "geometry": source.geometry, **source.recipe()}


def describe_difference(old: ShardPlan | None, new: ShardPlan) -> str:
    """What changed between two plans, in words; "" if nothing changed.  old: None if it cannot be read."""
    if old is None:
        return "its plan.json is damaged"
    a, b = old["recipe"], new["recipe"]
    changed = [f"{k} was {a.get(k)!r} and is {b.get(k)!r}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
    before, after = ({item[0]: item[1] for item in plan["items"]} for plan in (old, new))
    for what, names in (
        ("new", after.keys() - before.keys()),
        ("gone", before.keys() - after.keys()),
        ("changed on disk", {n for n in after.keys() & before.keys() if before[n] != after[n]}),
    ):
        if names:
            changed.append(f"{len(names)} files of the source {'is' if len(names) == 1 else 'are'} {what} (first: {min(names)})")
    return "; ".join(changed)


@dataclass(frozen=True)
class ShardWriter(Generic[ItemT]):
    """What a process needs to write shards of one source."""

    source: Source[ItemT]
    folder: Path

    def write(self, job: tuple[int, Sequence[ItemT]], tick: Tick) -> None:
        write_shard(self.source, *job, self.folder, tick)


def write_shards(source: Source[ItemT], todo: dict[int, Sequence[ItemT]], folder: Path, workers: int, tick: Tick) -> None:
    """Writes the shards in `todo`.  todo: number of the shard to its items."""
    write: Callable[[ShardWriter[ItemT], tuple[int, Sequence[ItemT]], Tick], None] = ShardWriter.write
    with WorkerPool(ShardWriter(source, folder), workers if min(workers, len(todo)) > 1 else 0) as pool:
        for _, answer in pool.run_jobs(write, list(todo.items()), tick):
            if isinstance(answer, WorkerDied):
                raise RuntimeError(
                    "a worker process died (out of memory?); rerun the same command with fewer --workers to resume"
                ) from answer
