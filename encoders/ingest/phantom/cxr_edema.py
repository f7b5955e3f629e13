"""The phantom of the demo: the chest phantom with a finding that pretraining makes easier to see. Its data is made for that.

The label `edema` is the strength of the pattern in the lungs: strong lines and nodules (1), or faint clouds (0). Exposure, anatomy and, as
in images taken at the bedside, position vary: they hide the pattern from raw pixels and from random weights. A network that was trained to
recognise an image under other exposures and crops has learned to see it. The label `view` means what it does in the chest phantom.
"""

from dataclasses import replace

import numpy as np

from encoders.ingest.phantom.cxr import CxrPerson, describe_exposure, draw_chest, draw_cxr_person, draw_lung_texture, render_exposure
from encoders.ingest.phantom.kind import PhantomImage, PhantomKind, PhantomMask

STRONG, FAINT = 1.4, 0.5  # of the amplitude of the chest phantom's pattern
TURN, SHIFT, ZOOM = 0.12, 0.10, 0.06  # standard deviations of the position: radians, half image sides, factor


def draw_edema_person(rng: np.random.Generator) -> CxrPerson:
    """A person of the chest phantom, whose lung pattern is strong with the finding and faint without."""
    person = draw_cxr_person(rng)
    return replace(person, texture_amplitude=person.texture_amplitude * (STRONG if person.label else FAINT))


def draw_bedside_image(person: CxrPerson, rng: np.random.Generator, size: int) -> PhantomImage:
    """(S, S, 1) uint8, and the metadata of the image: as `draw_cxr_image`, less well positioned."""
    chest = draw_chest(person, rng, size, TURN, ZOOM, SHIFT)
    tissue = chest.tissue + chest.lungs * draw_lung_texture(person, rng, size, chest.lungs) * person.texture_amplitude
    return render_exposure(person, rng, tissue, size), describe_exposure(person, chest)


def draw_bedside_mask(person: CxrPerson, rng: np.random.Generator, size: int) -> PhantomMask:
    """(S, S): the lungs, of the image that `draw_bedside_image` draws from the same generator."""
    return np.asarray(draw_chest(person, rng, size, TURN, ZOOM, SHIFT).lungs > 0.5)


CXR_EDEMA_PHANTOM = PhantomKind(
    label="edema",
    channels=1,
    stream=2,
    draw_person=draw_edema_person,
    draw_image=draw_bedside_image,
    labelled_meta=("view",),
    modality="cxr",
    draw_mask=draw_bedside_mask,
)
