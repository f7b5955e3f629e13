"""A folder of slides and the folder of stores they become.

OUT_DIR holds NAME.h5 for every slide, recipe.json, slides/ (a record and a picture a slide) and, while a slide is worked on, its plan and
pieces in .work/NAME. A slide is finished when its record says so; what `kill -9` leaves is whole or ignored.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders import __version__
from encoders.ingest.shards import describe_difference, hold_lock
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_shard import DAMAGED
from encoders.runtime.errors import InputError
from encoders.runtime.files import ensure_writable, read_json, write_json

SlideRecord = dict[
    str, Any
]  # of a slide: name, source, stamp, told, and either tiles, rejected, seconds, facts, or a reason (and a traceback)


@dataclass(frozen=True)
class Cohort:
    """The slides of one command, and where what becomes of them is kept. Picklable."""

    items: tuple[SlideItem, ...]
    settings: TilingSettings
    out: Path
    dataset: str
    modality: str = "histology"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "items": ()}  # a worker is handed the slide that it has to read

    @property
    def attrs(self) -> dict[str, Any]:
        """What every store of the cohort says about itself."""
        return {"dataset": self.dataset, "modality": self.modality, "recipe": self.recipe}

    @property
    def recipe(self) -> dict[str, Any]:
        """All that determines the tiles of a slide besides the slide."""
        named = {"tool": f"isograft {__version__}", "command": "ingest wsi", "dataset": self.dataset, "modality": self.modality}
        return named | self.settings.recipe()

    def store(self, item: SlideItem) -> Path:
        return self.out / f"{item.name}.h5"

    def work(self, item: SlideItem) -> Path:
        return self.out / ".work" / item.name

    def plan(self, item: SlideItem) -> Path:
        return self.work(item) / "plan.npz"

    def picture(self, name: str) -> Path:
        return self.out / "slides" / f"{name}.jpg"

    def finished(self, item: SlideItem) -> SlideRecord | None:
        """What is known about a slide that was tiled, be it as it is now or not; None for one that was not, or failed."""
        path = self.out / "slides" / f"{item.name}.json"
        known: SlideRecord | None = read_json(path) if path.exists() else None
        return known if known and "tiles" in known and self.store(item).exists() else None

    def note(self, item: SlideItem, record: SlideRecord) -> SlideRecord:
        """Keeps the record of a slide, which finishes it. A slide that failed has no store, and is tried again next time."""
        record = {**record, "name": item.name, "source": item.source, "stamp": item.stamp(), "told": item.told()}
        if "tiles" not in record:
            self.store(item).unlink(missing_ok=True)  # of an earlier version of the slide
        write_json(self.out / "slides" / f"{item.name}.json", record)
        shutil.rmtree(self.work(item), ignore_errors=True)
        return record


def describe_problem(record: SlideRecord) -> str:
    """Why a slide is not, or not whole, among the stores; "" when all is well."""
    if "reason" in record:
        return str(record["reason"])
    damaged = record["rejected"].get(DAMAGED, 0)
    return f"is damaged: {damaged} of its tiles cannot be read; the store holds the others" if damaged else ""


@contextmanager
def lock_cohort_folder(cohort: Cohort, overwrite: bool, prune: bool = False) -> Iterator[None]:
    """OUT_DIR, locked against a second ingest, with the recipe of this one.

    Raises InputError when it was begun with another recipe, unless `overwrite`, which removes what it holds; and when it holds stores of
    slides that are not of this cohort, unless `prune`, which removes those."""
    out, where, anew = cohort.out, cohort.out / "recipe.json", cohort.out / ".work" / "anew"
    if out.is_file():
        raise InputError(f"{out} is a file; name the folder for the stores, one a slide")
    ensure_writable(out / ".work")
    with hold_lock(out / ".work" / "lock", out):
        if overwrite and not (anew.exists() and where.exists() and read_json(where) == cohort.recipe):
            if where.exists():
                clear_outputs(out)
            anew.touch()  # interrupted, the same command goes on with what it made
        if where.exists():
            if why := describe_difference({"recipe": read_json(where), "items": []}, {"recipe": cohort.recipe, "items": []}):
                raise InputError(f"{out} was made differently: {why}. Write to another folder, or pass --overwrite to make all of it anew")
        elif any(out.glob("*.h5")):
            raise InputError(f"{out} holds stores that are not of `encoders ingest wsi`; write to another folder")
        check_foreign_stores(cohort, prune)
        write_json(where, cohort.recipe)
        for left in (*out.glob(".*.part"), *out.glob("slides/.*.part"), *out.glob(".work/*/.*.part")):
            left.unlink()  # what a killed process was writing: it held the lock, so nobody is writing it now
        for item in cohort.items:
            drop_stale_work(cohort, item)
        yield
        shutil.rmtree(out / ".work")


def clear_outputs(out: Path) -> None:
    """Removes the stores that records speak of, the records and the work begun; recipe.json last, so that it can be done again."""
    for work in out.glob(".work/*/"):
        (out / f"{work.name}.h5").unlink(missing_ok=True)  # killed between a store and its record
        shutil.rmtree(work)
    for record in out.glob("slides/*.json"):
        (out / f"{record.stem}.h5").unlink(missing_ok=True)
        record.unlink()
    (out / "recipe.json").unlink()


def check_foreign_stores(cohort: Cohort, prune: bool) -> None:
    """Refuses, or removes, stores of slides that are no longer among those of the cohort: a pattern OUT_DIR/*.h5 would train on them."""
    out, names = cohort.out, {item.name for item in cohort.items}
    made = {path.name.removesuffix(".json") for path in out.glob("slides/*.json")} | {path.name for path in out.glob(".work/*/")}
    found = {path.name.removesuffix(".h5") for path in out.glob("*.h5")}
    if foreign := sorted(found - names - made):
        raise InputError(f"{out}/{foreign[0]}.h5 is no store of this command, and '{out}/*.h5' would take it in; move it elsewhere")
    gone = sorted(found - names)
    if gone and not prune:
        raise InputError(
            f"{out} holds {len(gone)} stores of slides that are not among these {len(names)} (first: {gone[0]}), and "
            f"'{out}/*.h5' would take them in: pass --prune to remove them, or write to another folder"
        )
    if gone and not found & names:
        raise InputError(f"--prune would remove all {len(gone)} stores of {out} (first: {gone[0]}): is this the right folder of slides?")
    for name in gone:
        (cohort.out / f"{name}.h5").unlink()
        (cohort.out / "slides" / f"{name}.json").unlink(missing_ok=True)
        cohort.picture(name).unlink(missing_ok=True)


def drop_stale_work(cohort: Cohort, item: SlideItem) -> None:
    """Drops work that was begun when the slide, its mask, its regions or its row in the table were others."""
    stamp = cohort.work(item) / "stamp"
    if cohort.work(item).exists() and not (stamp.exists() and stamp.read_text() == item.stamp()):
        shutil.rmtree(cohort.work(item))
    cohort.work(item).mkdir(exist_ok=True)
    stamp.write_text(item.stamp())
