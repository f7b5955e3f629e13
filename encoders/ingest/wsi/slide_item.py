"""One slide of a cohort: where its files are, and what a table says about it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encoders.ingest.source import file_stamp
from encoders.store.write import TextValues, is_known

REGION_PAINT_VERSION = 2  # version of `regions.painted`: raise it when regions would hold other tiles


@dataclass(frozen=True)
class SlideItem:
    """A slide to be tiled; picklable."""

    name: str  # of its store, unique in the cohort
    path: Path
    source: str  # relative to the folder of slides
    mpp: float | None = None  # um a pixel at L0, where the user says so
    mask: Path | None = None
    regions: Path | None = None
    said: Mapping[str, str] = field(default_factory=dict)  # patient, split, study, slide
    meta: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()  # columns of meta and labels that hold numbers in every slide; the others hold words

    def stamp(self) -> str:
        """Changes when anything that decides about this slide's tiles does."""
        files = [file_stamp(p) if p and p.exists() else "-" for p in (self.path, self.mask, self.regions)]
        return "|".join([*files, f"mpp={self.mpp}", *([f"regions painted by {REGION_PAINT_VERSION}"] if self.regions else [])])

    def told(self) -> str:
        """Changes when anything else that its store says of the slide does."""
        return json.dumps([dict(self.said), dict(self.meta), dict(self.labels), sorted(self.numbers)])

    def column(self, name: str, value: str, rows: int) -> Any:
        """A value of meta or labels for all tiles of the slide, typed as in the other slides of the cohort."""
        if name in self.numbers:
            return np.full(rows, float(value) if is_known(value) else np.nan)
        return TextValues([value] * rows)
