"""Synthetic images with patients and labels, drawn from a seed, for tests and for trials without data. The store is marked as synthetic."""

from typing import Any

from encoders.ingest.phantom.cxr import CXR_PHANTOM
from encoders.ingest.phantom.cxr_edema import CXR_EDEMA_PHANTOM
from encoders.ingest.phantom.cxr_nodule import CXR_NODULE_PHANTOM
from encoders.ingest.phantom.histology import HISTOLOGY_PHANTOM
from encoders.ingest.phantom.kind import PhantomKind
from encoders.ingest.source import ImageRow, Source, Value
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.random import Purpose, generator, uniform

PHANTOM_KINDS: dict[str, PhantomKind[Any]] = {
    "cxr": CXR_PHANTOM,
    "cxr_edema": CXR_EDEMA_PHANTOM,
    "cxr_nodule": CXR_NODULE_PHANTOM,
    "histology": HISTOLOGY_PHANTOM,
}
PhantomItem = tuple[int, int]  # patient, number of the image


class PhantomSource(Source[PhantomItem]):
    """`patients` people with one to four images each; every image is a pure function of (kind, size, seed, patient, number)."""

    notes = ("these images are synthetic: made by a program, no patient",)

    def __init__(self, kind: str, patients: int, size: int, seed: int = 0, labeled: float = 1.0, masks: bool = False):
        """labeled: share of the patients whose labels are stored; the labels of the others are unknown.

        masks: each image is stored with a mask of where its finding is.  Raises InputError if there is no such kind, or if the finding of
        the kind is at no place."""
        if kind not in PHANTOM_KINDS:
            raise unknown_name_error("kind of phantom", kind, list(PHANTOM_KINDS))
        if masks and PHANTOM_KINDS[kind].draw_mask is None:
            places = ", ".join(name for name, other in PHANTOM_KINDS.items() if other.draw_mask)
            raise InputError(f"the finding of the phantom {kind} is all over the image, so it has no mask; phantoms with masks: {places}")
        self.kind_name, self.masks = kind, masks
        self.modality, self.dataset = self.kind.modality or kind, f"phantom-{kind}"
        self.patients, self.size, self.seed, self.labeled = patients, size, seed, labeled
        self.channels = self.kind.channels
        self.geometry = {"resize": "none", "size": [size, size]}

    @property
    def kind(self) -> PhantomKind[Any]:
        return PHANTOM_KINDS[self.kind_name]

    def items(self) -> list[PhantomItem]:
        people = range(self.patients)
        share = uniform(self.seed, Purpose.PHANTOM, people, view=self.kind.stream)[:, 0]
        return [(p, k) for p in people for k in range(1 + int(4 * share[p]))]

    def name(self, item: PhantomItem) -> str:
        return f"{self.patient(item[0])}-{item[1]}"

    def patient(self, number: int) -> str:
        """Name of a patient. The seed is part of it: people of two seeds are different people."""
        return f"s{self.seed}p{number:05d}"

    def read(self, item: PhantomItem) -> ImageRow:
        number, k = item
        kind = self.kind
        person = kind.draw_person(generator(self.seed, Purpose.PHANTOM, kind.stream, number))
        stream = self.seed, Purpose.PHANTOM, kind.stream, number, k + 1
        image, meta = kind.draw_image(person, generator(*stream), self.size)
        mask = kind.draw_mask(person, generator(*stream), self.size) if self.masks and kind.draw_mask else None
        known = uniform(self.seed, Purpose.LABELS, number, view=kind.stream)[0, 0] < self.labeled
        index = {"key": self.name(item), "patient": self.patient(number)}
        labels: dict[str, Value] = {kind.label: person.label} | {name: meta[name] for name in kind.labelled_meta}
        return ImageRow(image, index, meta, labels if known else dict.fromkeys(labels), mask=mask)

    def recipe(self) -> dict[str, Json]:
        own: dict[str, Json] = {"patients": self.patients, "size": self.size, "seed": self.seed, "labeled": self.labeled}
        return {"command": "ingest phantom", **own, **({"masks": True} if self.masks else {})}

    def attributes(self) -> dict[str, Json]:
        return {"synthetic": True}
