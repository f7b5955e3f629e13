"""Synthetic images that resemble a tile of an H&E-stained slide: stroma with fibres, glands with a lumen, nuclei.

The label `malignant` is architecture: uniform nuclei in a row around round lumens (0), or nuclei of different size and shape, scattered
beside torn lumens (1). The number and mean area of the nuclei, the area of the lumens, the stains and the histogram of each colour have
the same distribution in both classes.

Shapes: S side of the image, N nuclei.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from encoders.ingest.phantom.fields import Field, coordinate_grid, smooth_noise, soft_step
from encoders.ingest.phantom.kind import PhantomKind

# Optical density per unit of stain in red, green, blue.  Source: Ruifrok and Johnston 2001, Anal Quant Cytol Histol 23:291, table 2.
HAEMATOXYLIN, EOSIN = np.array([0.650, 0.704, 0.286]), np.array([0.072, 0.990, 0.105])


@dataclass(frozen=True)
class HistologyPerson:
    """What all tiles of one person share."""

    label: int
    sex: str
    age: int
    site: str
    haematoxylin: float  # amount of stain
    eosin: float  # amount of stain
    hue: NDArray[np.float64]  # (2, 3) change of the two stain colours
    nucleus_radius: float  # as a share of the tile side
    nuclei_per_gland: float  # relative to a full row


def draw_histology_person(rng: np.random.Generator) -> HistologyPerson:
    """A person drawn from the population. The laboratory changes the stain, not the label."""
    site = str(rng.choice(["north", "south", "east"], p=[0.5, 0.3, 0.2]))
    shift = {"north": 0.0, "south": 0.2, "east": -0.2}[site]
    return HistologyPerson(
        label=int(rng.integers(2)),
        sex=str(rng.choice(["F", "M"])),
        age=int(rng.integers(30, 90)),
        site=site,
        haematoxylin=float(np.exp(rng.normal(shift, 0.2))),
        eosin=float(np.exp(rng.normal(-shift, 0.2))),
        hue=rng.normal(0, 0.04, (2, 3)),
        nucleus_radius=rng.normal(0.026, 0.002),
        nuclei_per_gland=rng.uniform(0.7, 1.0),
    )


def draw_histology_image(person: HistologyPerson, rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], dict[str, str | int]]:
    """(S, S, 3) uint8, and the metadata of the tile.

    The tile is rendered with both labels, and both versions get the mean of the two histograms, so that no statistic of single pixels
    reveals the label."""
    x, y = coordinate_grid(size)
    lumens, cells = draw_glands(rng, x, y)
    lie = rng.uniform(0, np.pi)  # direction of the fibres
    fibres = np.sin(9 * np.pi * (x * np.cos(lie) + y * np.sin(lie)) + 3.0 * smooth_noise(rng, size, size / 7)) * 0.5 + 0.5
    grain = 0.05 * smooth_noise(rng, size, size / 40), 1 + 0.18 * smooth_noise(rng, size, max(0.6, size / 110))
    seed = int(rng.integers(2**63))
    both = [render_tile(person, label, np.random.default_rng(seed), lumens, cells, lie, fibres, grain) for label in (0, 1)]
    noise = rng.normal(0, 0.012, (size, size, 3))
    own, other = (gaussian_filter(both[k], (0.5, 0.5, 0)) + noise for k in (person.label, 1 - person.label))
    even = np.stack([blend_histograms(own[..., c], other[..., c]) for c in range(3)], axis=-1)  # (S, S, 3)
    return np.clip(np.rint(even * 255), 0, 255).astype(np.uint8), {"sex": person.sex, "age": person.age, "site": person.site}


def render_tile(
    person: HistologyPerson,
    label: int,
    rng: np.random.Generator,
    lumens: Field,
    cells: Field,
    lie: float,
    fibres: Field,
    grain: tuple[Field, Field],
) -> NDArray[np.float64]:
    """(S, S, 3): light transmitted by the tissue, 0 to 1."""
    size = len(lumens)
    cytoplasm, hollow = soft_step(cells, 0.02), soft_step(lumens, 0.012)
    if label:  # the same areas, torn: displaced along a random field, so that no round lumen remains
        cytoplasm, hollow = (displace_field(rng, field, size) for field in (cytoplasm, hollow))
    eosin = (1 - hollow) * (0.55 * (1 - cytoplasm) * (0.55 + 0.75 * fibres) + 0.42 * cytoplasm + grain[0])
    chromatin = draw_nuclei(person, label, rng, lumens, lie, size) * grain[1]
    blue = person.haematoxylin * (1.05 * chromatin + 0.10 * cytoplasm * (1 - hollow))
    pink = person.eosin * np.clip(eosin, 0, None) * (1 - 0.6 * np.clip(chromatin, 0, 1))
    density = blue[..., None] * (HAEMATOXYLIN + person.hue[0]) + pink[..., None] * (EOSIN + person.hue[1])  # (S, S, 3)
    return np.asarray(0.95 * np.exp(-density))


def blend_histograms(field: Field, other: Field) -> Field:
    """`field` with the mean of its own histogram and the histogram of `other`."""
    out = np.empty(field.size)
    out[np.argsort(field, axis=None, kind="stable")] = (np.sort(field, axis=None) + np.sort(other, axis=None)) / 2
    return out.reshape(field.shape)


def draw_glands(rng: np.random.Generator, x: Field, y: Field) -> tuple[Field, Field]:
    """(S, S): distance outwards from the edge of the nearest lumen. (S, S): the same from the edge of the nearest gland."""
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
    """The field with its points displaced far along a smooth random field: about the same area, another outline."""
    from scipy.ndimage import map_coordinates

    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    moved = [axis + 0.032 * size * smooth_noise(rng, size, size / 14) for axis in (rows, columns)]
    return np.asarray(map_coordinates(field, moved, order=1, mode="reflect"))


def draw_nuclei(person: HistologyPerson, label: int, rng: np.random.Generator, lumens: Field, lie: float, size: int) -> Field:
    """(S, S): amount of chromatin. Both classes have the same number of nuclei, with the same mean area."""
    ring = np.argwhere(np.abs(lumens - 0.10) < 0.035)  # where a row of nuclei surrounds each lumen
    stroma = np.argwhere(lumens > 0.24)
    spot = np.pi * (person.nucleus_radius * size * 1.35) ** 2
    n_ring, n_stroma = int(person.nuclei_per_gland * len(ring) / spot * 0.9), int(0.10 * len(stroma) / spot)
    anywhere = np.argwhere(lumens > -9)
    epithelial = sample_apart(rng, anywhere if label else ring, n_ring, person.nucleus_radius * size * 1.5)
    sigma = 0.32 if label else 0.08
    scale = np.exp(rng.normal(-(sigma**2), sigma, len(epithelial)))  # E[scale**2] = 1: the mean area is independent of the label
    field = np.zeros((size, size))
    for (row, column), s in zip(epithelial, scale, strict=True):
        stamp_ellipse(field, row, column, person.nucleus_radius * size * s, rng.uniform(1.0, 1.9 if label else 1.35), rng.uniform(0, np.pi))
    for row, column in sample_apart(rng, stroma, n_stroma, person.nucleus_radius * size * 2):
        stamp_ellipse(field, row, column, person.nucleus_radius * size * 0.8, rng.uniform(2.0, 3.2), lie + np.pi / 2 + rng.normal(0, 0.2))
    return field


def sample_apart(rng: np.random.Generator, places: NDArray[np.int64], n: int, min_distance: float) -> Field:
    """(N, 2): random places, at least `min_distance` pixels apart; fewer than `n` if there is no room."""
    chosen = np.empty((n, 2))
    count = 0
    for place in places[rng.permutation(len(places))[: 8 * n]]:
        if count == n:
            break
        if not count or ((chosen[:count] - place) ** 2).sum(axis=1).min() > min_distance**2:
            chosen[count] = place
            count += 1
    return chosen[:count]


def stamp_ellipse(field: Field, row: float, column: float, radius: float, aspect: float, angle: float) -> None:
    """Draws a soft ellipse of area pi radius**2 into the field, as the maximum of both."""
    reach = int(radius * np.sqrt(aspect)) + 3
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    window = field[top : int(row) + reach + 1, left : int(column) + reach + 1]
    v, u = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]].astype(float)
    u, v = u - column, v - row
    a, b = (np.cos(angle) * u + np.sin(angle) * v) / aspect**0.5, (-np.sin(angle) * u + np.cos(angle) * v) * aspect**0.5
    np.maximum(window, soft_step(np.hypot(a, b) - radius, 0.35), out=window)


HISTOLOGY_PHANTOM = PhantomKind(label="malignant", channels=3, stream=1, draw_person=draw_histology_person, draw_image=draw_histology_image)
