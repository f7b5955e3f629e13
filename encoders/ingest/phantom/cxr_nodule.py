"""The chest phantom with a finding at one place: what maps of explanation are measured with, because that place is known.

The label `nodule` is a round density in a lung (1), or none (0). A patient's nodule stays where it is in the chest; exposure and position
vary from image to image. The clouds in the lungs are those of the chest phantom without opacity, fainter, in both classes.
"""

from dataclasses import dataclass, replace

import numpy as np

from encoders.ingest.phantom.cxr import Chest, CxrPerson, describe_exposure, draw_chest, draw_cxr_person, draw_lung_texture, render_exposure
from encoders.ingest.phantom.fields import Field, soft_ellipse
from encoders.ingest.phantom.kind import PhantomImage, PhantomKind, PhantomMask

FAINT_CLOUDS = 0.5  # of the amplitude of the chest phantom's pattern
LUNG_CENTRE = 0.43  # from the middle of the chest, half image sides
LOWEST = {-1: 0.2, 1: -0.1}  # of a nodule in the lung of each side: below, the heart covers the lung on its side


@dataclass(frozen=True)
class NodulePerson:
    """A person of the chest phantom, and where a nodule is or would be. x, y, radius: half image sides, of the chest.  density: of it."""

    label: int
    chest: CxrPerson
    x: float
    y: float
    radius: float
    density: float


def draw_nodule_person(rng: np.random.Generator) -> NodulePerson:
    """A person drawn from the population."""
    chest = draw_cxr_person(rng)
    side = -1 if rng.random() < 0.5 else 1
    return NodulePerson(
        label=chest.label,
        chest=replace(chest, label=0, texture_amplitude=FAINT_CLOUDS * chest.texture_amplitude),
        x=side * LUNG_CENTRE * chest.chest_width + rng.uniform(-0.1, 0.1),
        y=rng.uniform(-0.45, LOWEST[side]),
        radius=rng.uniform(0.12, 0.18),
        density=rng.uniform(0.35, 0.55),
    )


def draw_nodule_image(person: NodulePerson, rng: np.random.Generator, size: int) -> PhantomImage:
    """(S, S, 1) uint8, and the metadata of the image."""
    own, chest = person.chest, draw_chest(person.chest, rng, size)
    tissue = chest.tissue + chest.lungs * draw_lung_texture(own, rng, size, chest.lungs) * own.texture_amplitude
    tissue = tissue + person.label * person.density * draw_nodule(person, chest)
    return render_exposure(own, rng, tissue, size), describe_exposure(own, chest)


def draw_nodule_mask(person: NodulePerson, rng: np.random.Generator, size: int) -> PhantomMask:
    """(S, S): the nodule, of the image that `draw_nodule_image` draws from the same generator; nothing in an image without one."""
    return np.asarray(person.label * draw_nodule(person, draw_chest(person.chest, rng, size)) > 0.5)


def draw_nodule(person: NodulePerson, chest: Chest) -> Field:
    """(S, S): the share of nodule."""
    return soft_ellipse(chest.x, chest.y, person.x, person.y, person.radius, person.radius)


CXR_NODULE_PHANTOM = PhantomKind(
    label="nodule",
    channels=1,
    stream=3,
    draw_person=draw_nodule_person,
    draw_image=draw_nodule_image,
    labelled_meta=("view",),
    modality="cxr",
    draw_mask=draw_nodule_mask,
)
