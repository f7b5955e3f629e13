"""What a trained encoder remembers of its images, for prediction sets, ensembles and distances: `reference.safetensors` beside the head.

It holds numbers of single images, and so of patients: logits, label and a patient's number of each validation image, and features of train
images. It names no image and no patient, and it stays on this machine: exports leave it out.

Shapes: V validation images, N train images, C labels or classes, D width, K means, R directions,
S kinds of distance.
"""

from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from encoders.runtime.arrays import FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.zoo.card import Card
from encoders.zoo.head_card import Head
from transfer.metrics.outliers import Gaussians, OutlierScore, TrainFeatures

REFERENCE_FILE = "reference.safetensors"
UNKNOWN_LABEL = -1
UNIT_TYPE = np.float16  # of features scaled to length 1, most of the file
DISTANCES: tuple[OutlierScore, ...] = get_args(OutlierScore)
GAUSSIAN_NAMES = ("mean", "basis", "variance", "rest")
RETRAIN = "train it again with `transfer train --replace`"


class ValidationRows(NamedTuple):
    """Validation images in the order of the hashes of their pixels, which is equal for all networks of one task and split.

    logits: (V, C) before the temperature.  y: (V, C) in {0, 1}, NaN = unknown.  patient: (V,) numbers."""

    logits: FloatArray
    y: FloatArray
    patient: IntArray


class Reference(NamedTuple):
    """validation: what sets are calibrated on.  train: what distances are measured to.

    distance: (V, S) the distances of the validation images, of each kind of DISTANCES."""

    validation: ValidationRows
    train: TrainFeatures
    distance: FloatArray


def write_reference(folder: Path, reference: Reference, head: Head) -> None:
    """Writes the file for the head of the encoder in `folder`. Only this user may read it (mode 0600)."""
    v = reference.validation
    labels = np.where(np.isnan(v.y), UNKNOWN_LABEL, v.y).astype(np.int8)
    arrays = {"logits": v.logits.astype(np.float32), "labels": labels, "patient": v.patient.astype(np.int32)}
    arrays |= {"distance": reference.distance.astype(np.float32), "unit": reference.train.unit.astype(UNIT_TYPE)}
    for name in ("classes", "whole"):
        g = getattr(reference.train, name)
        arrays |= {f"{name}.{field}": np.atleast_1d(np.asarray(getattr(g, field), dtype=np.float32)) for field in GAUSSIAN_NAMES}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    with atomic_write(folder / REFERENCE_FILE, private=True) as part:
        part.write_bytes(save(tensors, metadata={"head": head.sha256}))


def read_reference(folder: Path | None, card: Card, purpose: str) -> Reference:
    """The reference of the encoder in a folder.  purpose: what it is needed for, for the message.

    Raises InputError if there is none, as after an export, and for one that is damaged or of another head."""
    path = None if folder is None else folder / REFERENCE_FILE
    if path is None or not path.is_file():
        raise InputError(
            f"{purpose} needs what {card.name} remembers of its validation and train images ({REFERENCE_FILE}), and it is not here: "
            f"exports and earlier versions have none; {RETRAIN} where the images are"
        )
    assert card.head is not None, "its head was read"
    try:
        a = {name: value.numpy() for name, value in load_file(path).items()}
        if _read_head_digest(path) != card.head.sha256:
            raise InputError(f"{path} belongs to another training than the head of {card.name}; {RETRAIN}")
        y = np.where(a["labels"] == UNKNOWN_LABEL, np.nan, a["labels"].astype(np.float64))
        validation = ValidationRows(a["logits"].astype(np.float64), y, a["patient"].astype(np.int64))
        classes, whole = (_read_gaussians(a, name) for name in ("classes", "whole"))
        reference = Reference(validation, TrainFeatures(classes, whole, a["unit"].astype(np.float64)), a["distance"].astype(np.float64))
    except InputError:
        raise
    except (SafetensorError, *READ_ERRORS) as error:
        raise InputError(f"{path} is damaged ({describe_reason(error)}); {RETRAIN}") from error
    return reference


def _read_head_digest(path: Path) -> str | None:
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return (file.metadata() or {}).get("head")


def _read_gaussians(arrays: dict[str, FloatArray], name: str) -> Gaussians:
    mean, basis, variance, rest = (arrays[f"{name}.{field}"].astype(np.float64) for field in GAUSSIAN_NAMES)
    return Gaussians(mean, basis, variance, float(rest[0]))
