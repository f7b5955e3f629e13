"""Every item of a source into one store: in parallel, resumable, and with the same bytes however often it was interrupted.

Beside OUT stands a folder OUT.shards while the work goes on: the plan (recipe and items), and for every finished shard its pixels and
its table. A shard is finished when its table stands under its name, so what `kill -9` leaves is either whole or ignored. At the end the
shards are joined in order and the folder goes.
"""

import fcntl
import glob
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders import __version__
from encoders.ingest.merge_shards import IngestSummary, join_shards
from encoders.ingest.shard_io import shard_table_path, write_shard
from encoders.ingest.source import ImageRow, Source, Unreadable, file_stamp, is_gray
from encoders.ingest.workers import Tick, WorkerDied, WorkerPool, available_cpus
from encoders.runtime.errors import InputError
from encoders.runtime.files import read_json, write_json

__all__ = ["ImageRow", "IngestSummary", "Source", "Unreadable", "available_cpus", "file_stamp", "ingest", "is_gray"]


def ingest(source: Source, out: str | Path, workers: int = 1, overwrite: bool = False, tick: Tick | None = None) -> IngestSummary:
    """Writes every row of `source` to the store `out`.  `tick(n)`: called with the number of items done since the last call.

    Raises InputError when `out` exists (unless `overwrite`), cannot be written, or was begun with another recipe or other files."""
    out, tick = Path(out), tick or (lambda n: None)
    items = source.items()
    if not items:
        raise InputError("the source holds no images; nothing was written")
    with lock_shard_folder(out, overwrite) as folder:
        shards = plan_shards(source, items, folder, overwrite)
        todo = {k: shard for k, shard in enumerate(shards) if not shard_table_path(folder, k).exists()}
        tick(len(items) - sum(map(len, todo.values())))
        write_shards(source, todo, folder, workers, tick)
        summary = join_shards(source, folder, len(shards), out, ingest_recipe(source))
        shutil.rmtree(folder)
    return summary


@contextmanager
def lock_shard_folder(out: Path, overwrite: bool) -> Iterator[Path]:
    """The folder OUT.shards, locked against a second ingest into the same store."""
    folder = out.with_name(out.name + ".shards")
    if out.is_dir():
        raise InputError(f"{out} is a folder; name the store file to write, e.g. {out / 'images.h5'}")
    if out.exists() and not folder.exists() and not overwrite:
        raise InputError(f"{out} exists; write to another name, or pass --overwrite to replace it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(f"cannot write {folder}: {wrong.strerror}; choose a folder that you may write to") from wrong
    with hold_lock(folder / "lock", out):
        for left in (*folder.glob(".*.part"), *out.parent.glob(f".{glob.escape(out.name)}.*.part")):
            left.unlink()  # what a killed process was writing: it held the lock, so nobody is writing it now
        yield folder


@contextmanager
def hold_lock(lock: Path, out: Path) -> Iterator[None]:
    """Holds the lock file while `out` is being written. Raises InputError when another process does."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as wrong:
            raise InputError(f"another ingest is writing {out}; wait for it to end") from wrong
        yield


def plan_shards(source: Source, items: Sequence[Any], folder: Path, overwrite: bool) -> list[Sequence[Any]]:
    """The items cut into shards; the plan is kept in the folder, and one that stands there already must be the same."""
    size = min(1000, max(25, -(-len(items) // 16)))  # about a thousand; smaller for small sources, so that all workers have something to do
    plan = {"recipe": ingest_recipe(source), "items": [[source.name(item), source.stamp(item)] for item in items]}
    if len({name for name, _ in plan["items"]}) < len(items):
        raise ValueError("two items of the source have one name")
    where = folder / "plan.json"
    if where.exists() and (why := describe_difference(read_json(where), plan)):
        if not overwrite:
            raise InputError(
                f"{folder} was begun differently: {why}. Repeat the old command to finish it, or pass --overwrite to start over"
            )
        for left in folder.glob("[0-9]*"):
            left.unlink()
        where.unlink()
    if not where.exists():
        write_json(where, plan)
    return [items[i : i + size] for i in range(0, len(items), size)]


def ingest_recipe(source: Source) -> dict[str, Any]:
    """All that determines the store besides the items."""
    settings = {"modality": source.modality, "dataset": source.dataset, "codec": source.codec, "channels": source.channels or "auto"}
    return {"tool": f"isograft {__version__}", **settings, "unit": source.unit, "geometry": source.geometry, **source.recipe()}


def describe_difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What changed between two plans, in words; "" when nothing did."""
    a, b = old["recipe"], new["recipe"]
    changed = [f"{k} was {a.get(k)!r} and is {b.get(k)!r}" for k in sorted({*a, *b}) if a.get(k) != b.get(k)]
    before, after = dict(old["items"]), dict(new["items"])
    for what, names in (
        ("new", after.keys() - before.keys()),
        ("gone", before.keys() - after.keys()),
        ("changed on disk", {n for n in after.keys() & before.keys() if before[n] != after[n]}),
    ):
        if names:
            changed.append(f"{len(names)} of the source's files {'is' if len(names) == 1 else 'are'} {what} (first: {min(names)})")
    return "; ".join(changed)


@dataclass(frozen=True)
class ShardWriter:
    """What a process needs to write shards of one source."""

    source: Source
    folder: Path

    def shard(self, job: tuple[int, Sequence[Any]], tick: Tick) -> None:
        write_shard(self.source, *job, self.folder, tick)


def write_shards(source: Source, todo: dict[int, Sequence[Any]], folder: Path, workers: int, tick: Tick) -> None:
    """Writes the shards in `todo`."""
    with WorkerPool(ShardWriter(source, folder), workers if min(workers, len(todo)) > 1 else 0) as pool:
        for _, answer in pool.each(ShardWriter.shard, list(todo.items()), tick):
            if isinstance(answer, WorkerDied):
                raise RuntimeError("a worker process died (out of memory?); run the same command again, with fewer --workers") from answer
