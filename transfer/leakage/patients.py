"""Patients shared by two parts of a task, or by the pretraining data of an encoder and the test part.

Equal ids of one data set are one patient. Nearly equal ids (7 and 007, P7 and p7) are suspected to be one. Ids of two data sets are
compared only if the user declares that both number the same people, so every comparison states how many patients it covers.

Shapes: N images of a task, P patients of an encoder's manifest.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.store.patient_ids import SameNames, hash_patients, hash_simplified, list_same_names, simplify_id
from transfer.leakage.check import PART_PAIRS, Leak, is_member
from transfer.tasks.split import Split

SIMILAR_PATIENTS = "patients with nearly equal ids"


@dataclass(frozen=True)
class PatientColumns:
    """The patients of M test images. patient, dataset: (M,) ids without the data set, and data sets.  named: (M,) whether each is known.

    same: groups of data sets that number the same people."""

    patient: Array
    dataset: Array
    named: NDArray[np.bool_]
    same: SameNames = ()

    def of(self, dataset: str) -> tuple[Array, NDArray[np.bool_]]:
        """The distinct patients of a data set (P,), and whether each is known."""
        patients, first = np.unique(self.patient[self.dataset == dataset].astype(str), return_index=True)
        return patients, self.named[self.dataset == dataset][first]

    def datasets(self) -> list[str]:
        """The data sets of the test images, sorted."""
        return sorted({str(d) for d in self.dataset})


@dataclass(frozen=True)
class PatientComparison:
    """How many test patients could be compared with the manifest of an encoder. theirs: its data sets; None: it does not name them.

    total: known test patients.  compared: those of a data set that the manifest has, too.  unnamed: test images that name no patient."""

    encoder: str
    total: int
    compared: int
    unnamed: int
    ours: tuple[str, ...]
    theirs: tuple[str, ...] | None

    @property
    def is_complete(self) -> bool:
        """Whether every known test patient could be compared, and there is one."""
        return self.theirs is not None and 0 < self.compared == self.total

    def __str__(self) -> str:
        where = f"the pretraining of {self.encoder}"
        unnamed = f"; {self.unnamed:,} test images name no patient" if self.unnamed else ""
        ours = f"data set{'s' * (len(self.ours) > 1)} {', '.join(self.ours)}"
        if not self.total:
            return f"{where}: no patient could be compared, because the test images name none; images are compared by their pixels"
        if self.theirs is None:
            return (
                f"{where}: {self.total:,} test patients were looked up as patients of {ours}, but its manifest names no data sets, "
                f"so that the same patients under another name would not be found{unnamed}"
            )
        theirs = ", ".join(self.theirs) or "none with known patients"
        counted = f"{self.compared:,} of {self.total:,}" if self.compared else f"none of the {self.total:,}"
        advice = ""
        if self.compared < self.total:
            own, other = (next((n for n in a if n not in b), "NAME") for a, b in ((self.ours, self.theirs), (self.theirs, self.ours)))
            advice = f"; if two names stand for the same people, add --same-people {own},{other}"
        return f"{where}: {counted} test patients could be compared (test: {ours}; pretraining: {theirs}){advice}{unnamed}"


def find_similar_patients(split: Split, patient: Array, named: NDArray[np.bool_]) -> list[Leak]:
    """Patients of two parts whose ids are nearly equal.  patient: (N,).  named: (N,) whether the patient of an image is known."""
    of_part: dict[str, dict[str, set[str]]] = {}
    for part in {part for pair in PART_PAIRS for part in pair}:
        rows = split.rows(part)
        of_part[part] = _group_similar(np.unique(patient[rows][named[rows]].astype(str)))
    leaks = []
    for a, b in PART_PAIRS:
        pairs = [
            (left, right)
            for form in sorted(of_part[a].keys() & of_part[b].keys())
            for left in sorted(of_part[a][form])
            for right in sorted(of_part[b][form])
            if left != right
        ]
        if pairs:
            examples = tuple(f"{left!r} ~ {right!r}" for left, right in pairs)
            leaks.append(Leak(SIMILAR_PATIENTS, f"{a} and {b}", len({right for _, right in pairs}), examples, confirmed=False))
    return leaks


def _group_similar(patients: Array) -> dict[str, set[str]]:
    """Simplified id -> the ids that have it."""
    groups: dict[str, set[str]] = {}
    for patient in patients.tolist():
        groups.setdefault(simplify_id(patient), set()).add(patient)
    return groups


def find_pretraining_patients(encoder: str, manifest: Mapping[str, Array], test: PatientColumns) -> tuple[list[Leak], PatientComparison]:
    """Test patients that an encoder was pretrained on, those with nearly equal ids, and how many could be compared.

    manifest: its `patient_hash` (any number, 32); `patient_near_hash`, `datasets` and `dataset_patients` where it has them."""
    theirs = None
    if "datasets" in manifest:
        pairs = zip(manifest["datasets"].tolist(), manifest["dataset_patients"].tolist(), strict=True)
        theirs = tuple(sorted(str(name) for name, patients in pairs if patients))
    shared: list[str] = []
    similar: list[str] = []
    total = compared = 0
    for dataset in test.datasets():
        patients, known = test.of(dataset)
        names = list_same_names(dataset, test.same)
        equal, near = np.zeros(len(patients), dtype=bool), np.zeros(len(patients), dtype=bool)
        for name in names:
            equal |= is_member(hash_patients(patients, name), manifest.get("patient_hash"))
            near |= known & is_member(hash_simplified(patients, name), manifest.get("patient_near_hash"))
        shared += patients[equal].tolist()
        similar += patients[near & ~equal].tolist()
        total += int(known.sum())
        compared += int(known.sum()) if theirs is not None and {*names} & {*theirs} else 0
    between = f"the pretraining of {encoder} and test"
    leaks = [Leak("patients", between, len(shared), tuple(map(str, shared)))] if shared else []
    leaks += [Leak(SIMILAR_PATIENTS, between, len(similar), tuple(map(repr, similar)), confirmed=False)] if similar else []
    unnamed = int((~test.named).sum())
    return leaks, PatientComparison(encoder, total, compared, unnamed, tuple(test.datasets()), theirs)
