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

from encoders.ingest.join import write_quarantine
from encoders.ingest.pool import Died, Tick, Workers
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.cohort import Cohort, Record, trouble, workplace
from encoders.ingest.wsi.finish import write_slide
from encoders.ingest.wsi.item import Item
from encoders.ingest.wsi.picture import save_picture
from encoders.ingest.wsi.piece import count, rows, table_path, write_piece
from encoders.ingest.wsi.plan import Plan, planned
from encoders.ingest.wsi.relabel import relabel
from encoders.ingest.wsi.slide import Slide
from encoders.runtime.errors import InputError

T = TypeVar("T")
FEW = 3  # slides a worker: fewer of them, and their pieces are shared out
FULL = (errno.ENOSPC, errno.EDQUOT)
Ticker = Callable[[str, int], AbstractContextManager[Tick]]


@dataclass(frozen=True)
class Job:
    """Pieces of a slide to write, and whether its store is to be made from them then."""

    item: Item
    pieces: tuple[int, ...]
    tiles: int  # in these pieces
    finish: bool


def ingest_slides(
    cohort: Cohort, workers: int, overwrite: bool, ticker: Ticker, prune: bool = False, say: Callable[[str], None] = lambda text: None
) -> list[Record]:
    """Tiles every slide that is not finished yet; returns the records of all, in order.  ticker(title, total): shows progress.
    say: is told what is done again.  workers: processes; 0: all is done in this one, which a slide that crashes it then ends.

    Raises InputError when OUT_DIR was begun with another recipe and `overwrite` is not given, or holds stores of other slides and `prune`
    is not given."""
    with workplace(cohort, overwrite, prune), Workers(cohort, workers) as pool:
        finished = {item.name: (record, record["stamp"] == item.stamp()) for item in cohort.items if (record := cohort.finished(item))}
        known: dict[str, Record] = {name: record for name, (record, current) in finished.items() if current}
        if again := [name for name in finished if name not in known]:
            why = "their file, mask, regions or resolution is another now, or the program is"
            say(f"{len(again)} finished slides are tiled again (first: {again[0]}): {why}")
        if said := [item for item in cohort.items if item.name in known and known[item.name].get("told") != item.told()]:
            with ticker("slides: columns", len(said)) as tick:
                for item, done in pool.each(relabel_slide, said, tick):
                    record = known.pop(item.name)
                    known |= {item.name: cohort.note(item, record)} if done is True else {}
        todo = [item for item in cohort.items if item.name not in known]
        failed: dict[str, Record] = {}
        tiles: dict[str, int] = {}
        with ticker("slides: tissue", len(todo)) as tick:
            for item, found in pool.each(plan_slide, todo, tick):
                if isinstance(found, int):
                    tiles[item.name] = found
                else:
                    failed[item.name] = failure(found)
        ready = sorted((item for item in todo if item.name in tiles), key=lambda item: -tiles[item.name])  # largest first: a short tail
        jobs = [job for item in ready for job in shared_out(cohort, item, tiles[item.name], len(ready) < FEW * workers)]
        with ticker("tiles", sum(job.tiles for job in jobs)) as tick:
            carry_out(cohort, pool, jobs, tick, known, failed)
            unfinished = [Job(item, (), 0, finish=True) for item in ready if item.name not in {*known, *failed}]
            carry_out(cohort, pool, unfinished, tick, known, failed)
        known |= {item.name: cohort.note(item, failed[item.name]) for item in todo if item.name in failed}
        records = [known[item.name] for item in cohort.items]
        write_quarantine(cohort.out / "slides", [[r["source"], why, r.get("traceback", "")] for r in records if (why := trouble(r))])
    return records


def carry_out(
    cohort: Cohort, pool: Workers[Cohort], jobs: Sequence[Job], tick: Tick, known: dict[str, Record], failed: dict[str, Record]
) -> None:
    """Does the jobs, and sorts the slides whose end they were."""
    for job, told in pool.each(tile_slide, jobs, tick):
        if isinstance(told, Died) or (told and "reason" in told):
            failed.setdefault(job.item.name, failure(told))
        elif told:
            known[job.item.name] = cohort.note(job.item, told)


def failure(answer: Record | Died) -> Record:
    return answer if isinstance(answer, dict) else {"reason": str(answer)}


def shared_out(cohort: Cohort, item: Item, tiles: int, few: bool) -> list[Job]:
    """What is to be done for a slide: in one job, or in one for each piece."""
    folder = cohort.work(item)
    left = [k for k in range(count(tiles)) if not table_path(folder, k).exists()]
    if few:
        return [Job(item, (k,), len(rows(tiles, k)), finish=False) for k in left]
    return [Job(item, tuple(left), sum(len(rows(tiles, k)) for k in left), finish=True)]


def relabel_slide(cohort: Cohort, item: Item, tick: Tick) -> bool | Record:
    """Other columns into the slide's store; the answer is True, or what went wrong: then it is tiled again."""

    def work() -> bool:
        relabel(cohort, item)
        return True

    answer = guarded(cohort.out, work)
    tick(1)
    return answer


def plan_slide(cohort: Cohort, item: Item, tick: Tick) -> int | Record:
    """The plan of a slide into its file; the answer is the number of tiles to read, or the record of a failure."""

    def work() -> int:
        where = cohort.plan(item)
        if not where.exists():
            planned(item, cohort.settings).save(where)
        return len(Plan.load(where).x)

    answer = guarded(cohort.out, work)
    tick(1)
    return answer


def tile_slide(cohort: Cohort, job: Job, tick: Tick) -> Record | None:
    """Pieces into their files, and at last the store; the answer is the record of the slide when that is known."""

    def work() -> Record | None:
        folder, plan = cohort.work(job.item), Plan.load(cohort.plan(job.item))
        if job.pieces:
            slide = Slide(job.item.path, cohort.settings.icc)
            try:
                for number in job.pieces:
                    write_piece(slide, plan, number, cohort.settings, folder, tick)
            finally:
                slide.close()
        if not job.finish:
            return None
        save_picture(plan, folder, cohort.picture(job.item.name))
        return write_slide(job.item, plan, cohort.settings, cohort.attrs, folder, cohort.store(job.item))

    return guarded(cohort.out, work)


def guarded(out: Path, work: Callable[[], T]) -> T | Record:
    """What `work` returns, or the reason why not: one bad slide never ends the job. A full disk does."""
    try:
        return work()
    except Unreadable as wrong:
        return {"reason": str(wrong)}
    except InputError:
        raise
    except Exception as wrong:
        if isinstance(wrong, OSError) and wrong.errno in FULL:
            raise InputError(f"the disk of {out} is full; make room and repeat the command: it goes on where it was") from wrong
        return {"reason": f"{type(wrong).__name__}: {wrong}", "traceback": traceback.format_exc()}
