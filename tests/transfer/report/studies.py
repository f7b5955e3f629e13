"""A made-up study for tests of the report: a store with a stored split, a registered task, and records of its test images."""

from pathlib import Path

import numpy as np

from encoders.runtime.paths import home_dir
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.store_edits import edit_store
from transfer.records.record import Identity, Meta, Record
from transfer.tasks.load import load_task
from transfer.tasks.task import SplitRule, Task, save_task


def make_store(sizes: dict[str, int], label: str = "malignant", dataset: str = "breastmnist", each: int = 1) -> Path:
    """A store of noise with the given number of images in each part, `each` images per patient, and the column `split`."""
    n, draw = sum(sizes.values()), np.random.default_rng(0)
    part = np.concatenate([[name] * count for name, count in sizes.items()])
    images = draw.integers(0, 255, (n, 8, 8, 1)).astype(np.uint8)
    y = (np.arange(n) % 3 == 0).astype(float)
    key = [f"{p}/{i:04d}" for i, p in enumerate(part)]
    patient = [f"Doe-{p}-{i // each}" for i, p in enumerate(part)] if each > 1 else key
    meta = {"sex": np.where(np.arange(n) % 2, "F", "M"), "site": np.where(np.arange(n) % 5, "north", "south")}
    path = save_store(home_dir() / f"{dataset}.h5", images, patient=patient, labels={label: y}, dataset=dataset, meta=meta)
    with edit_store(path) as file:
        for name, values in (("split", part), ("key", np.array(key))):
            if name in file["index"]:
                del file["index"][name]
            file["index"].create_dataset(name, data=values.astype("S"))
    return path


def add_task(path: Path, name: str = "breast", label: str = "malignant", **more) -> Task:
    fields = {"split": SplitRule(column="split"), "kind": "binary", "classes": [label]} | more
    task = Task(name=name, store=[path.name], labels=[label], **fields)
    save_task(task, replace=True)
    return task


def make_record(task: Task, encoder: str = "mine", role: str = "encoder", skill: float = 1.0, **more) -> Record:
    """A record of all images of the task's validation and test parts, with scores of the given skill."""
    loaded = load_task(task)
    draw, arrays = np.random.default_rng(len(encoder)), {}
    for part in ("val", "test"):
        rows = loaded.split.rows(part)
        y = loaded.y[rows]
        odds = np.exp(skill * (2 * y - 1) + draw.normal(0, 1, y.shape))
        arrays |= {f"{part}_key": loaded.key[rows], f"{part}_patient": loaded.patient[rows]}
        arrays |= {f"{part}_y": y.astype(np.float32), f"{part}_scores": odds / (1 + odds)}
    arrays |= {f"test_group_{name}": values[loaded.split.rows("test")] for name, values in loaded.groups.items()}
    store = Store.open([home_dir() / p for p in task.store])
    split = loaded.split.hash
    fields = {"task": task.name, "store": store.fingerprint, "labels": loaded.labels_hash, "split": split, "partition": split}
    fields |= {"encoder": encoder, "encoder_sha256": f"sha-{encoder}", "card": "c", "protocol": "linear", "protocol_hash": "p" * 16}
    identity = Identity(**(fields | {k: more.pop(k) for k in list(more) if k in Identity.model_fields}))
    settings = {"arch": "resnet18", "size": 224, "counts": loaded.counts(), "versions": {"isograft": "0.1.0", "torch": "2.9"}} | more
    return Record(Meta(identity=identity, kind=task.kind, classes=task.classes, role=role, **settings), arrays)
