"""A folder of whole-slide images, tiled at one resolution into a folder of stores, one per slide."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.ingest.source import IngestResult, ItemCollection, describe_default_dataset, to_pixel_unit
from encoders.ingest.tables.load_tables import Labels
from encoders.ingest.workers import Tick, available_cpus
from encoders.ingest.wsi.cohort import Cohort, describe_problem
from encoders.ingest.wsi.find_slides import list_slide_items
from encoders.ingest.wsi.ingest_slides import Ticker, ingest_slides
from encoders.ingest.wsi.merge_slide import describe_tile_geometry
from encoders.ingest.wsi.records import SlideRecord
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.slide_table import TableJoin
from encoders.ingest.wsi.summary import write_summary
from encoders.runtime.json_types import Json
from encoders.store.write import full_range_unit


class SlideSource(ItemCollection[SlideItem]):
    """The slides of a folder, or one slide, and the settings of their tiles."""

    channels = 3

    def __init__(
        self,
        slides: str | Path,
        settings: TilingSettings | None = None,
        *,
        slide_mpp: float | None = None,
        masks: Path | None = None,
        regions: Path | None = None,
        labels: Labels | None = None,
        label: Sequence[str] = (),
        meta: Sequence[str] = (),
        join: TableJoin | None = None,
        coords: Path | None = None,
        pattern: str | None = None,
        dataset: str | None = None,
        modality: str = "histology",
    ):
        """slide_mpp: micrometres per pixel of the slides, instead of their metadata.  masks: folder of tissue masks.
        regions: GeoJSON file or folder.  labels: table or tables of slides.  label, meta: columns of the table.  join: of tables and rows.
        coords: HDF5 file of coordinates, or folder of these; the settings are then those of `for_coordinates`.
        pattern: regular expression for the paths.

        Raises InputError for options that do not fit the files."""
        slides, self.settings = Path(slides), settings or TilingSettings()
        if coords and not self.settings.coords:
            self.settings = self.settings.for_coordinates()
        include, exclude = self.settings.include, self.settings.exclude
        self.modality, self.dataset, self.codec = modality, dataset or slides.resolve().stem, self.settings.codec
        items, self.notes, self.broken = list_slide_items(
            slides, slide_mpp, masks, regions, labels, label, meta, pattern, include, exclude, self.dataset, join, coords
        )
        self._items = tuple(items)
        self.notes += [] if dataset else [describe_default_dataset(self.dataset)]
        self.unit = to_pixel_unit(full_range_unit(np.uint8))
        self.geometry = describe_tile_geometry(self.settings)

    def items(self) -> Sequence[SlideItem]:
        return self._items

    def name(self, item: SlideItem) -> str:
        return item.name

    def stamp(self, item: SlideItem) -> str:
        return item.content_stamp()

    def recipe(self) -> dict[str, Json]:
        return self.cohort(Path()).recipe

    def cohort(self, out: Path) -> Cohort:
        """The slides with the folder of their stores."""
        return Cohort(self._items, self.settings, out, self.dataset, self.modality, tuple(self.broken))


@dataclass(frozen=True, kw_only=True)
class SlideSummary(IngestResult):
    """What an ingest of slides did. `quarantined` includes slides of which only some tiles could be read."""

    cohort: Cohort
    records: list[SlideRecord]


def ingest_slide_source(
    source: SlideSource,
    out: str | Path,
    workers: int = 1,
    overwrite: bool = False,
    tick: Tick | None = None,
    *,
    ticker: Ticker | None = None,
    prune: bool = False,
    notify: Callable[[str], None] = lambda text: None,
) -> SlideSummary:
    """Writes one store per slide to the folder `out`, with slides.csv and overview.html. If interrupted, the same call resumes.

    workers: number of processes; 0: as many as the scheduler assigned; 1: this process.
    tick: called with the number of slides or tiles done since the last call.
    ticker: shows the progress of each phase, instead of `tick`.  prune, notify: see `ingest_slides`.
    Raises InputError if `out` was started with another recipe (unless `overwrite`), or holds other stores."""
    cohort = source.cohort(Path(out))
    processes = 0 if workers == 1 else workers or available_cpus()
    records = ingest_slides(cohort, processes, overwrite, ticker or one_tick(tick), prune, notify)
    write_summary(cohort, records)
    tiles = sum(record.get("tiles", 0) for record in records)
    bad = [(record["source"], reason) for record in records if (reason := describe_problem(record))]
    return SlideSummary(out=cohort.out, rows=tiles, quarantined=bad, cohort=cohort, records=records)


def one_tick(tick: Tick | None) -> Ticker:
    """A ticker that reports every phase to the same function."""

    @contextmanager
    def ticker(title: str, total: int) -> Iterator[Tick]:
        yield tick or (lambda n: None)

    return ticker
