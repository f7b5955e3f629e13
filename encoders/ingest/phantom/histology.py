"""A picture like a tile of an H&E-stained slide: stroma with fibres, glands with a lumen, nuclei. Made up, no patient.

The label `malignant` is architecture: nuclei stand in a row around round lumens and are alike (0), or lie anywhere beside torn lumens and
differ in size and shape (1). Number and mean area of the nuclei, area of the lumens, the stains and the histogram of each colour have the
same distribution in both.

Shapes: S side of the picture, N nuclei.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from encoders.ingest.phantom.fields import Field, coordinate_grid, smooth_noise, soft_step

LABEL = "malignant"
FACTS: tuple[str, ...] = ()
CHANNELS = 3
# Optical density a unit of stain in red, green, blue.  Source: Ruifrok and Johnston 2001, Anal Quant Cytol Histol 23:291, table 2.
HAEMATOXYLIN, EOSIN = np.array([0.650, 0.704, 0.286]), np.array([0.072, 0.990, 0.105])


@dataclass(frozen=True)
class HistologyPerson:
    """What all tiles of one person share."""

    label: int
    sex: str
    age: int
    site: str
    blue: float  # amount of haematoxylin
    pink: float  # amount of eosin
    hue: NDArray[np.float64]  # (2, 3) change of the two stain colours
    radius: float  # of a nucleus, share of the tile
    crowd: float  # nuclei a gland


def person(rng: np.random.Generator) -> HistologyPerson:
    """A person drawn from the population; the laboratory changes the stain, not who is ill."""
    site = str(rng.choice(["north", "south", "east"], p=[0.5, 0.3, 0.2]))
    shift = {"north": 0.0, "south": 0.2, "east": -0.2}[site]
    return HistologyPerson(
        label=int(rng.integers(2)),
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(30, 90)),
        site=site,
        blue=float(np.exp(rng.normal(shift, 0.2))),
        pink=float(np.exp(rng.normal(-shift, 0.2))),
        hue=rng.normal(0, 0.04, (2, 3)),
        radius=rng.normal(0.026, 0.002),
        crowd=rng.uniform(0.7, 1.0),
    )


def picture(who: HistologyPerson, rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], dict[str, str | int]]:
    """(S, S, 3) uint8 and what is known about the tile.

    The tile is made with either label, and both get the mean of their two histograms: no statistic of single pixels is left to tell."""
    x, y = coordinate_grid(size)
    lumens, cells = draw_glands(rng, x, y)
    lie = rng.uniform(0, np.pi)  # direction of the fibres
    fibres = np.sin(9 * np.pi * (x * np.cos(lie) + y * np.sin(lie)) + 3.0 * smooth_noise(rng, size, size / 7)) * 0.5 + 0.5
    grain = 0.05 * smooth_noise(rng, size, size / 40), 1 + 0.18 * smooth_noise(rng, size, max(0.6, size / 110))
    seed = int(rng.integers(2**63))
    both = [render_tile(who, label, np.random.default_rng(seed), lumens, cells, lie, fibres, grain) for label in (0, 1)]
    noise = rng.normal(0, 0.012, (size, size, 3))
    own, other = (gaussian_filter(both[k], (0.5, 0.5, 0)) + noise for k in (who.label, 1 - who.label))
    even = np.stack([blend_histograms(own[..., c], other[..., c]) for c in range(3)], axis=-1)  # (S, S, 3)
    return np.clip(np.rint(even * 255), 0, 255).astype(np.uint8), {"sex": who.sex, "age": who.age, "site": who.site}


def render_tile(
    who: HistologyPerson,
    label: int,
    rng: np.random.Generator,
    lumens: Field,
    cells: Field,
    lie: float,
    fibres: Field,
    grain: tuple[Field, Field],
) -> NDArray[np.float64]:
    """(S, S, 3) light that comes through the tissue, 0 to 1."""
    size = len(lumens)
    cytoplasm, hollow = soft_step(cells, 0.02), soft_step(lumens, 0.012)
    if label:  # the same areas, torn: moved along a random field, so that no round lumen stays
        cytoplasm, hollow = (displace_field(rng, field, size) for field in (cytoplasm, hollow))
    eosin = (1 - hollow) * (0.55 * (1 - cytoplasm) * (0.55 + 0.75 * fibres) + 0.42 * cytoplasm + grain[0])
    chromatin = draw_nuclei(who, label, rng, lumens, lie, size) * grain[1]
    blue = who.blue * (1.05 * chromatin + 0.10 * cytoplasm * (1 - hollow))
    pink = who.pink * np.clip(eosin, 0, None) * (1 - 0.6 * np.clip(chromatin, 0, 1))
    density = blue[..., None] * (HAEMATOXYLIN + who.hue[0]) + pink[..., None] * (EOSIN + who.hue[1])  # (S, S, 3)
    return 0.95 * np.exp(-density)


def blend_histograms(field: Field, other: Field) -> Field:
    """`field` with the histogram half way between its own and the other's."""
    out = np.empty(field.size)
    out[np.argsort(field, axis=None, kind="stable")] = (np.sort(field, axis=None) + np.sort(other, axis=None)) / 2
    return out.reshape(field.shape)


def draw_glands(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """(S, S) distance outwards from the nearest lumen's edge, and from the nearest gland's edge."""
    centres: list[tuple[float, float, float]] = []
    for _ in range(200):
        cx, cy, r = *rng.uniform(-1.1, 1.1, 2), rng.uniform(0.13, 0.24)
        if all((cx - a) ** 2 + (cy - b) ** 2 > (r + c + 0.36) ** 2 for a, b, c in centres):
            centres.append((cx, cy, r))
    lumens = np.full_like(x, 9.0)
    for cx, cy, r in centres:
        angle, phase = np.arctan2(y - cy, x - cx), rng.uniform(0, 2 * np.pi, 2)
        edge = r * (1 + 0.12 * np.sin(2 * angle + phase[0]) + 0.06 * np.sin(3 * angle + phase[1]))
        lumens = np.minimum(lumens, np.hypot(x - cx, y - cy) - edge)
    return lumens, lumens - 0.19


def displace_field(rng: np.random.Generator, field: Field, size: int) -> Field:
    """The field with its points moved far along a smooth random field: area about the same, outline lost."""
    from scipy.ndimage import map_coordinates

    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    moved = [axis + 0.032 * size * smooth_noise(rng, size, size / 14) for axis in (rows, columns)]
    return map_coordinates(field, moved, order=1, mode="reflect")


def draw_nuclei(who: HistologyPerson, label: int, rng: np.random.Generator, lumens: Field, lie: float, size: int) -> Field:
    """(S, S) amount of chromatin: in both classes as many nuclei, with the same mean area."""
    ring = np.argwhere(np.abs(lumens - 0.10) < 0.035)  # where a row of nuclei stands around each lumen
    stroma = np.argwhere(lumens > 0.24)
    spot = np.pi * (who.radius * size * 1.35) ** 2
    n_ring, n_stroma = int(who.crowd * len(ring) / spot * 0.9), int(0.10 * len(stroma) / spot)
    anywhere = np.argwhere(lumens > -9)
    epithelial = sample_apart(rng, anywhere if label else ring, n_ring, who.radius * size * 1.5)
    sigma = 0.32 if label else 0.08
    scale = np.exp(rng.normal(-(sigma**2), sigma, len(epithelial)))  # E[scale**2] = 1: the mean area does not tell
    field = np.zeros((size, size))
    for (row, column), s in zip(epithelial, scale, strict=True):
        stamp_ellipse(field, row, column, who.radius * size * s, rng.uniform(1.0, 1.9 if label else 1.35), rng.uniform(0, np.pi))
    for row, column in sample_apart(rng, stroma, n_stroma, who.radius * size * 2):
        stamp_ellipse(field, row, column, who.radius * size * 0.8, rng.uniform(2.0, 3.2), lie + np.pi / 2 + rng.normal(0, 0.2))
    return field


def sample_apart(rng: np.random.Generator, places: NDArray[np.int64], n: int, apart: float) -> Field:
    """(N, 2) of the places, drawn at random, no two nearer than `apart` pixels as far as there is room."""
    chosen = np.empty((n, 2))
    count = 0
    for place in places[rng.permutation(len(places))[: 8 * n]]:
        if count == n:
            break
        if not count or ((chosen[:count] - place) ** 2).sum(axis=1).min() > apart**2:
            chosen[count] = place
            count += 1
    return chosen[:count]


def stamp_ellipse(field: Field, row: float, column: float, radius: float, aspect: float, angle: float) -> None:
    """Draws a soft ellipse of area pi radius**2 into the field, where it is not darker already."""
    reach = int(radius * np.sqrt(aspect)) + 3
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    window = field[top : int(row) + reach + 1, left : int(column) + reach + 1]
    v, u = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]].astype(float)
    u, v = u - column, v - row
    a, b = (np.cos(angle) * u + np.sin(angle) * v) / aspect**0.5, (-np.sin(angle) * u + np.cos(angle) * v) * aspect**0.5
    np.maximum(window, soft_step(np.hypot(a, b) - radius, 0.35), out=window)
