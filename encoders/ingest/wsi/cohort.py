"""The slides of one ingest, and the folder of stores that it writes.

OUT_DIR holds NAME.h5 for every slide, recipe.json, slides/ (one record and one thumbnail per slide) and, during the ingest, the plan and
the shards of a slide in .work/NAME. A slide is finished when its record exists; unfinished files that `kill -9` leaves are ignored.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from encoders import __version__
from encoders.ingest.shards import describe_difference, hold_lock
from encoders.ingest.wsi.records import SlideRecord
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_shard import DAMAGED
from encoders.runtime.errors import InputError
from encoders.runtime.files import ensure_writable, read_json, write_json
from encoders.runtime.json_types import Json

MAX_NON_GLASS_REJECTED = 0.3  # share; round cores lose up to a fifth at their borders


@dataclass(frozen=True)
class Cohort:
    """The slides of one command, and the paths of its outputs. Picklable."""

    items: tuple[SlideItem, ...]
    settings: TilingSettings
    out: Path
    dataset: str
    modality: str = "histology"
    broken: tuple[tuple[str, str], ...] = ()  # what was found among the slides and cannot be read, with the reason

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "items": ()}  # a worker receives the slide that it reads

    @property
    def attrs(self) -> dict[str, Json]:
        """Attributes that every store of the cohort has."""
        return {"dataset": self.dataset, "modality": self.modality, "recipe": self.recipe}

    @property
    def recipe(self) -> dict[str, Json]:
        """Everything that determines the tiles of a slide, except the slide."""
        named: dict[str, Json] = {
            "tool": f"isograft {__version__}",
            "command": "ingest wsi",
            "dataset": self.dataset,
            "modality": self.modality,
        }
        return named | self.settings.recipe()

    def store_path(self, item: SlideItem) -> Path:
        return self.out / f"{item.name}.h5"

    def work_folder(self, item: SlideItem) -> Path:
        return self.out / ".work" / item.name

    def plan_path(self, item: SlideItem) -> Path:
        return self.work_folder(item) / "plan.npz"

    def thumbnail_path(self, name: str) -> Path:
        return self.out / "slides" / f"{name}.jpg"

    def read_finished_record(self, item: SlideItem) -> SlideRecord | None:
        """The record of a tiled slide, which may have changed since; None if it was not tiled, or failed."""
        path = self.out / "slides" / f"{item.name}.json"
        known: SlideRecord | None = read_json(path) if path.exists() else None
        return known if known and "tiles" in known and self.store_path(item).exists() else None

    def save_record(self, item: SlideItem, record: SlideRecord) -> SlideRecord:
        """Saves the record of a slide, which finishes it. A failed slide has no store, and is tried again at the next run."""
        stamp = (self.work_folder(item) / "stamp").read_text()  # of before the slide was read: it may have changed since
        stamps: SlideRecord = {"name": item.name, "source": item.source, "stamp": stamp, "told": item.metadata_stamp()}
        record = {**record, **stamps}
        if "tiles" not in record:
            self.store_path(item).unlink(missing_ok=True)  # from an earlier version of the slide
        write_json(self.out / "slides" / f"{item.name}.json", record)
        shutil.rmtree(self.work_folder(item), ignore_errors=True)
        return record


def describe_problem(record: SlideRecord) -> str:
    """Why a slide has no store, or an incomplete one; "" if there is no problem."""
    if "reason" in record:
        return record["reason"]
    damaged = record["rejected"].get(DAMAGED, 0)
    first = f" (first: {record['damage'][0]})" if record.get("damage") else ""
    return f"is damaged: {damaged} of its tiles cannot be read; the store holds the others{first}" if damaged else ""


def describe_doubt(record: SlideRecord) -> str:
    """Why the tiles of a slide should be inspected, although it was tiled; "" if there is no reason."""
    facts = record.get("facts", {})
    area, lost = facts.get("non_glass", 0.0), facts.get("non_glass_rejected", 0.0)
    if not area or lost <= MAX_NON_GLASS_REJECTED * area:
        return ""
    return f"{lost / area:.0%} of its area that is not glass was rejected"


@contextmanager
def lock_cohort_folder(cohort: Cohort, overwrite: bool, prune: bool = False) -> Iterator[None]:
    """Locks OUT_DIR against a second ingest, and saves the recipe of this ingest there.

    Raises InputError if OUT_DIR was started with another recipe, unless `overwrite`, which removes its content; and if it holds stores of
    slides that are not in this cohort, unless `prune`, which removes those."""
    out, path, marker = cohort.out, cohort.out / "recipe.json", cohort.out / ".work" / "anew"
    if out.is_file():
        raise InputError(f"{out} is a file; name a folder for the stores, one per slide")
    ensure_writable(out / ".work")
    with hold_lock(out / ".work" / "lock", out):
        if overwrite and not (marker.exists() and path.exists() and read_json(path) == cohort.recipe):
            if path.exists():
                clear_outputs(out)
            marker.touch()  # if interrupted, the same command keeps the new outputs
        if path.exists():
            if why := describe_difference({"recipe": read_json(path), "items": []}, {"recipe": cohort.recipe, "items": []}):
                raise InputError(
                    f"{out} was written with other settings: {why}. Write to another folder, or pass --overwrite to rebuild all of it"
                )
        elif any(out.glob("*.h5")):
            raise InputError(f"{out} holds stores that `encoders ingest wsi` did not write; write to another folder")
        check_foreign_stores(cohort, prune)
        write_json(path, cohort.recipe)
        for left in (*out.glob(".*.part"), *out.glob("slides/.*.part"), *out.glob(".work/*/.*.part")):
            left.unlink()  # from a killed process, which held the lock: no process writes it now
        for item in cohort.items:
            drop_stale_work(cohort, item)
        yield
        shutil.rmtree(out / ".work")


def clear_outputs(out: Path) -> None:
    """Removes the stores that have a record, the records and the unfinished work; recipe.json last, so that it can be repeated."""
    for work in out.glob(".work/*/"):
        (out / f"{work.name}.h5").unlink(missing_ok=True)  # if it was killed between store and record
        shutil.rmtree(work)
    for record in out.glob("slides/*.json"):
        (out / f"{record.stem}.h5").unlink(missing_ok=True)
        record.unlink()
    (out / "recipe.json").unlink()


def check_foreign_stores(cohort: Cohort, prune: bool) -> None:
    """Raises InputError for stores of slides outside the cohort, which a pattern OUT_DIR/*.h5 would include; with `prune`, removes them."""
    out, names = cohort.out, {item.name for item in cohort.items}
    known = {path.name.removesuffix(".json") for path in out.glob("slides/*.json")} | {path.name for path in out.glob(".work/*/")}
    stores = {path.name.removesuffix(".h5") for path in out.glob("*.h5")}
    if foreign := sorted(stores - names - known):
        raise InputError(f"{out}/{foreign[0]}.h5 is not a store of this command, and '{out}/*.h5' would include it; move it elsewhere")
    gone = sorted(stores - names)
    if gone and not prune:
        raise InputError(
            f"{out} holds {len(gone)} stores of slides that are not among these {len(names)} (first: {gone[0]}), and "
            f"'{out}/*.h5' would include them; pass --prune to remove them, or write to another folder"
        )
    if gone and not stores & names:
        raise InputError(f"--prune would remove all {len(gone)} stores of {out} (first: {gone[0]}); check the folder of slides")
    for name in gone:
        (cohort.out / f"{name}.h5").unlink()
        (cohort.out / "slides" / f"{name}.json").unlink(missing_ok=True)
        cohort.thumbnail_path(name).unlink(missing_ok=True)


def drop_stale_work(cohort: Cohort, item: SlideItem) -> None:
    """Removes unfinished work if the slide, its mask, its regions or its resolution have changed since."""
    stamp = cohort.work_folder(item) / "stamp"
    if cohort.work_folder(item).exists() and not (stamp.exists() and stamp.read_text() == item.content_stamp()):
        shutil.rmtree(cohort.work_folder(item))
    cohort.work_folder(item).mkdir(exist_ok=True)
    stamp.write_text(item.content_stamp())
