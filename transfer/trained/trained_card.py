"""The card and the manifest of an encoder that was fine-tuned on a task.

Shapes: P images of the manifest, C labels or classes, L label columns.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.json_types import Json
from encoders.store.training_manifest import build_manifest
from encoders.store.write import pixel_fingerprint
from encoders.zoo.card import Card, list_trained_labels
from encoders.zoo.encoder import Encoder
from transfer.protocols.finetune_config import Config
from transfer.strategies.names import FINETUNE, strategy_label
from transfer.tasks.load import LoadedTask

ROLE = "fine-tuning"  # of the labels, in the lineage


def build_trained_card(
    name: str, encoder: Encoder, loaded: LoadedTask, rows: IntArray, cfg: Config, selection: Mapping[str, Any], licence: str
) -> Card:
    """The card, without its head.

    encoder: that it started from.  rows: of the images that train it or choose something.  selection: of the fine-tuning."""
    store = loaded.store
    inherited = list_trained_labels(encoder.card)
    return encoder.card.replace(
        name=name,
        modality=store.modality,
        method=FINETUNE,
        steps=int(selection["step"]),
        config={
            "method": {"name": FINETUNE},
            "task": loaded.task.name,
            "strategy": strategy_label(cfg),
            **cfg.model_dump(mode="json"),
            **describe_search_of_card(selection),
        },
        lineage={
            "init": encoder.card.name,
            "init_sha256": encoder.sha256,
            "method": FINETUNE,
            "task": loaded.task.name,
            "strategy": strategy_label(cfg),
            "labels": {"columns": describe_trained_labels(loaded, rows), "without_test_images_of": [loaded.task.name]},
            **({"labels_of_init": inherited} if inherited else {}),
        },
        corpus={
            "geometry": store.attrs.get("geometry"),
            "unit": store.attrs.get("unit"),
            "dataset": store.dataset,
            "fingerprint": store.fingerprint,
            "images": len(rows),
            "used": pixel_fingerprint(loaded.sha256[rows].tolist()),
        },
        licence=licence,
        sha256=None,
        versions={},
        canary=None,
        network_canary=None,
        pixel_canary=None,
        source_check=None,
        source=None,
        probe_history=keep_finite(selection["table"]),
        head=None,
    )


def describe_search_of_card(selection: Mapping[str, Any]) -> dict[str, Any]:
    """The search that chose the settings, without its trials; {} without one."""
    if "search" not in selection:
        return {}
    return {"search": {name: value for name, value in selection["search"].items() if name not in ("table", "rungs", "seconds")}}


def keep_finite(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The validations without values that are NaN or infinite, such as the loss of a step that overflowed: a card holds none."""
    return [{key: value for key, value in row.items() if not isinstance(value, float) or math.isfinite(value)} for row in table]


def describe_trained_labels(loaded: LoadedTask, rows: IntArray) -> list[Json]:
    """What the card says about each label column: how many images of each class were used, for training and for validation."""
    return [
        {
            "column": column,
            "role": ROLE,
            "weight": 1.0,
            "classes": list(classes),
            "images": counts,
            "digest": hashlib.sha256(np.nan_to_num(y[rows], nan=-1).astype("<f8").tobytes()).hexdigest()[:16],
        }
        for column, classes, y, counts in _list_columns(loaded, rows)
    ]


def _list_columns(loaded: LoadedTask, rows: IntArray) -> list[tuple[str, list[str], Array, dict[str, Json]]]:
    """For each label: its name, its classes, its targets (N, C of it), and the number of images of each class among `rows`."""
    task, y = loaded.task, loaded.y
    if task.kind == "multiclass":
        known = y[rows][np.isfinite(y[rows]).all(axis=1)]
        counts: dict[str, Json] = {f"labeled {name!r}": int(known[:, c].sum()) for c, name in enumerate(task.classes)}
        return [(task.labels[0], task.classes, y, counts)]
    columns = []
    for c, name in enumerate(task.classes):  # `label=pneumonia` and not `label`, which another task's column may be called too
        values = y[rows, c]
        counts = {"labeled '1'": int((values > 0.5).sum()), "labeled '0'": int((values <= 0.5).sum())}
        columns.append((name, [name], y[:, [c]], counts))
    return columns


def build_trained_manifest(loaded: LoadedTask, rows: IntArray) -> dict[str, Array]:
    """The images `rows` as hashes, with `label_names` (L,) and `labeled` (P, L): of which images each label was used."""
    columns = _list_columns(loaded, rows)
    labeled = np.stack([np.isfinite(y[rows]).any(axis=1) for _, _, y, _ in columns], axis=1)
    names = np.array([name for name, *_ in columns], dtype=str)
    return build_manifest(loaded.store, rows) | {"label_names": names, "labeled": labeled}
