"""Tile scores drawn as colours over the overview of their slide.

Shapes: N tiles of the slide, D width of features.
"""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.features.embed_slides import group_by_slide, tile_side
from encoders.features.match_features import match_tiles
from encoders.runtime.arrays import FloatArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write
from encoders.store.store import Store
from encoders.zoo.feature_file import FEATURE_SUFFIXES, read_feature_file


def write_heatmap(store: Store, slide: str | None, scores: Path, out: Path, column: str = "score") -> Path:
    """Writes the heat map as a PNG; returns its path.

    scores: a CSV with the columns `key` and `column`, or the features of a slide (.h5, .pt), which are reduced to their first principal
    component.  slide: its name; None if the store has one slide.  Raises InputError for an unknown slide, a slide without an overview,
    and scores that belong to none of its tiles."""
    rows = group_by_slide(store)
    if slide is None and len(rows) > 1:
        raise InputError(f"the store has {len(rows)} slides; choose one with --slide, e.g. {next(iter(rows))!r}")
    name = slide or next(iter(rows))
    if name not in rows:
        raise unknown_name_error("slide", name, rows)
    if out.suffix.lower() != ".png":
        raise InputError(f"a heat map is a PNG file, and the output is {str(out)!r}; choose a name like {out.stem}.png")
    own = rows[name]
    stored = scores.suffix.lower() in FEATURE_SUFFIXES
    if stored:
        values, first = first_component_scores(scores, store, own), "no tile matches its keys or coordinates"  # (N,)
    else:
        known = read_scores(scores, column)
        values = np.array([known.get(key, np.nan) for key in store.column("key")[own].tolist()])  # (N,)
        first = f"its first key is {next(iter(known), '(none)')!r}"
    if not np.isfinite(values).any():
        raise InputError(f"{scores} has a score for none of the {len(own)} tiles of {name}; {first}")
    draw_heatmap(store, name, own, values, out, "first principal component" if stored else column)
    return out


def read_scores(path: Path, column: str) -> dict[str, float]:
    """The score of each key, from a CSV. Raises InputError if it cannot be read or lacks a column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            for needed in ("key", column):
                if needed not in (lines.fieldnames or ()):
                    raise unknown_name_error("column", needed, lines.fieldnames or (), f"({path})")
            return {line["key"]: float(line[column]) for line in lines if line[column].strip()}
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: the column {column!r} holds a value that is not a number ({error})") from error


def first_component_scores(path: Path, store: Store, rows: NDArray[np.int64]) -> FloatArray:
    """(N,) the first principal component of the features of each tile, in standard deviations; NaN without features.

    path: of features, see `match_features`.  Raises InputError if the file holds none, or does not tell to which tiles they belong."""
    at, features = match_tiles(path, read_feature_file(path), store, rows)
    x = features.astype(np.float64)
    x -= x.mean(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    along = x @ (axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()]))  # the sign is arbitrary: the largest entry is positive
    return np.where(at >= 0, (along / max(along.std(), 1e-12))[at], np.nan)


def draw_heatmap(store: Store, name: str, rows: NDArray[np.int64], values: FloatArray, out: Path, label: str) -> None:
    """Draws the overview, and next to it the overview with coloured tiles, a scale and outlines of tiles without a score.

    values: (N,) score of each row, NaN: none.  label: of the colour scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image

    part, first = store.locate(int(rows[0]))
    encoded, facts = part.picture("overview"), part.attrs.get("slide")
    if encoded is None or not isinstance(facts, dict):
        raise InputError(f"{part.path} has no overview of its slide; stores written by `encoders ingest wsi` have one")
    overview = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    ox, oy, wide, high = facts["bounds"]
    side = tile_side(part, float(store.column("mpp")[rows[0]]), part.image(first).shape[0])
    corners = np.stack([store.column("x")[rows], store.column("y")[rows]], axis=1)
    figure = Figure(figsize=(11, 1.2 + 5 * min(max(high / wide, 0.3), 2.0)), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for panel in (left, right):
        panel.imshow(overview, extent=(ox, ox + wide, oy + high, oy), interpolation="antialiased")
        panel.set_xticks([])
        panel.set_yticks([])
    scored = np.isfinite(values)
    colours = ScalarMappable(Normalize(*colour_limits(values[scored])), "coolwarm")
    tiles = [Rectangle((x, y), side, side) for x, y in corners[scored]]
    right.add_collection(PatchCollection(tiles, facecolor=colours.to_rgba(values[scored], alpha=0.55), edgecolor="none"))
    unscored = [Rectangle((x, y), side, side) for x, y in corners[~scored]]
    right.add_collection(PatchCollection(unscored, facecolor="none", edgecolor="0.3", linewidth=0.5))
    figure.colorbar(colours, ax=right, label=label, shrink=0.8)
    left.set_title(name, fontsize=9)
    right.set_title(
        f"{int(scored.sum())} tiles of {side} px at level 0" + (f", {len(unscored)} unscored (outlined)" if unscored else ""), fontsize=9
    )
    with atomic_write(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def colour_limits(values: FloatArray) -> tuple[float, float]:
    """The ends of the colour scale: [0, 1] if all values are in this range, otherwise the smallest and largest value."""
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
