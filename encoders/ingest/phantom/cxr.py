"""Synthetic images that resemble a frontal chest radiograph: body, lungs, ribs, clavicles, spine, heart, diaphragm, vessels.

The label `opacity` is a pattern in the lungs: a network of lines with nodules (1), or cloudy noise with the same power spectrum and the
same histogram (0). Neither the spectrum nor any statistic of single pixels, such as mean intensity, separates the classes. The task is
hard: no recipe learns it within minutes. The label `view`, AP or PA, is easier, and recipes do learn it: AP has a wider heart, lower
lungs and no stomach bubble.

Shapes: S side of the image.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.phantom.fields import (
    Field,
    coordinate_grid,
    gaussianise,
    shuffle_phases,
    smooth_noise,
    soft_band,
    soft_ellipse,
    soft_step,
)
from encoders.ingest.phantom.kind import PhantomKind, PhantomMask

MIN_TEXTURE_SIDE = 128  # side of the smallest image with the lung pattern in proportion: below, its lines are thinner than a pixel


@dataclass(frozen=True)
class CxrPerson:
    """What all images of one person share."""

    label: int
    sex: str
    age: int
    site: str
    chest_width: float  # 1 = average
    lung_height: float  # 1 = average
    heart_width: float  # 1 = average
    rib_slope: float
    bone_brightness: float
    tissue_brightness: float  # of soft tissue
    texture_size: float  # of the lung pattern, as a share of the image side
    texture_amplitude: float  # of the lung pattern
    gamma: float  # exposure at this person's visit
    contrast: float


class Chest(NamedTuple):
    """One exposure before it is rendered. x, y: (S, S) coordinates of the chest.  lungs: (S, S) share of lung.  tissue: (S, S) density."""

    view: str
    x: Field
    y: Field
    lungs: Field
    tissue: Field


def draw_cxr_person(rng: np.random.Generator) -> CxrPerson:
    """A person drawn from the population. The site changes the appearance of images, not the label."""
    site, sex = str(rng.choice(["north", "south", "east"], p=[0.5, 0.3, 0.2])), str(rng.choice(["F", "M"]))
    return CxrPerson(
        label=int(rng.integers(2)),
        sex=sex,
        age=int(rng.integers(20, 90)),
        site=site,
        chest_width=rng.normal(1.0, 0.05),
        lung_height=rng.normal(1.0, 0.06),
        heart_width=rng.normal(1.0, 0.1),
        rib_slope=rng.normal(0.32, 0.05),
        bone_brightness=rng.uniform(0.7, 1.2),
        tissue_brightness=rng.normal(0.0, 0.04),
        texture_size=rng.uniform(0.013, 0.02),
        texture_amplitude=rng.uniform(0.075, 0.115),
        gamma=float(np.exp(rng.normal({"north": 0.0, "south": 0.12, "east": -0.12}[site], 0.18))),
        contrast=rng.uniform(0.75, 1.05),
    )


def draw_cxr_image(person: CxrPerson, rng: np.random.Generator, size: int) -> tuple[NDArray[np.uint8], dict[str, str | int]]:
    """(S, S, 1) uint8, dense is white, and the metadata of the image. Every call is another exposure of the person."""
    chest = draw_chest(person, rng, size)
    tissue = chest.tissue + chest.lungs * draw_lung_texture(person, rng, size, chest.lungs) * person.texture_amplitude
    return render_exposure(person, rng, tissue, size), describe_exposure(person, chest)


def draw_cxr_mask(person: CxrPerson, rng: np.random.Generator, size: int) -> PhantomMask:
    """(S, S): the lungs, whose pattern is the finding, of the image that `draw_cxr_image` draws from the same generator."""
    return np.asarray(draw_chest(person, rng, size).lungs > 0.5)


def draw_chest(
    person: CxrPerson, rng: np.random.Generator, size: int, turn: float = 0.04, zoom: float = 0.04, shift: float = 0.04
) -> Chest:
    """A chest in front of the detector. turn, zoom, shift: standard deviations of its position: radians, factor, half image sides."""
    view = "AP" if rng.random() < 0.3 else "PA"
    x, y = coordinate_grid(size, rng.normal(0, turn), rng.normal(0.97, zoom), *rng.normal(0, shift, 2))
    return Chest(view, x, y, *draw_anatomy(person, rng, x, y, view == "AP", size))


def describe_exposure(person: CxrPerson, chest: Chest) -> dict[str, str | int]:
    """The metadata of an image."""
    return {"sex": person.sex, "age": person.age, "view": chest.view, "site": person.site}


def draw_lung_texture(person: CxrPerson, rng: np.random.Generator, size: int, lungs: Field) -> Field:
    """(S, S): the lung pattern, with mean 0 and standard deviation 1 inside the lungs."""
    coarse = person.texture_size * max(size, MIN_TEXTURE_SIDE)  # pixels
    lines = -np.abs(smooth_noise(rng, size, coarse * 1.6))  # bright where a smooth field changes sign: a network
    nodules = np.maximum(smooth_noise(rng, size, coarse) - 1.4, 0)
    field = gaussianise(lines + 1.2 * nodules)
    if not person.label:
        field = gaussianise(shuffle_phases(rng, field))
    weight = lungs / lungs.sum()
    centred = field - (weight * field).sum()
    return np.asarray(centred / np.sqrt((weight * centred**2).sum()))


def draw_anatomy(person: CxrPerson, rng: np.random.Generator, x: Field, y: Field, supine: bool, size: int) -> tuple[Field, Field]:
    """(S, S): share of lung. (S, S): density from 0 to about 1, without the lung pattern."""
    wide, tall = person.chest_width, person.lung_height * (0.93 if supine else 1.0)
    body = np.maximum(soft_ellipse(x, y, 0, 0.45, 0.93 * wide, 1.30, 0.03, 4.5), soft_ellipse(x, y, 0, -0.95, 0.25, 0.5, 0.03))
    shoulder = soft_step(-(y + 0.86 - 0.42 * np.abs(x) ** 2.2), 0.03)  # slopes down from the neck
    body = body * np.maximum(shoulder, soft_ellipse(x, y, 0, -0.95, 0.25, 0.5, 0.03))
    right, left = (draw_lung(x, y, side, wide, tall, rng) for side in (-1, 1))
    heart = soft_ellipse(x + 0.35 * (y - 0.2), y, 0.15 * wide, 0.22, 0.30 * person.heart_width * (1.12 if supine else 1.0), 0.36, 0.025)
    middle = soft_ellipse(x, y, 0.02, -0.2, 0.15 * wide, 0.85, 0.03, 3)  # great vessels and spine
    arch = soft_ellipse(x, y, 0.14 * wide, -0.33, 0.09, 0.1, 0.02)  # aortic knob
    lungs = np.maximum(right, left) * (1 - heart) * (1 - 0.9 * middle) * (1 - arch)
    density = body * (0.62 + person.tissue_brightness - 0.10 * np.abs(x) ** 3) - 0.36 * lungs
    density += body * (0.22 * heart * np.maximum(right, left) + 0.17 * middle + 0.08 * arch * np.maximum(right, left))
    density += draw_vessels(rng, x, y, wide) * lungs * 0.13 + draw_bones(person, x, y, supine) * body * 0.15 * person.bone_brightness
    density -= 0.20 * soft_band(x - 0.01, 0.045) * soft_step(y + 0.30, 0.04) * body  # trachea
    stomach = soft_ellipse(x, y, 0.42 * wide, 0.66, 0.13, 0.07, 0.02)
    density -= 0.22 * stomach * (0.0 if supine else 1.0)
    if person.sex == "F":
        density += (
            0.06 * body * np.maximum(soft_ellipse(x, y, -0.45, 0.33, 0.33, 0.27, 0.04), soft_ellipse(x, y, 0.45, 0.33, 0.33, 0.27, 0.04))
        )
    return lungs, density + 0.015 * body * smooth_noise(rng, size, size / 12)


def draw_lung(x: Field, y: Field, side: int, wide: float, tall: float, rng: np.random.Generator) -> Field:
    """(S, S): one lung, narrow at the apex, wide at the base, cut by the dome of the diaphragm. `side` -1 is the left of the image."""
    centre = side * 0.43 * wide
    low = 0.50 + (0.04 if side > 0 else 0.0) + rng.normal(0, 0.02)  # the lung on the heart's side is lower
    dome = y - low + 0.13 * (1 - ((x - centre) / (0.35 * wide)) ** 2) - 0.16 * np.maximum((np.abs(x) - 0.55 * wide) / 0.3, 0)
    reach = 0.37 * wide * np.clip(0.62 + 0.42 * (y + 0.75 * tall) / 1.2, 0.3, 1.08)  # half width at that height
    top = -0.74 * tall
    shape = (np.abs((x - centre) / reach) ** 2.6 + np.abs(np.minimum(y - 0.05, 0) / (top - 0.05)) ** 2.6) ** (1 / 2.6)
    return soft_step((shape - 1) * 0.3, 0.018) * soft_step(dome, 0.015)


def draw_bones(person: CxrPerson, x: Field, y: Field, supine: bool) -> Field:
    """(S, S): posterior and anterior ribs, clavicles and vertebrae."""
    out = np.zeros_like(x)
    far = np.abs(x) / person.chest_width
    inner = soft_step(0.10 - far, 0.02) * soft_step(far - 0.80, 0.03)
    for k in range(9):
        start = -0.72 + 0.155 * k * person.lung_height
        back = y - start - person.rib_slope * (far - 0.1) ** 2 + 0.20 * soft_band(far - 0.05, 0.18) * 0.4
        out = np.maximum(out, 0.9 * rimmed_band(back, 0.024) * inner)
        front = y - start - 0.45 + 0.42 * (far - 0.1)
        out = np.maximum(out, 0.45 * rimmed_band(front, 0.030) * inner * soft_step(0.25 - far, 0.05))
    lift = -0.06 if supine else 0.0
    clavicle = y + 0.60 - lift + 0.22 * (far - 0.1) - 0.12 * np.sin(far * 5)
    out = np.maximum(out, 1.3 * rimmed_band(clavicle, 0.028) * soft_step(0.08 - far, 0.02) * soft_step(far - 0.72, 0.03))
    spine = soft_band(x, 0.07) * (0.55 + 0.35 * np.cos(y * 2 * np.pi / 0.16))
    return out + spine * 0.9


def rimmed_band(offset: Field, half: float) -> Field:
    """(S, S): a band with bright rims, like the cortex of a bone."""
    return soft_step(np.abs(offset) - half, 0.008) * (0.65 + 0.5 * np.minimum(np.abs(offset) / half, 1.0) ** 2)


def draw_vessels(rng: np.random.Generator, x: Field, y: Field, wide: float) -> Field:
    """(S, S): branches that leave the two hila and become thinner."""
    out = np.zeros_like(x)
    for side in (-1, 1):
        hx, hy = side * 0.17 * wide, -0.06 if side < 0 else -0.10
        out = np.maximum(out, 1.2 * soft_ellipse(x, y, hx, hy, 0.07, 0.13, 0.04))
        for angle in np.linspace(-1.25, 1.25, 7) + rng.normal(0, 0.1, 7):
            along = (x - hx) * side * np.cos(angle) + (y - hy) * np.sin(angle)
            across = -(x - hx) * side * np.sin(angle) + (y - hy) * np.cos(angle) + rng.normal(0, 0.25) * along**2
            thin = np.clip(0.022 * (1 - along / 0.62), 0.002, None)
            out = np.maximum(out, soft_band(across, thin) * soft_step(-along, 0.02) * soft_step(along - 0.5, 0.06))
    return out


def render_exposure(person: CxrPerson, rng: np.random.Generator, density: Field, size: int) -> NDArray[np.uint8]:
    """(S, S, 1) uint8: the density with exposure, contrast, noise, collimation and side marker of one acquisition."""
    gamma = person.gamma * np.exp(rng.normal(0, 0.06))
    shown = np.clip((density - 0.06) * person.contrast + rng.normal(0.04, 0.03), 0, None) ** gamma
    dose = rng.uniform(0.008, 0.03)
    shown += dose * (0.4 + shown) * rng.standard_normal(shown.shape)
    u, v = coordinate_grid(size)
    marker = (
        (np.abs(u + 0.80) < 0.035) & (np.abs(v + 0.80) < 0.06)
        if rng.random() < 0.5
        else (np.abs(u - 0.8) < 0.03) & (np.abs(v + 0.85) < 0.05)
    )
    shown[marker] = 0.95
    left, right, up, down = 1 + 0.03 - np.maximum(rng.normal(0, 0.07, 4), 0)
    shown *= (u > -left) & (u < right) & (v > -up) & (v < down)
    return np.asarray(np.clip(np.rint(shown * 255), 0, 255).astype(np.uint8)[..., None])


CXR_PHANTOM = PhantomKind(
    label="opacity",
    channels=1,
    stream=0,
    draw_person=draw_cxr_person,
    draw_image=draw_cxr_image,
    labelled_meta=("view",),
    draw_mask=draw_cxr_mask,
)
