"""From a fine-tuned network to a head: a plain linear layer, its temperature and its thresholds, chosen on validation images.

The probabilities of a head are those of its logits divided by the temperature (Guo et al. 2017, arXiv:1706.04599, sec. 4.2), and a label is
positive from its threshold on, where sensitivity + specificity is highest on validation images (Youden 1950). A multi-class head decides
for the most probable class.

Shapes: V validation images, M images, C labels or classes, D width of the features.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from encoders.runtime.arrays import Array, BoolArray, FloatArray
from encoders.zoo.head import HeadWeights
from encoders.zoo.head_card import NEVER, HeadKind
from transfer.metrics import choose_thresholds, temper
from transfer.metrics.calibration import fit_known_temperature
from transfer.protocols.finetune import Fitted
from transfer.protocols.logistic import logits_to_probabilities

UNKNOWN_THRESHOLD = 0.5


@dataclass(frozen=True)
class Calibration:
    """What validation images decided. threshold: (C,); None for a multi-class head.  notes: sentences for the user."""

    temperature: float
    threshold: FloatArray | None
    notes: list[str] = field(default_factory=list)


def fold_head(fitted: Fitted) -> HeadWeights:
    """The head as one linear layer on the pooled features: with the scale of normalised features, and without the class weights' offset."""
    layer, scale = fitted.network.head, fitted.network.scale
    offset = torch.as_tensor(np.asarray(fitted.class_offset), dtype=torch.float64)
    weight, bias = layer.weight.detach().cpu().double() * scale, layer.bias.detach().cpu().double() - offset
    return HeadWeights(weight.float(), bias.float())


def calibrated_probabilities(logits: Array, temperature: float, kind: HeadKind) -> FloatArray:
    """(M, C) probabilities of logits (M, C)."""
    return temper(logits_to_probabilities(logits, kind), temperature, kind)


def calibrate_head(y: Array, logits: Array, kind: HeadKind, classes: tuple[str, ...]) -> Calibration:
    """Temperature and thresholds from validation images.  y: (V, C) in {0, 1}, NaN = unknown.  logits: (V, C)."""
    notes = []
    temperature = fit_known_temperature(y, logits_to_probabilities(logits, kind), kind)
    if temperature is None:
        notes.append(
            "the network makes no error on the validation images, so they determine no temperature: probabilities are left as they are; "
            "they may be too extreme"
        )
        temperature = 1.0
    if kind == "multiclass":
        return Calibration(temperature, None, notes)
    known = ~np.isnan(y)
    if single := [name for name, c in zip(classes, range(y.shape[1]), strict=True) if len(np.unique(y[known[:, c], c] > 0.5)) < 2]:
        notes.append(f"the validation images have one class of {', '.join(single)}, whose threshold is {UNKNOWN_THRESHOLD}")
    cut = choose_thresholds(y, calibrated_probabilities(logits, temperature, kind))
    useless = [name for name, value in zip(classes, cut, strict=True) if not np.isfinite(value)]
    if useless:
        notes.append(f"no threshold of {', '.join(useless)} is better than chance on the validation images: it is never positive")
    return Calibration(temperature, np.where(np.isfinite(cut), cut, NEVER), notes)


def decide_labels(probability: Array, threshold: FloatArray | None) -> BoolArray:
    """(M, C) which labels are positive; of a multi-class head, which class is the most probable."""
    if threshold is not None:
        return np.asarray(probability >= threshold)
    decided = np.zeros(probability.shape, dtype=bool)
    decided[np.arange(len(probability)), probability.argmax(axis=1)] = True
    return decided
