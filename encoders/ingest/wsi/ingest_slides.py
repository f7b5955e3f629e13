"""The work on the slides of a cohort: first all plans, then the tiles, so that progress knows the whole from early on.

With many slides a process takes a slide at a time; with few, the pieces of one slide are shared out.
"""

import errno
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from encoders.ingest.merge_shards import write_quarantine
from encoders.ingest.source import Unreadable
from encoders.ingest.workers import Tick, WorkerDied, WorkerPool
from encoders.ingest.wsi.cohort import Cohort, SlideRecord, describe_problem, lock_cohort_folder
from encoders.ingest.wsi.merge_slide import write_slide_store
from encoders.ingest.wsi.relabel import relabel_store
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.thumbnail import save_thumbnail
from encoders.ingest.wsi.tile_plan import TilePlan, plan_tiles
from encoders.ingest.wsi.tile_shard import count_tile_shards, tile_shard_rows, tile_table_path, write_tile_shard
from encoders.runtime.errors import InputError

T = TypeVar("T")
MIN_SLIDES_PER_WORKER = 3  # slides a worker: fewer of them, and their pieces are shared out
DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
Ticker = Callable[[str, int], AbstractContextManager[Tick]]


@dataclass(frozen=True)
class TileJob:
    """Pieces of a slide to write, and whether its store is to be made from them then."""

    item: SlideItem
    pieces: tuple[int, ...]
    tiles: int  # in these pieces
    finish: bool


def ingest_slides(
    cohort: Cohort, workers: int, overwrite: bool, ticker: Ticker, prune: bool = False, say: Callable[[str], None] = lambda text: None
) -> list[SlideRecord]:
    """Tiles every slide that is not finished yet; returns the records of all, in order.  ticker(title, total): shows progress.
    say: is told what is done again.  workers: processes; 0: all is done in this one, which a slide that crashes it then ends.

    Raises InputError when OUT_DIR was begun with another recipe and `overwrite` is not given, or holds stores of other slides and `prune`
    is not given."""
    with lock_cohort_folder(cohort, overwrite, prune), WorkerPool(cohort, workers) as pool:
        finished = {item.name: (record, record["stamp"] == item.stamp()) for item in cohort.items if (record := cohort.finished(item))}
        known: dict[str, SlideRecord] = {name: record for name, (record, current) in finished.items() if current}
        if again := [name for name in finished if name not in known]:
            why = "their file, mask, regions or resolution is another now, or the program is"
            say(f"{len(again)} finished slides are tiled again (first: {again[0]}): {why}")
        if said := [item for item in cohort.items if item.name in known and known[item.name].get("told") != item.told()]:
            with ticker("slides: columns", len(said)) as tick:
                for item, done in pool.each(relabel_slide, said, tick):
                    record = known.pop(item.name)
                    known |= {item.name: cohort.note(item, record)} if done is True else {}
        todo = [item for item in cohort.items if item.name not in known]
        failed: dict[str, SlideRecord] = {}
        tiles: dict[str, int] = {}
        with ticker("slides: tissue", len(todo)) as tick:
            for item, found in pool.each(plan_slide, todo, tick):
                if isinstance(found, int):
                    tiles[item.name] = found
                else:
                    failed[item.name] = failure_record(found)
        ready = sorted((item for item in todo if item.name in tiles), key=lambda item: -tiles[item.name])  # largest first: a short tail
        jobs = [
            job for item in ready for job in split_into_jobs(cohort, item, tiles[item.name], len(ready) < MIN_SLIDES_PER_WORKER * workers)
        ]
        with ticker("tiles", sum(job.tiles for job in jobs)) as tick:
            run_jobs(cohort, pool, jobs, tick, known, failed)
            unfinished = [TileJob(item, (), 0, finish=True) for item in ready if item.name not in {*known, *failed}]
            run_jobs(cohort, pool, unfinished, tick, known, failed)
        known |= {item.name: cohort.note(item, failed[item.name]) for item in todo if item.name in failed}
        records = [known[item.name] for item in cohort.items]
        write_quarantine(
            cohort.out / "slides", [[r["source"], why, r.get("traceback", "")] for r in records if (why := describe_problem(r))]
        )
    return records


def run_jobs(
    cohort: Cohort,
    pool: WorkerPool[Cohort],
    jobs: Sequence[TileJob],
    tick: Tick,
    known: dict[str, SlideRecord],
    failed: dict[str, SlideRecord],
) -> None:
    """Does the jobs, and sorts the slides whose end they were."""
    for job, told in pool.each(tile_slide, jobs, tick):
        if isinstance(told, WorkerDied) or (told and "reason" in told):
            failed.setdefault(job.item.name, failure_record(told))
        elif told:
            known[job.item.name] = cohort.note(job.item, told)


def failure_record(answer: SlideRecord | WorkerDied) -> SlideRecord:
    return answer if isinstance(answer, dict) else {"reason": str(answer)}


def split_into_jobs(cohort: Cohort, item: SlideItem, tiles: int, few: bool) -> list[TileJob]:
    """What is to be done for a slide: in one job, or in one for each piece."""
    folder = cohort.work(item)
    left = [k for k in range(count_tile_shards(tiles)) if not tile_table_path(folder, k).exists()]
    if few:
        return [TileJob(item, (k,), len(tile_shard_rows(tiles, k)), finish=False) for k in left]
    return [TileJob(item, tuple(left), sum(len(tile_shard_rows(tiles, k)) for k in left), finish=True)]


def relabel_slide(cohort: Cohort, item: SlideItem, tick: Tick) -> bool | SlideRecord:
    """Other columns into the slide's store; the answer is True, or what went wrong: then it is tiled again."""

    def work() -> bool:
        relabel_store(cohort, item)
        return True

    answer = run_guarded(cohort.out, work)
    tick(1)
    return answer


def plan_slide(cohort: Cohort, item: SlideItem, tick: Tick) -> int | SlideRecord:
    """The plan of a slide into its file; the answer is the number of tiles to read, or the record of a failure."""

    def work() -> int:
        where = cohort.plan(item)
        if not where.exists():
            plan_tiles(item, cohort.settings).save(where)
        return len(TilePlan.load(where).x)

    answer = run_guarded(cohort.out, work)
    tick(1)
    return answer


def tile_slide(cohort: Cohort, job: TileJob, tick: Tick) -> SlideRecord | None:
    """Pieces into their files, and at last the store; the answer is the record of the slide when that is known."""

    def work() -> SlideRecord | None:
        folder, plan = cohort.work(job.item), TilePlan.load(cohort.plan(job.item))
        if job.pieces:
            slide = Slide(job.item.path, cohort.settings.icc)
            try:
                for number in job.pieces:
                    write_tile_shard(slide, plan, number, cohort.settings, folder, tick)
            finally:
                slide.close()
        if not job.finish:
            return None
        save_thumbnail(plan, folder, cohort.picture(job.item.name))
        return write_slide_store(job.item, plan, cohort.settings, cohort.attrs, folder, cohort.store(job.item))

    return run_guarded(cohort.out, work)


def run_guarded(out: Path, work: Callable[[], T]) -> T | SlideRecord:
    """What `work` returns, or the reason why not: one bad slide never ends the job. A full disk does."""
    try:
        return work()
    except Unreadable as wrong:
        return {"reason": str(wrong)}
    except InputError:
        raise
    except Exception as wrong:
        if isinstance(wrong, OSError) and wrong.errno in DISK_FULL_ERRNOS:
            raise InputError(f"the disk of {out} is full; make room and repeat the command: it goes on where it was") from wrong
        return {"reason": f"{type(wrong).__name__}: {wrong}", "traceback": traceback.format_exc()}
