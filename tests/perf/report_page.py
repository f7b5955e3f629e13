"""A report page of two records of NIH's size, and the ROC and PR bands of one against a loop over resamples and thresholds.

    OMP_NUM_THREADS=1 python -m tests.perf.report_page

Targets: 2 s for the bands of a record, 20 s for tables and page of two records (CPU time). The loop computes a few resamples, which also
checks the values; its time is scaled up.
"""

import argparse
import time
from collections.abc import Mapping

import numpy as np

from tests.transfer.report.test_curve_bands import slow_curve
from transfer.records.record import Identity, Meta, Record
from transfer.report.curve_bands import BAND_RESAMPLES, CURVE_KINDS, label_curves, resampled_curves
from transfer.report.page import render_page
from transfer.stats.patient_draws import draw_patients
from transfer.tables.build import build_sections

SIZES = {"val": (17_300, 5_600), "test": (25_596, 2_797)}  # images and patients of NIH ChestX-ray14's parts


def nih_record(encoder: str, role: str, skill: float, labels: int = 14, sizes: Mapping[str, tuple[int, int]] = SIZES) -> Record:
    """A record with NIH's numbers of images, patients and labels; labels and scores of a patient are correlated."""
    truth, draw = np.random.default_rng(0), np.random.default_rng([1, len(encoder)])
    prevalence = np.geomspace(0.002, 0.2, labels)
    arrays = {}
    for part, (images, patients) in sizes.items():
        who = np.sort(truth.integers(0, patients, images))
        propensity = truth.normal(size=(patients, labels))[who]
        z = propensity + truth.normal(size=(images, labels))
        y = z > [np.quantile(z[:, c], 1 - prevalence[c]) for c in range(labels)]
        logit = np.log(prevalence / (1 - prevalence)) + skill * y + 0.5 * propensity + draw.normal(size=y.shape)
        arrays |= {
            f"{part}_key": np.array([f"{part}{i:06d}.png" for i in range(images)]),
            f"{part}_patient": np.array([f"{part}-{i}" for i in who]),
            f"{part}_y": y.astype(np.float32),
            f"{part}_scores": 1 / (1 + np.exp(-logit)),
        }
    counts = {part: {"images": n, "patients": u} for part, (n, u) in {"train": (69_000, 22_400), **sizes}.items()}
    identity = Identity(
        task="nih",
        store="s",
        labels="l",
        split="h",
        partition="h",
        encoder=encoder,
        encoder_sha256=encoder,
        card="c",
        protocol="linear",
        protocol_hash="p" * 16,
    )
    names = [f"finding {c}" for c in range(labels)]
    return Record(Meta(identity=identity, kind="multilabel", classes=names, role=role, arch="net", counts=counts), arrays)


def main(checked: int = 5) -> None:
    records = [nih_record("mine", "encoder", 1.2), nih_record("imagenet_net", "imagenet", 0.9)]
    start = time.process_time()
    resampled_curves(records[:1])
    bands = time.process_time() - start
    y, s, patient = records[0].part("test")
    code, drawn = draw_patients(patient, checked)
    weight = drawn[code]  # (N, 1 + checked)
    start, largest = time.process_time(), 0.0
    slow = {(kind, c): slow_curve(y[:, c], s[:, c], weight, kind) for kind in CURVE_KINDS for c in range(y.shape[1])}
    reference = (time.process_time() - start) * (1 + BAND_RESAMPLES) / (1 + checked)
    for c in range(y.shape[1]):
        fast = label_curves(y[:, c], s[:, c], code, drawn)
        largest = max(largest, *(float(np.abs(fast[kind] - slow[kind, c]).max()) for kind in CURVE_KINDS))
    print(
        f"bands of a record: {bands:.1f} s, loop {reference:.0f} s, {reference / bands:.0f} times faster; largest difference {largest:.1e}"
    )
    start = time.process_time()
    sections = build_sections(records)
    tables = time.process_time() - start
    render_page(records, sections, {})
    print(f"two records: tables {tables:.1f} s, page {time.process_time() - start - tables:.1f} s")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
