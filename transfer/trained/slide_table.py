"""The scores of tiles, combined to a row for each slide: a table beside that of the tiles.

A slide has the mean probability of its tiles, and the mean of the tenth with the highest: the first is about the whole tissue, the second
about its most suspicious part. No threshold is stored for either, as the head was calibrated on tiles.

Shapes: T tiles of a slide, C labels or classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import FloatArray
from encoders.runtime.escape import format_csv
from encoders.runtime.local_notes import write_private
from encoders.zoo.head_card import Head
from transfer.trained.predict import PredictedBatch

TOP_SHARE = 0.1  # of the tiles of a slide, at least one
SLIDE_DIGITS = 8


@dataclass
class SlideScores:
    """The probabilities of the tiles that were predicted, by slide, and the problems of slides without any."""

    tiles: dict[str, list[FloatArray]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def collect(self, batches: Iterable[PredictedBatch]) -> Iterator[PredictedBatch]:
        """Passes the batches on, and keeps the scores of those that have slides."""
        for batch in batches:
            for i, slide in enumerate(batch.slides):
                if i in batch.problems:
                    self.problems[slide] = batch.problems[i]
                else:
                    self.tiles.setdefault(slide, []).append(batch.probability[i].astype(np.float32))
            yield batch


def combine_tiles(probability: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(C,) the mean over tiles, and (C,) the mean over the tenth of the tiles with the highest values of a column.  probability: (T, C)."""
    count = max(1, round(TOP_SHARE * len(probability)))
    return probability.mean(axis=0), np.sort(probability, axis=0)[-count:].mean(axis=0)


def slide_table_path(out: Path) -> Path:
    """`predictions.slides.csv` beside `predictions.csv`."""
    return out.with_suffix(f".slides{out.suffix}")


def write_slide_table(scores: SlideScores, head: Head, out: Path) -> Path | None:
    """Writes the table of slides beside that of the tiles, for this user alone; returns its path, or None if no image belongs to a slide.

    out: the table of the tiles."""
    path = slide_table_path(out)
    if not scores.tiles and not scores.problems:
        path.unlink(missing_ok=True)
        return None
    header = ["slide", "tiles", *(f"probability_{name}" for name in head.classes), *(f"top_{name}" for name in head.classes), "problem"]
    rows: list[list[object]] = []
    for slide in sorted({*scores.tiles, *scores.problems}):
        tiles, problem = scores.tiles.get(slide, []), scores.problems.get(slide, "")
        numbers = (
            [f"{p:.{SLIDE_DIGITS}g}" for part in combine_tiles(np.stack(tiles)) for p in part.tolist()]
            if tiles
            else [""] * (len(header) - 3)
        )
        rows.append([slide, len(tiles), *numbers, problem])
    write_private(path, format_csv([header, *rows]))
    return path
