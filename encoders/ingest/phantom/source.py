"""Made-up images with patients and labels, from a seed: the data that are always there. They are not patients, and the store says so."""

from types import ModuleType
from typing import Any

from encoders.ingest.phantom import cxr as phantom_cxr
from encoders.ingest.phantom import histology as phantom_histology
from encoders.ingest.source import ImageRow
from encoders.runtime.random import Purpose, generator, uniform

PHANTOM_KINDS: dict[str, ModuleType] = {"cxr": phantom_cxr, "histology": phantom_histology}
_STREAM_OF_KIND = {"cxr": 0, "histology": 1}


class PhantomSource:
    """`patients` people with one to four images each; every one a pure function of (kind, size, seed, patient, number)."""

    codec = "raw"
    unit: dict[str, Any] | None = None

    def __init__(self, kind: str, patients: int, size: int, seed: int = 0, labeled: float = 1.0):
        """labeled: share of the patients whose labels are stored; those of the others are unknown."""
        self.modality, self.dataset = kind, f"phantom-{kind}"
        self.patients, self.size, self.seed, self.labeled = patients, size, seed, labeled
        self.channels: int | None = PHANTOM_KINDS[kind].CHANNELS
        self.geometry: dict[str, Any] = {"resize": "none", "size": [size, size]}

    def items(self) -> list[tuple[int, int]]:
        """(patient, number of the image) in order."""
        people = range(self.patients)
        share = uniform(self.seed, Purpose.PHANTOM, people, view=_STREAM_OF_KIND[self.modality])[:, 0]
        return [(p, k) for p in people for k in range(1 + int(4 * share[p]))]

    def name(self, item: tuple[int, int]) -> str:
        return f"{self.patient(item[0])}-{item[1]}"

    def patient(self, number: int) -> str:
        """The seed is part of the name: people of two seeds are not the same people."""
        return f"s{self.seed}p{number:05d}"

    def stamp(self, item: tuple[int, int]) -> str:
        return ""

    def read(self, item: tuple[int, int]) -> ImageRow:
        number, k = item
        kind, stream = PHANTOM_KINDS[self.modality], _STREAM_OF_KIND[self.modality]
        who = kind.person(generator(self.seed, Purpose.PHANTOM, stream, number))
        image, meta = kind.picture(who, generator(self.seed, Purpose.PHANTOM, stream, number, k + 1), self.size)
        known = uniform(self.seed, Purpose.LABELS, number, view=stream)[0, 0] < self.labeled
        index = {"key": self.name(item), "patient": self.patient(number)}
        told = {kind.LABEL: who.label} | {name: meta[name] for name in kind.FACTS}
        return ImageRow(image, index, meta, told if known else dict.fromkeys(told))

    def recipe(self) -> dict[str, Any]:
        return {"command": "ingest phantom", "patients": self.patients, "size": self.size, "seed": self.seed, "labeled": self.labeled}

    def attributes(self) -> dict[str, Any]:
        return {"synthetic": True}
