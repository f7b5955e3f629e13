"""Cost of `transfer compare` and `transfer report` for 160 records of NIH's size, the first time and again: CPU and wall seconds.

    OMP_NUM_THREADS=1 python -m tests.perf.many_records FOLDER [--encoders 40] [--again]

Writes the records to FOLDER unless they are there (0.7 GB, some minutes): 40 encoders x k-NN and linear probe x 100 and 10 % of the labels,
25,600 test images of 11,000 patients and 17,300 validation images, 14 labels. Then it deletes what earlier commands kept and runs both as a
user does, with the start of Python and all imports.
Targets on one core: both commands together under 60 s the first time and under 5 s again.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from transfer.records.ledger import append_to_ledger
from transfer.records.record import Identity, Meta, Record, record_path, write_record
from transfer.records.scored_images import identify_images, write_scored_images
from transfer.records.statistics_file import FOLDER

SIZES = {"val": (17_300, 5_600), "test": (25_600, 11_000)}  # images and patients
LABELS = 14
ARCHS = ("resnet18", "resnet50", "vit_small", "vit_base", "convnext_tiny", "mobilenetv2_100")


def shared_arrays() -> dict[str, Array]:
    """Keys, patients and correlated labels of both parts, and the propensity of each image for the scores; equal for all encoders."""
    rng, prevalence = np.random.default_rng(0), np.geomspace(0.002, 0.2, LABELS)
    arrays: dict[str, Array] = {}
    for part, (images, patients) in SIZES.items():
        who = np.sort(np.concatenate([np.arange(patients), rng.integers(0, patients, images - patients)]))
        arrays[f"{part}_propensity"] = rng.normal(size=(patients, LABELS))[who]
        z = arrays[f"{part}_propensity"] + rng.normal(size=(images, LABELS))
        arrays[f"{part}_y"] = (z > [np.quantile(z[:, c], 1 - prevalence[c]) for c in range(LABELS)]).astype(np.float32)
        start = 1 if part == "val" else 1 + SIZES["val"][1]
        arrays[f"{part}_patient"] = np.array([f"{start + i:08d}" for i in who])
        arrays[f"{part}_key"] = np.array([f"{start + i:08d}_{n:03d}.png" for n, i in enumerate(who)])
    return arrays


def list_encoders(n: int) -> list[tuple[str, str, str, float]]:
    """Name, role, network and skill: random and ImageNet weights of each network, then pretrained ones."""
    weights = [(f"{role}_{arch}", role, arch, skill) for role, skill in (("imagenet", 0.9), ("random", 0.2)) for arch in ARCHS]
    rest = range(max(n - len(weights), 0))
    return [*weights, *((f"mine_{i:02d}", "encoder", ARCHS[i % len(ARCHS)], 0.8 + 0.02 * i) for i in rest)][:n]


def write_records(encoders: int) -> int:
    """Writes the records that are missing, and the ledger; returns the number of records."""
    shared, prevalence, written = shared_arrays(), np.geomspace(0.002, 0.2, LABELS), 0
    images = identify_images("nih", shared["test_key"], [""] * len(shared["test_key"]))
    counts = {part: {"images": n, "patients": u} for part, (n, u) in {"train": (69_000, 22_400), **SIZES}.items()}
    for name, role, arch, skill in list_encoders(encoders):
        for protocol in ("knn", "linear"):
            for fraction in (1.0, 0.1):
                identity = Identity(
                    task="nih", store="s" * 64, labels="l" * 64, split="h" * 64, partition="h" * 64, encoder=name, encoder_sha256=name,
                    card="c", protocol=protocol, protocol_hash=protocol.ljust(16, "0"), fraction=fraction,
                )  # fmt: skip
                written += 1
                if record_path(identity).is_file():
                    continue
                draw = np.random.default_rng([written, 1])
                arrays = {k: v for k, v in shared.items() if not k.endswith("propensity")}
                for part in SIZES:
                    y, propensity = shared[f"{part}_y"], shared[f"{part}_propensity"]
                    logit = np.log(prevalence / (1 - prevalence)) + skill * fraction**0.1 * y + 0.5 * propensity + draw.normal(size=y.shape)
                    arrays[f"{part}_scores"] = (1 / (1 + np.exp(-logit))).astype(np.float64 if protocol == "linear" else np.float32)
                meta = Meta(
                    identity=identity, kind="multilabel", classes=[f"finding {c}" for c in range(LABELS)], role=role, arch=arch, size=224,
                    counts=counts, test_set=images.digest,
                )  # fmt: skip
                write_record(Record(meta, arrays))
                folder = record_path(identity).parent.parent
                write_scored_images(images, folder)
                entry = {**identity.model_dump(mode="json"), "selection": "s", "test_set": images.digest, "time": 1.7e9 + written}
                append_to_ledger(entry, folder / "ledger.jsonl")
    return written


def run_command(words: list[str], folder: Path) -> tuple[float, float]:
    """CPU and wall seconds of `transfer` with these words."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with open(folder / f"{words[0]}.txt", "w") as out:
        subprocess.run([sys.executable, "-m", "transfer", *words], cwd=folder, check=True, stdout=out, stderr=subprocess.STDOUT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoders", type=int, default=40)
    parser.add_argument("--again", action="store_true", help="keep what earlier commands kept")
    parser.add_argument("--write", action="store_true", help="only write the records")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    os.environ["ISOGRAFT_HOME"] = str(args.folder.resolve())
    n = write_records(args.encoders)
    if args.write:
        return
    for kept in [] if args.again else args.folder.rglob(FOLDER):
        shutil.rmtree(kept)
    for title in ("first time", "again"):
        cost = {words: run_command([words], args.folder) for words in ("compare", "report")}
        each = ", ".join(f"{name} {cpu:.1f} s CPU ({wall:.1f} s wall)" for name, (cpu, wall) in cost.items())
        print(f"{n} records, {title}: {sum(cpu for cpu, _ in cost.values()):.1f} s CPU; {each}", flush=True)


if __name__ == "__main__":
    main()
