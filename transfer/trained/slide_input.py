"""Whole slides that were never tiled: each becomes a temporary store of tiles, as the slides of a head's task did.

One slide at a time is on disk and none in memory. A slide that cannot be read, or has no tile, is a problem with its reason.
"""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from encoders.ingest.wsi.cohort import Cohort, describe_problem
from encoders.ingest.wsi.find_slides import list_slide_items
from encoders.ingest.wsi.ingest_slides import ingest_slides
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.source import one_tick
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.store.store import Store
from encoders.zoo.head_card import Head

SLIDE_SUFFIXES = {".svs", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi"}
TILES_COMMAND = "ingest wsi"  # in the recipes of stores
NOT_RESTORED = ("include", "exclude", "max_tiles")  # regions of the task's slides, and a sample of their tiles: new slides have all


@dataclass(frozen=True)
class FoundSlides:
    """The slides of a folder, or single ones, and how they become tiles. broken: name -> why it cannot be read."""

    items: Sequence[SlideItem]
    settings: TilingSettings
    broken: dict[str, str]

    def __len__(self) -> int:
        return len(self.items) + len(self.broken)


class TiledSlide(NamedTuple):
    """A slide by its name, with the store of its tiles, or why there is none."""

    name: str
    store: Store | None
    problem: str = ""


def names_slides(paths: Sequence[Path]) -> bool:
    """Whether the paths name whole slides: by the suffix of a file, or of one file in a folder."""
    return any(
        any(file.suffix.lower() in SLIDE_SUFFIXES for file in path.rglob("*")) if path.is_dir() else path.suffix.lower() in SLIDE_SUFFIXES
        for path in paths
    )


def find_slides(paths: Sequence[Path], head: Head, model: str, mpp: float | None = None) -> FoundSlides:
    """The slides that the paths name.  mpp: micrometres per pixel of all of them, instead of their metadata.

    Raises InputError if the head's task has no tiles of slides that could be imitated."""
    settings = restore_tiling(head, model)
    items: list[SlideItem] = []
    broken: dict[str, str] = {}
    for path in paths:
        found, _, unreadable = list_slide_items(path, mpp, None, None, None, (), (), None, (), ())
        items += found
        broken |= {one.name: one.reason for one in unreadable}
    names = [item.name for item in items]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"two slides are called {repeated}; predict on them by a command each, or on the folder that holds both")
    return FoundSlides(items, settings, broken)


def restore_tiling(head: Head, model: str) -> TilingSettings:
    """The settings of the tiles of the head's task; of every slide all tiles with tissue.

    Raises InputError for a task without tiles of slides, with tiles of several forms, or whose tiles a model or files chose."""
    recipes = [form.tiling for form in head.images if form.tiling is not None]
    advice = "make tiles of the slides with `encoders ingest wsi`, and predict on these stores"
    if not recipes or len(recipes) < len(head.images):
        raise InputError(
            f"the task of {model} has images that are no tiles of slides, so it is not known how slides become tiles; {advice}"
        )
    if len(recipes) > 1:
        raise InputError(f"the task of {model} has tiles of {len(recipes)} kinds; {advice}")
    for key, what in (("tiles", "at coordinates of files"), ("tissue_model", "in tissue that a network found")):
        if key in recipes[0]:
            raise InputError(f"the tiles of the task of {model} are {what}, which new slides do not have; {advice}")
    known = {field.name for field in fields(TilingSettings)} - set(NOT_RESTORED)
    return TilingSettings(**{name: value for name, value in recipes[0].items() if name in known})


def describe_tiling(recipe: dict[str, Json]) -> dict[str, Json] | None:
    """What a head remembers of the recipe of a store of tiles; None for another store."""
    if recipe.get("command") != TILES_COMMAND:
        return None
    known = {field.name for field in fields(TilingSettings)} | {"tiles", "tissue_model"}
    kept = {name: value for name, value in recipe.items() if name in known - set(NOT_RESTORED)}
    return kept | ({"tissue_model": True} if "tissue_model" in kept else {})


def tile_slides(found: FoundSlides, workers: int = 0) -> Iterator[TiledSlide]:
    """Yields every slide with its tiles; its store exists until the next one is asked for.

    workers: processes that read tiles; 0: this process, which ends if a slide crashes it."""
    for name, reason in found.broken.items():
        yield TiledSlide(name, None, reason)
    with tempfile.TemporaryDirectory(prefix="isograft-slides-") as folder:
        for item in found.items:
            out = Path(folder) / item.name
            (record,) = ingest_slides(Cohort((item,), found.settings, out, "slides"), workers, overwrite=False, ticker=one_tick(None))
            problem = describe_problem(record)
            path = out / f"{item.name}.h5"
            if not path.exists():
                yield TiledSlide(item.name, None, problem or "it has no tile with tissue")
                continue
            with closing(Store.open(str(path))) as store:
                yield TiledSlide(item.name, store, problem)
            shutil.rmtree(out)
