"""Explaining images: for each its probabilities, its decision, the label that is explained, and a map of each method.

Shapes: n images of a batch, C labels or classes, S side of the input.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arithmetic import without_tf32
from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.errors import unknown_name_error
from encoders.zoo.head_card import Head
from transfer.explain.contract import EvidenceMaps, Method
from transfer.explain.select_images import ImageBatch, SelectedImages, iterate_images
from transfer.tasks.plain_classes import plain_class
from transfer.trained.calibrate import decide_labels
from transfer.trained.predict import TrainedModel


@dataclass(frozen=True)
class ExplainedBatch:
    """images: as they were read.  probability: (n, C) calibrated.  decided: (n, C).  label: (n,) the output that is explained.

    maps: method -> its maps of the n images."""

    images: ImageBatch
    probability: FloatArray
    decided: BoolArray
    label: IntArray
    maps: dict[str, EvidenceMaps]


def explain_images(
    model: TrainedModel,
    images: SelectedImages,
    methods: Sequence[Method],
    label: str | None = None,
    workers: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> Iterator[ExplainedBatch]:
    """Yields the explained images, a batch at a time; an unreadable one has a problem and no map.

    label: the one to explain; None: of each image the most probable one.  Raises InputError for an unknown label."""
    index = find_label(model.head, label)
    for batch in iterate_images(model, images, workers):
        yield explain_batch(model, batch, methods, index)
        progress(len(batch.keys))


def explain_batch(model: TrainedModel, batch: ImageBatch, methods: Sequence[Method], index: int | None) -> ExplainedBatch:
    """The maps of the images that could be read.  index: of the label to explain; None: of each image the most probable one."""
    thresholds = None if model.head.thresholds is None else np.array(model.head.thresholds)
    if batch.x is None:
        empty = np.zeros((0, len(model.head.classes)))
        return ExplainedBatch(batch, empty, empty.astype(bool), np.zeros(0, np.int64), {})
    probability = model.probabilities(batch.x)
    label = probability.argmax(axis=1) if index is None else np.full(len(probability), index)
    maps = compute_maps(model, batch.x, label, methods)
    return ExplainedBatch(batch, probability, decide_labels(probability, thresholds), label.astype(np.int64), maps)


def compute_maps(model: TrainedModel, x: Tensor, label: Array, methods: Sequence[Method]) -> dict[str, EvidenceMaps]:
    """Method -> its maps of prepared images (n, K, S, S).  label: (n,)."""
    model.network.eval()
    target = torch.from_numpy(np.asarray(label, dtype=np.int64)).to(x.device)
    with without_tf32():
        return {method.name: method.explain(model.network, x, target) for method in methods}


def find_label(head: Head, label: str | None) -> int | None:
    """The output of a label, which may be written `pneumonia` for `label=pneumonia`. Raises InputError if the head has no such label."""
    if label is None:
        return None
    names = [plain_class(name) for name in head.classes]
    if label not in head.classes and names.count(label) != 1:
        raise unknown_name_error("label", label, head.classes, f"(of task {head.task})")
    return head.classes.index(label) if label in head.classes else names.index(label)
