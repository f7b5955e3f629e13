"""Scores of tiles as colours over a slide's overview.

Shapes: N tiles of the slide, D width of features.
"""

import csv
import io
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.features.embed_slides import group_by_slide, tile_side
from encoders.runtime.arrays import FloatArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write
from encoders.store.store import Store


def write_heatmap(store: Store, slide: str | None, scores: Path, out: Path, column: str = "score") -> Path:
    """Writes the picture; returns its path.  scores: a CSV with `key` and `column`, or features by slide (.h5), shown by their first
    principal component.  slide: may be left out where the store has one.

    Raises InputError for an unknown slide, a slide without overview, and scores that belong to none of its tiles."""
    rows = group_by_slide(store)
    if slide is None and len(rows) > 1:
        raise InputError(f"there are {len(rows)} slides: choose one with --slide, e.g. {next(iter(rows))!r}")
    name = slide or next(iter(rows))
    if name not in rows:
        raise unknown_name_error("slide", name, rows)
    if out.suffix.lower() != ".png":
        raise InputError(f"a heat map is a PNG picture; choose a name like {out.stem}.png instead of {str(out)!r}")
    mine = rows[name]
    known = first_component_scores(scores) if scores.suffix == ".h5" else read_scores(scores, column)
    values = np.array([known.get(key, np.nan) for key in store.column("key")[mine].tolist()])  # (N,)
    if not np.isfinite(values).any():
        raise InputError(f"{scores} scores none of the {len(mine)} tiles of {name}; its first key is {next(iter(known), '(none)')!r}")
    draw_heatmap(store, name, mine, values, out, "first principal component" if scores.suffix == ".h5" else column)
    return out


def read_scores(path: Path, column: str) -> dict[str, float]:
    """Key to score, of a CSV. Raises InputError when it cannot be read or lacks a column."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file)
            for needed in ("key", column):
                if needed not in (lines.fieldnames or ()):
                    raise unknown_name_error("column", needed, lines.fieldnames or (), f"({path})")
            return {line["key"]: float(line[column]) for line in lines if line[column].strip()}
    except OSError as wrong:
        raise InputError(f"cannot read {path}: {wrong.strerror}") from wrong
    except InputError:
        raise
    except ValueError as wrong:
        raise InputError(f"{path}: the column {column!r} holds something that is no number ({wrong})") from wrong


def first_component_scores(path: Path) -> dict[str, float]:
    """Key to place along the axis of most variance, in its standard deviations. Raises InputError when it is no file of features."""
    try:
        with h5py.File(path, "r") as file:
            x, keys = file["features"][:].astype(np.float64), file["key"].asstr()[:].tolist()
    except (OSError, KeyError) as wrong:
        raise InputError(f"{path} holds no features by slide; `encoders embed --by-slide` makes them ({wrong})") from wrong
    x -= x.mean(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    along = x @ (axes[0] * np.sign(axes[0][np.abs(axes[0]).argmax()]))  # the sign is arbitrary: the largest entry is made positive
    return dict(zip(keys, (along / max(along.std(), 1e-12)).tolist(), strict=True))


def draw_heatmap(store: Store, name: str, rows: NDArray[np.int64], values: FloatArray, out: Path, label: str) -> None:
    """The overview, and beside it the same under the tiles' colours, with a scale and what is not scored."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PatchCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from PIL import Image

    part, first = store.place(int(rows[0]))
    encoded, facts = part.picture("overview"), part.attrs.get("slide")
    if encoded is None or not isinstance(facts, dict):
        raise InputError(f"{part.path} keeps no overview of its slide; stores made by `encoders ingest wsi` do")
    overview = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    ox, oy, wide, high = facts["bounds"]
    side = tile_side(part, float(store.column("mpp")[rows[0]]), part.image(first).shape[0])
    corners = np.stack([store.column("x")[rows], store.column("y")[rows]], axis=1)
    figure = Figure(figsize=(11, 1.2 + 5 * min(max(high / wide, 0.3), 2.0)), layout="constrained")
    plain, over = figure.subplots(1, 2, sharex=True, sharey=True)
    for cell in (plain, over):
        cell.imshow(overview, extent=(ox, ox + wide, oy + high, oy), interpolation="antialiased")
        cell.set_xticks([])
        cell.set_yticks([])
    scored = np.isfinite(values)
    colours = ScalarMappable(Normalize(*colour_limits(values[scored])), "coolwarm")
    tiles = [Rectangle((x, y), side, side) for x, y in corners[scored]]
    over.add_collection(PatchCollection(tiles, facecolor=colours.to_rgba(values[scored], alpha=0.55), edgecolor="none"))
    rest = [Rectangle((x, y), side, side) for x, y in corners[~scored]]
    over.add_collection(PatchCollection(rest, facecolor="none", edgecolor="0.3", linewidth=0.5))
    figure.colorbar(colours, ax=over, label=label, shrink=0.8)
    plain.set_title(name, fontsize=9)
    over.set_title(
        f"{int(scored.sum())} tiles of {side} px at level 0" + (f", {len(rest)} unscored (outlined)" if rest else ""), fontsize=9
    )
    with atomic_write(out) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})


def colour_limits(values: FloatArray) -> tuple[float, float]:
    """The ends of the colour scale: [0, 1] for what may be probabilities, else the values' own."""
    low, high = float(values.min()), float(values.max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)
