"""What a trained encoder remembers of its train and validation images, computed once at the end of its training.

Shapes: V validation images, N train images, C labels or classes, D width of the features.
"""

import numpy as np
import torch

from encoders.features.input_batches import iterate_inputs
from encoders.runtime.arithmetic import without_tf32
from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.random import Purpose, permutation
from encoders.zoo import backbone
from encoders.zoo.encoder import EncoderInput
from transfer.metrics.outliers import fit_train_features, group_by_class, score_outliers
from transfer.protocols.common import ImageSet, find_labeled_rows, order_by_image
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.predict_images import FORWARD_BATCH
from transfer.trained.reference_file import DISTANCES, UNIT_TYPE, Reference, ValidationRows

MOST_TRAIN_IMAGES = (
    4096  # whose features are kept: 1 to 5 % are enough for neighbours (Sun et al. 2022, sec. 4.3), and 2,048 for a covariance
)


def build_reference(network: FinetuneNetwork, train: ImageSet, val: ImageSet, logits: Array, workers: int = 0) -> Reference:
    """The reference of a network.  train, val: the parts of its task.  logits: (V, C) of the validation images, before the temperature.

    Train images are those that have a label, a part of them if there are more than MOST_TRAIN_IMAGES."""
    order = order_by_image(val.key, val.sha256)
    own = choose_train_images(train)
    fitted = fit_train_features(embed_with(network, own, workers), group_by_class(own.y, own.kind))
    fitted = fitted._replace(unit=fitted.unit.astype(UNIT_TYPE).astype(np.float64))  # as the file has them
    features = embed_with(network, val.at(order), workers)
    distance = np.stack([score_outliers(features, fitted, kind) for kind in DISTANCES], axis=1)
    validation = ValidationRows(np.asarray(logits, dtype=np.float64)[order], val.y[order], number_patients(val.patient[order]))
    return Reference(validation, fitted, distance)


def choose_train_images(train: ImageSet) -> ImageSet:
    """At most MOST_TRAIN_IMAGES labeled train images, which do not depend on the order of the store."""
    labeled = train.at(np.flatnonzero(find_labeled_rows(train.y, train.kind)))
    order = order_by_image(labeled.key, labeled.sha256)
    return labeled.at(order[np.sort(permutation(0, Purpose.PROBE, 0, len(order))[:MOST_TRAIN_IMAGES])])


def number_patients(patient: Array) -> IntArray:
    """(V,) numbers of the patients in the order in which they first occur."""
    _, first, code = np.unique(np.asarray(patient).astype(str), return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[code.reshape(-1)]


def embed_with(network: FinetuneNetwork, images: ImageSet, workers: int = 0) -> FloatArray:
    """(M, D) pooled features of the images, in fp32, which the head maps to logits."""
    rows = np.asarray(images.index, np.int64)
    parts = [rows[start : start + FORWARD_BATCH] for start in range(0, len(rows), FORWARD_BATCH)]
    network.eval()
    with torch.inference_mode(), without_tf32():
        batches = [head_features(network, x).double().cpu().numpy() for x in iterate_inputs(images.encoder, images.store, parts, workers)]
    return np.concatenate(batches)


def head_features(network: FinetuneNetwork, x: EncoderInput) -> torch.Tensor:
    """(B, D) what the head of a kept network sees."""
    assert isinstance(x, torch.Tensor), "a trained encoder has one network"
    return backbone.pooled_features(network.backbone, x)
