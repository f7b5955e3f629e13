"""The loss and the draws that settings of imbalance name.

Shapes: N train rows, C labels or classes.
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from transfer.losses.asymmetric import asymmetric_loss
from transfer.losses.class_counts import count_classes
from transfer.losses.contract import StepLoss, TrainingLoss
from transfer.losses.effective_number import effective_weights
from transfer.losses.focal import focal_loss
from transfer.losses.ldam import label_margins, ldam_loss
from transfer.losses.logit_adjustment import log_frequency, logit_adjusted_loss
from transfer.losses.sampling import draw_weights, prevalence_shift
from transfer.losses.settings import ImbalanceSettings
from transfer.losses.supervised import class_weights, logit_shift, supervised_loss

SAMPLING_POWER = {"balanced_sampling": 0.0, "sqrt_sampling": 0.5}


def build_loss(cfg: ImbalanceSettings, balanced: bool, y: Array, kind: str, patient: Array, device: torch.device) -> TrainingLoss:
    """The loss for train rows y (N, C), NaN = unknown. balanced: of `class_weights`.  patient: (N,).

    Raises InputError for an approach that the kind of task does not have."""
    counts, plain = count_classes(y), np.zeros(y.shape[1])
    if cfg.imbalance in SAMPLING_POWER:
        weight = draw_weights(y, kind, patient, SAMPLING_POWER[cfg.imbalance])
        return TrainingLoss(_weighted(np.ones(y.shape[1]), kind, device), prevalence_shift(y, kind, weight), weight)
    if cfg.imbalance == "focal":
        if kind == "multiclass" and cfg.focal.alpha is not None:
            raise InputError("finetune.focal.alpha weights positives, and the classes of this task have none; leave it out")
        return TrainingLoss(_timeless(partial(focal_loss, kind=kind, gamma=cfg.focal.gamma, alpha=cfg.focal.alpha)), plain)
    if cfg.imbalance == "asymmetric":
        if kind == "multiclass":
            raise InputError("finetune.imbalance=asymmetric is a loss of labels, and this task has classes; use focal, ldam or effective")
        return TrainingLoss(_timeless(partial(asymmetric_loss, **cfg.asymmetric.model_dump())), plain)
    if cfg.imbalance == "logit_adjustment":
        adjustment = _to_device(cfg.logit_adjustment.tau * log_frequency(counts, kind), device)
        return TrainingLoss(_timeless(partial(logit_adjusted_loss, kind=kind, adjustment=adjustment)), plain)
    if cfg.imbalance == "ldam":
        positive, negative = (_to_device(margin, device) for margin in label_margins(counts, kind, cfg.ldam.max_margin))
        ones, late = torch.ones_like(positive), _to_device(effective_weights(counts, kind, cfg.ldam.beta), device)

        def loss(logits: Tensor, y: Tensor, progress: float) -> Tensor:
            weight = late if progress >= cfg.ldam.deferred and cfg.ldam.deferred < 1 else ones
            return ldam_loss(logits, y, kind, positive, negative, cfg.ldam.scale, weight)

        return TrainingLoss(loss, plain)
    weight = effective_weights(counts, kind, cfg.effective.beta) if cfg.imbalance == "effective" else class_weights(y, kind, balanced)
    return TrainingLoss(_weighted(weight, kind, device), logit_shift(weight))


def _weighted(weight: FloatArray, kind: str, device: torch.device) -> StepLoss:
    return _timeless(partial(supervised_loss, weight=_to_device(weight, device), kind=kind))


def _timeless(loss: "partial[Tensor]") -> StepLoss:
    """A loss that is the same throughout the training."""
    return lambda logits, y, progress: loss(logits, y)


def _to_device(values: FloatArray, device: torch.device) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32, device=device)
