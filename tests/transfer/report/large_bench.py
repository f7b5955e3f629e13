"""A made-up bench of twelve encoders, four tasks and three protocols, as records of the real format. To look at its page:

    OMP_NUM_THREADS=1 python -m tests.transfer.report.large_bench FOLDER     # then: ISOGRAFT_HOME=FOLDER transfer report

Shapes: N test images, C target columns, E episodes.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array
from transfer.records.episodes import Episodes, episode_arrays
from transfer.records.record import Identity, Meta, Record, write_record
from transfer.stats.placement_components import placement_values


class MadeTask(NamedTuple):
    """kind and classes of a task, its number of patients (two images each), and how much the encoders differ on it."""

    kind: str
    classes: tuple[str, ...]
    patients: int
    spread: float


class MadeEncoder(NamedTuple):
    name: str
    role: str
    arch: str
    skill: float


TASKS = {
    "pneumonia": MadeTask("binary", ("pneumonia",), 300, 1.0),
    "view": MadeTask("binary", ("view=PA",), 200, 2.0),
    "nct_crc_he_tissue_types": MadeTask("multiclass", ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"), 250, 1.5),
    "nih_findings": MadeTask("multilabel", ("Atelectasis", "Cardiomegaly", "Effusion", "Nodule"), 8, 0.5),  # too few patients
}
ENCODERS = [
    *(
        MadeEncoder(name, "encoder", "resnet50" if i % 2 else "vit_small_patch16_224", skill)
        for i, (name, skill) in enumerate(
            {
                "cxr_barlowtwins": 0.9,
                "cxr_byol": 0.7,
                "cxr_dino": 1.1,
                "cxr_dinov2": 1.2,
                "cxr_mae": 0.5,
                "cxr_moco": 1.0,
                "cxr_simclr": 0.8,
                "cxr_supcon": 0.75,
                "cxr_vicreg": 0.85,
                "path_ijepa": 0.2,
                "runs/a_run_with_a_rather_long_name_2026_11_29_seed3@12000": 0.95,
                "timm_vit_small_patch16_224.augreg_in21k_ft_in1k:size=224": 0.72,
            }.items()
        )
    ),
    MadeEncoder("imagenet_resnet50", "imagenet", "resnet50", 0.7),
    MadeEncoder("imagenet_vit_small_patch16_224", "imagenet", "vit_small_patch16_224", 0.72),
    MadeEncoder("random_resnet50", "random", "resnet50", 0.1),
]
PROTOCOLS = {"knn": 0.85, "fewshot": 0.7, "linear": 1.0}  # protocol -> factor of every skill
SHOTS, EPISODES = (1, 4, 16), 30


def make_records(
    tasks: Sequence[str] = tuple(TASKS), protocols: Sequence[str] = tuple(PROTOCOLS), encoders: Sequence[MadeEncoder] = tuple(ENCODERS)
) -> list[Record]:
    """One record per encoder, task and protocol."""
    return [make_record(encoder, task, protocol) for task in tasks for protocol in protocols for encoder in encoders]


def make_record(encoder: MadeEncoder, task_name: str, protocol: str) -> Record:
    """Scores whose log odds rise with the label by the encoder's skill; patients are called Doe-0, Doe-1, ..."""
    task, skill = TASKS[task_name], encoder.skill * PROTOCOLS[protocol]
    skill = 0.7 + (skill - 0.7) * TASKS[task_name].spread
    seed = [list(TASKS).index(task_name), list(PROTOCOLS).index(protocol), sum(map(ord, encoder.name))]
    draw, truth = np.random.default_rng(seed), np.random.default_rng(seed[0])
    arrays: dict[str, Array] = {}
    difficulty = truth.normal(0, 1, (task.patients, len(task.classes)))  # shared by all encoders, so that differences are paired
    for part in ("val", "test"):
        who = np.repeat(np.arange(task.patients), 2)
        if task.kind == "multiclass":
            y = np.eye(len(task.classes))[truth.integers(0, len(task.classes), task.patients)][who]
        else:
            y = truth.integers(0, 2, (task.patients, len(task.classes)))[who].astype(float)
        odds = np.exp(skill * (2 * y - 1) + difficulty[who] + 0.4 * draw.normal(0, 1, y.shape))
        patient = np.array([f"Doe-{part}-{i}" for i in who])
        arrays |= {f"{part}_key": np.array([f"{p}/img{j}" for j, p in enumerate(patient)]), f"{part}_patient": patient}
        arrays |= {
            f"{part}_y": y.astype(np.float32),
            f"{part}_scores": odds / odds.sum(1, keepdims=True) if task.kind == "multiclass" else odds / (1 + odds),
        }
    more: dict[str, object] = {}
    if protocol == "fewshot":
        episodes = {shots: make_episodes(arrays["test_y"], np.log(arrays["test_scores"]), shots, draw) for shots in SHOTS}
        arrays |= episode_arrays(episodes)
        more["episodes"] = {str(shots): {"mean": e.mean, "sd": e.std} for shots, e in episodes.items()}
        more["episode_supports"] = {str(shots): e.supports for shots, e in episodes.items()}
    counts = {part: {"patients": task.patients, "images": 2 * task.patients} for part in ("train", "val", "test")}
    identity = Identity(
        task=task_name,
        store=f"store-{task_name}",
        labels="l" * 16,
        split=f"split-{task_name}",
        partition=f"split-{task_name}",
        encoder=encoder.name,
        encoder_sha256=f"sha-{encoder.name}",
        card="c",
        protocol=protocol,
        protocol_hash=protocol * 4,
    )
    meta = Meta(
        identity=identity,
        kind=task.kind,
        classes=list(task.classes),
        role=encoder.role,
        arch=encoder.arch,
        size=224,
        counts=counts,
        protocol_config={"k": 20} if protocol == "knn" else {"seed": 0},
        versions={"isograft": "0.1.0"},
        seconds={"total": 1.0},
        **more,
    )
    return Record(meta, arrays)


def make_episodes(y: Array, logit: Array, shots: int, draw: np.random.Generator) -> Episodes:
    """Episodes whose scores are `logit` (N, C) with noise that falls with the number of shots."""
    noise = 3 / np.sqrt(shots)
    placement, areas = np.zeros(y.shape), np.zeros((EPISODES, y.shape[1]))
    for c in range(y.shape[1]):
        scores = logit[:, c] + noise * draw.normal(size=(EPISODES, len(y)))  # (E, N)
        values = placement_values(y[:, c] > 0.5, scores)
        placement[:, c], areas[:, c] = values.mean(axis=0), values[:, y[:, c] > 0.5].mean(axis=1)
    return Episodes(areas.mean(axis=1), areas, placement.astype(np.float32), f"supports-{shots}")


def write_records(folder: Path) -> list[Path]:
    """Writes all records below `folder`, by the function that the bench writes them with."""
    os.environ["ISOGRAFT_HOME"] = str(folder)
    return [write_record(record) for record in make_records()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(len(write_records(parser.parse_args().folder)), "records")
