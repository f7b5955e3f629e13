"""Which tiles of a slide decide: the attention of the protocol `mil`, written for every tile and drawn over the slide.

The protocol is fitted again as a benchmark fits it, which gives the same numbers; a record keeps no network.

Shapes: K tiles of a slide.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.features.heatmap import write_heatmap
from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.escape import format_csv
from encoders.store.store import Store
from transfer.bench.lazy_features import LazyFeatures
from transfer.bench.slide_bags import SlideBags, gather_slides
from transfer.explain.write_folder import private_folder
from transfer.protocols import mil
from transfer.protocols.common import Bags
from transfer.tasks.load import LoadedTask
from transfer.tasks.options import Part

SLIDES_NAME = "slides.csv"
SHARE = "times_equal"  # attention times K: 1 is what a tile has if all have the same


@dataclass(frozen=True)
class SlideAttention:
    """The tiles of one slide. rows: (K,) of the store.  weight: (K,), sums to 1.  probability: (C,) of the slide."""

    slide: str
    rows: IntArray
    weight: FloatArray
    probability: FloatArray


@dataclass
class WrittenAttention:
    """What was written. undrawn: slides without a picture, whose store has no overview of them."""

    slides: list[SlideAttention]
    undrawn: list[str] = field(default_factory=list)


def fit_attention_of(cfg: mil.Config, loaded: LoadedTask, features: LazyFeatures) -> mil.FittedAttention:
    """The attention of a task, fitted on its train slides and chosen on its validation slides. Raises InputError for another pooling."""
    if cfg.pooling != "attention":
        raise InputError(f"mil.pooling is {cfg.pooling}, which has no attention: every tile counts by the same rule; leave it out")
    train, val = (build_bags(loaded, gather_slides(loaded, loaded.split.rows(part)), features) for part in ("train", "val"))
    fitted = mil.fit(cfg, train, val)
    assert isinstance(fitted, mil.FittedAttention), "this pooling is fitted so"
    return fitted


def build_bags(loaded: LoadedTask, slides: SlideBags, features: LazyFeatures) -> Bags:
    """The features of slides as the protocol takes them."""
    return Bags(np.asarray(features()[slides.rows]), slides.ends, slides.y, slides.key, slides.patient, loaded.task.kind)


def attend_slides(
    fitted: mil.FittedAttention, loaded: LoadedTask, features: LazyFeatures, part: Part, names: Sequence[str] = ()
) -> list[SlideAttention]:
    """The attention of the slides of a part; of these slides if names are given. Raises InputError for a slide that is not in the part."""
    slides = gather_slides(loaded, loaded.split.rows(part))
    known = slides.key.astype(str).tolist()
    if unknown := [name for name in names if name not in known]:
        raise unknown_name_error(f"slide in the part {part}", unknown[0], known)
    bags = build_bags(loaded, slides, features)
    weights, scores = fitted.tile_weights(bags), fitted.scores(bags)
    wanted = [known.index(name) for name in names] or range(len(known))
    return [
        SlideAttention(known[i], slides.rows[slides.ends[i] : slides.ends[i + 1]].astype(np.int64), weights[i], scores[i]) for i in wanted
    ]


def write_attention(slides: Sequence[SlideAttention], loaded: LoadedTask, out: Path, progress: Callable[[int], None]) -> WrittenAttention:
    """Writes a folder with a table for each slide, and a picture where the store has an overview of it. Only this user may read it.

    The table has key, attention (sums to 1), and attention times the number of tiles."""
    done, key = WrittenAttention(list(slides)), loaded.store.column("key").astype(str)
    lines: list[list[object]] = [["number", "slide", "tiles", *(f"probability_{name}" for name in loaded.task.classes), "table", "picture"]]
    with private_folder(out) as folder:
        for number, one in enumerate(slides, 1):
            table, picture = folder / f"{number:05d}.csv", folder / f"{number:05d}.png"
            table.write_text(format_csv(list_attention(one, key)), encoding="utf-8")
            if has_overview(loaded.store, one.rows):
                write_heatmap(loaded.store, one.slide, table, picture, SHARE)
            else:
                done.undrawn.append(one.slide)
            scores = [f"{p:.8g}" for p in one.probability.tolist()]
            lines.append([number, one.slide, len(one.rows), *scores, table.name, picture.name if picture.exists() else ""])
            progress(1)
        (folder / SLIDES_NAME).write_text(format_csv(lines), encoding="utf-8")
        for path in folder.iterdir():
            path.chmod(0o600)
    return done


def list_attention(one: SlideAttention, key: Array) -> list[list[object]]:
    """The rows of the table of a slide, with a header, in the order of the store."""
    rows = zip(key[one.rows].tolist(), one.weight.tolist(), strict=True)
    return [["key", "attention", SHARE], *([name, f"{a:.8g}", f"{a * len(one.rows):.8g}"] for name, a in rows)]


def has_overview(store: Store, rows: IntArray) -> bool:
    """Whether the store has what a slide is drawn with: its overview, and where its tiles are."""
    part, _ = store.locate(int(rows[0]))
    placed = all(store.has_column(name) for name in ("slide", "x", "y", "mpp"))
    return placed and isinstance(part.attrs.get("slide"), dict) and part.picture("overview") is not None
