"""Ingests the slides of a cohort: first all plans, then the tiles, so that the progress bar knows the total number of tiles.

With many slides, a process ingests one slide at a time; with few slides, the shards of a slide are distributed over the processes.
"""

import errno
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from encoders.ingest.merge_shards import write_quarantine
from encoders.ingest.source import Unreadable
from encoders.ingest.workers import Tick, WorkerDied, WorkerPool
from encoders.ingest.wsi.cohort import Cohort, describe_problem, lock_cohort_folder
from encoders.ingest.wsi.merge_slide import write_slide_store
from encoders.ingest.wsi.records import SlideRecord
from encoders.ingest.wsi.relabel import relabel_store
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.thumbnail import save_thumbnail
from encoders.ingest.wsi.tile_geometry import TooCoarse
from encoders.ingest.wsi.tile_plan import TilePlan, plan_tiles
from encoders.ingest.wsi.tile_shard import count_tile_shards, tile_shard_rows, tile_table_path, write_tile_shard
from encoders.runtime.errors import InputError
from encoders.runtime.storage_errors import StorageError, find_storage_error

ResultT = TypeVar("ResultT")
MIN_SLIDES_PER_WORKER = 3  # below this, the shards of a slide are distributed over the workers
FULL = (errno.ENOSPC, errno.EDQUOT)
KEPT_SLIDES = "finished slides are kept; free space, and rerun the same command to resume"
Ticker = Callable[[str, int], AbstractContextManager[Tick]]  # (title, total): shows the progress of one phase


@dataclass(frozen=True)
class TileJob:
    """Shards of a slide to write, and whether to write its store afterwards."""

    item: SlideItem
    shards: tuple[int, ...]
    tiles: int  # number of tiles in these shards
    writes_store: bool


def ingest_slides(
    cohort: Cohort, workers: int, overwrite: bool, ticker: Ticker, prune: bool = False, notify: Callable[[str], None] = lambda text: None
) -> list[SlideRecord]:
    """Tiles every slide that is not finished; returns the records of all slides in order, then those of broken files.

    If interrupted, the same call resumes.

    workers: number of processes; 0: this process, which then ends if a slide crashes it.  notify: called with a message if
    finished slides are tiled again.
    Raises InputError if OUT_DIR was started with another recipe (unless `overwrite`), or holds stores of other slides (unless `prune`)."""
    with lock_cohort_folder(cohort, overwrite, prune), WorkerPool(cohort, workers) as pool:
        finished = {
            item.name: (record, record["stamp"] == item.content_stamp())
            for item in cohort.items
            if (record := cohort.read_finished_record(item))
        }
        known: dict[str, SlideRecord] = {name: record for name, (record, current) in finished.items() if current}
        if again := [name for name in finished if name not in known]:
            why = "a file of theirs, the mask, the regions or the resolution has changed, or the program has"
            notify(f"{len(again)} finished slides are tiled again (first: {again[0]}): {why}")
        if changed := [item for item in cohort.items if item.name in known and known[item.name].get("told") != item.metadata_stamp()]:
            with ticker("slides: columns", len(changed)) as tick:
                for item, outcome in pool.run_jobs(relabel_slide, changed, tick):
                    record = known.pop(item.name)
                    known |= {item.name: cohort.save_record(item, record)} if outcome is True else {}
        todo = [item for item in cohort.items if item.name not in known]
        failed: dict[str, SlideRecord] = {}
        tiles: dict[str, int] = {}
        with ticker("slides: tissue", len(todo)) as tick:
            for item, planned in pool.run_jobs(plan_slide, todo, tick):
                if isinstance(planned, int):
                    tiles[item.name] = planned
                else:
                    failed[item.name] = failure_record(planned)
        ready = sorted(
            (item for item in todo if item.name in tiles), key=lambda item: -tiles[item.name]
        )  # largest first, so that no large slide starts last
        jobs = [
            job for item in ready for job in split_into_jobs(cohort, item, tiles[item.name], len(ready) < MIN_SLIDES_PER_WORKER * workers)
        ]
        with ticker("tiles", sum(job.tiles for job in jobs)) as tick:
            run_tile_jobs(cohort, pool, jobs, tick, known, failed)
            unfinished = [TileJob(item, (), 0, writes_store=True) for item in ready if item.name not in {*known, *failed}]
            run_tile_jobs(cohort, pool, unfinished, tick, known, failed)
        name_mpp_for_all(failed)
        known |= {item.name: cohort.save_record(item, failed[item.name]) for item in todo if item.name in failed}
        broken: list[SlideRecord] = [{"name": name, "source": name, "reason": why} for name, why in cohort.broken]
        records = [*(known[item.name] for item in cohort.items), *broken]
        write_quarantine(
            cohort.out / "slides", [[r["source"], why, r.get("traceback", "")] for r in records if (why := describe_problem(r))]
        )
    return records


def run_tile_jobs(
    cohort: Cohort,
    pool: WorkerPool[Cohort],
    jobs: Sequence[TileJob],
    tick: Tick,
    known: dict[str, SlideRecord],
    failed: dict[str, SlideRecord],
) -> None:
    """Runs the jobs, and adds the slides that they finish to `known` or `failed`."""
    for job, answer in pool.run_jobs(tile_slide, jobs, tick):
        if isinstance(answer, WorkerDied) or (answer and "reason" in answer):
            failed.setdefault(job.item.name, failure_record(answer))
        elif answer:
            known[job.item.name] = cohort.save_record(job.item, answer)


def failure_record(answer: SlideRecord | WorkerDied) -> SlideRecord:
    """The record of a slide that failed, or whose process died."""
    return {"reason": str(answer)} if isinstance(answer, WorkerDied) else answer


def name_mpp_for_all(failed: Mapping[str, SlideRecord]) -> None:
    """Adds the --mpp that takes every slide to the reasons of those that are too coarse."""
    coarse = [record for record in failed.values() if "needs_mpp" in record]
    for record in coarse:
        needed = math.ceil(max(record["needs_mpp"] for record in coarse) * 1e4 - 1e-6) / 1e4
        record["reason"] += f"; --mpp {needed:g} takes {f'all {len(coarse)} such slides' if len(coarse) > 1 else 'it'}"


def split_into_jobs(cohort: Cohort, item: SlideItem, tiles: int, few: bool) -> list[TileJob]:
    """The unfinished work of a slide: one job, or one job per shard if there are few slides."""
    folder = cohort.work_folder(item)
    left = [k for k in range(count_tile_shards(tiles)) if not tile_table_path(folder, k).exists()]
    if few:
        return [TileJob(item, (k,), len(tile_shard_rows(tiles, k)), writes_store=False) for k in left]
    return [TileJob(item, tuple(left), sum(len(tile_shard_rows(tiles, k)) for k in left), writes_store=True)]


def relabel_slide(cohort: Cohort, item: SlideItem, tick: Tick) -> bool | SlideRecord:
    """Writes new columns to the store of a slide; True, or the record of a failure, after which the slide is tiled again."""

    def work() -> bool:
        relabel_store(cohort, item)
        return True

    answer = run_guarded(cohort.out, work)
    tick(1)
    return answer


def plan_slide(cohort: Cohort, item: SlideItem, tick: Tick) -> int | SlideRecord:
    """Writes the plan of a slide; the number of tiles to read, or the record of a failure."""

    def work() -> int:
        path = cohort.plan_path(item)
        if not path.exists():
            plan_tiles(item, cohort.settings).save(path)
        return len(TilePlan.load(path).x)

    answer = run_guarded(cohort.out, work)
    tick(1)
    return answer


def tile_slide(cohort: Cohort, job: TileJob, tick: Tick) -> SlideRecord | None:
    """Writes the shards of a job, then the store; the record of the slide, or None if other jobs of the slide remain."""

    def work() -> SlideRecord | None:
        folder, plan = cohort.work_folder(job.item), TilePlan.load(cohort.plan_path(job.item))
        if job.shards:
            slide = Slide(job.item.path, cohort.settings.icc, cohort.settings.accept_damaged)
            try:
                for number in job.shards:
                    write_tile_shard(slide, plan, number, cohort.settings, folder, tick)
            finally:
                slide.close()
        if not job.writes_store:
            return None
        save_thumbnail(plan, folder, cohort.thumbnail_path(job.item.name))
        return write_slide_store(job.item, plan, cohort.settings, cohort.attrs, folder, cohort.store_path(job.item))

    return run_guarded(cohort.out, work)


def run_guarded(out: Path, work: Callable[[], ResultT]) -> ResultT | SlideRecord:
    """The result of `work`, or the record of a failure, so that one bad slide does not end the ingest. A full disk raises StorageError."""
    try:
        return work()
    except TooCoarse as error:
        return {"reason": str(error), "needs_mpp": error.mpp}
    except Unreadable as error:
        return {"reason": str(error)}
    except InputError:
        raise
    except StorageError as error:
        raise error.about(error.lost, KEPT_SLIDES) from error
    except Exception as error:
        if (known := find_storage_error(error, None)) and known.number in FULL:  # another fault is the slide's
            raise StorageError(known.number, str(out), "the slide", KEPT_SLIDES) from error
        return {"reason": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
