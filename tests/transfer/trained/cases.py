"""Tiny trained encoders, and folders of files, for the tests of training and predicting."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.ingest.folder import FolderSource
from encoders.ingest.shards import ingest
from encoders.store.store import Store
from tests.transfer import toys
from transfer.tasks.register import build_task
from transfer.tasks.task import save_task
from transfer.trained.train import TrainRequest, train_encoder

START = "random_test_resnet:size=32,channels=1"
QUICK = ("finetune.min_steps=6", "finetune.max_steps=6", "finetune.evaluations=2", "finetune.batch=8", "finetune.augment.preset=none")


def silent(text):
    """Takes the notes of a training."""


def train(name="trained", encoder=START, task="sick", log=silent, **more):
    """The encoder, trained for six steps."""
    more = {"overrides": QUICK, "near_duplicates": False, **more}
    return train_encoder(TrainRequest(encoder, task, name, **more), log)


def add_task(store, label="sick", name=None, **more):
    """A registered task of one or several labels of a store."""
    labels = [label] if isinstance(label, str) else list(label)
    return save_task(build_task(name or labels[0], [str(store)], Store.open(store), {"labels": labels, **more}, None)[0])


def toy_task(folder, label="sick", name=None, **more):
    """A store of toys with a registered task; returns the store."""
    store = toys.store(Path(folder) / "toy.h5", patients=24)
    add_task(store, label, name, **more)
    return store


def png_folder(folder, patients=24, colour=False, deep=False):
    """Files of different sizes, two per patient, with a table; half of the patients are sick. Returns the folder."""
    draw = np.random.default_rng(5)
    folder.mkdir()
    lines = []
    for patient in range(patients):
        for image in range(2):
            height, width = draw.integers(34, 60, 2)
            stripes = 60 * (patient % 2) * np.sin(np.arange(width) * np.pi / 2)
            gray = np.clip(draw.normal(110, 20, (height, width)) + stripes, 0, 255).astype(np.uint8)
            pixels = gray.astype(np.uint16) * 200 if deep else np.stack([gray, gray // 2, 255 - gray], -1) if colour else gray
            name = f"{patient:02d}-{image}.png"
            Image.fromarray(pixels).save(folder / name)
            lines.append(f"{name},p{patient},{patient % 2}")
    (folder / "labels.csv").write_text("\n".join(["file,patient,sick", *lines]) + "\n")
    return folder


def ingest_folder(folder, out, **options):
    """The store of a folder of `png_folder`."""
    ingest(FolderSource(folder, folder / "labels.csv", **({"label": ["sick"], "size": 32} | options)), out)
    return out


def read_table(path):
    """The rows of a CSV."""
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))
