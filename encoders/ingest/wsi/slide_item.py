"""One slide of a cohort: its files, and its fields from the table and the path."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.ingest.source import file_stamp
from encoders.ingest.wsi.slide_parts import stamp_parts
from encoders.runtime.unknown_values import is_unknown
from encoders.store.write import ColumnValues, TextValues

REGION_PAINT_VERSION = 3  # version of `paint_regions`: increase it if regions would hold other tiles


@dataclass(frozen=True)
class SlideItem:
    """A slide to tile. Picklable."""

    name: str  # name of its store, unique in the cohort
    path: Path
    source: str  # relative to the folder of slides
    mpp: float | None = None  # micrometres per pixel at L0, if the user gives it
    mask: Path | None = None
    regions: Path | None = None
    index_fields: Mapping[str, str] = field(default_factory=dict)  # patient, split, study, slide
    meta: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()  # columns of meta and labels that hold numbers in every slide; the others hold text
    coords: Path | None = None  # file of the coordinates of its tiles
    coords_problem: str = ""  # why it has none, although the others of the cohort have
    parts: tuple[Path, ...] = ()  # its files beside `path`, see `list_slide_parts`

    def content_stamp(self) -> str:
        """Changes when anything that determines the tiles of the slide changes."""
        files = [file_stamp(p) if p and p.exists() else "-" for p in (self.path, self.mask, self.regions)]
        painted = f"regions painted by {REGION_PAINT_VERSION}" if self.regions else ""
        placed = f"coordinates {file_stamp(self.coords)}" if self.coords and self.coords.exists() else self.coords_problem
        return "|".join([*files, f"mpp={self.mpp}", *filter(None, (painted, stamp_parts(self.path, self.parts), placed))])

    def metadata_stamp(self) -> str:
        """Changes when any other content of its store changes."""
        return json.dumps([dict(self.index_fields), dict(self.meta), dict(self.labels), sorted(self.numbers)])

    def column(self, name: str, value: str, rows: int) -> ColumnValues:
        """A value of meta or labels, repeated for all tiles of the slide, with the same type as in the other slides of the cohort."""
        if name in self.numbers:
            return np.full(rows, np.nan if is_unknown(value) else float(value))
        return TextValues([value] * rows)
