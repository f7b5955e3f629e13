"""Full fine-tuning of a copy of the encoder with a linear head, with early stopping on validation rows; the best weights are kept.

AdamW with layer decay, linear warm-up and cosine decay, drop path for transformers, weight averaging, augmentation by modality. Order,
augmentation, head and drop path are functions of (seed, step), so that two runs on one CPU give the same scores.

Budget: `epochs` passes, but at least `min_steps` steps, because thirty labeled images need more than ten passes. With the defaults,
3,000 images at 64 px and a ResNet-18 take about 940 steps of 32 images, about five minutes on two CPU cores.

Shapes: B images of a step, N train rows, M rows to score, D width, C labels or classes.
"""

import copy
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.presets import PRESETS, resolve_augment
from encoders.loading.batches import Batches
from encoders.runtime.arithmetic import resolve_training_precision, use_precision, without_tf32
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import Config as Base
from encoders.runtime.cpu_bf16 import describe_wrong_gradient, has_wrong_bf16_gradient
from encoders.runtime.errors import InputError
from encoders.runtime.moving_average import move_average
from encoders.runtime.optim import build_optimizer, clip_gradients, set_lr
from encoders.runtime.optim_config import Optim
from encoders.runtime.precision_names import TrainingPrecision
from encoders.zoo import backbone
from encoders.zoo.batchnorm import freeze_statistics
from encoders.zoo.encoder import EncoderInput
from encoders.zoo.names import STORED_FEATURES
from encoders.zoo.parts import JoinedNetwork, count_normalised, list_networks
from encoders.zoo.pixels import has_network
from encoders.zoo.stages import inner_network, select_stages
from transfer.protocols import layers
from transfer.protocols.common import ImageSet, find_labeled_rows, in_image_order, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select
from transfer.protocols.logistic import logits_to_probabilities
from transfer.protocols.predict_images import predict_logits
from transfer.protocols.supervised import class_weights, logit_shift, supervised_loss

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

VERSION = 2
NEEDS: Needs = "images"


class Config(Base):
    """How the encoder is trained on labels."""

    batch: int = Field(32, ge=2, description="images per step; fewer when there are fewer train rows")
    epochs: float = Field(10.0, gt=0, description="passes over the train rows, limited to between min_steps and max_steps steps")
    min_steps: int = Field(200, ge=1, description="minimum number of steps")
    max_steps: int = Field(20_000, ge=1, description="maximum number of steps")
    evaluations: int = Field(10, ge=1, description="number of validations, evenly spaced")
    patience: int = Field(4, ge=1, description="validations without a better score after which training stops")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    optim: Optim = Field(
        Optim(kind="adamw", lr=3e-4, lr_rule="none", weight_decay=0.05, betas=(0.9, 0.999), lr_end=0.01), description="optimizer"
    )
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="learning rate factor per layer, from the head down; null: 0.75 for transformers, 0.9 for CNNs"
    )
    head_lr: float = Field(1.0, gt=0, description="learning rate of the head, as a multiple of the base rate")
    drop_path: float | None = Field(None, ge=0, lt=1, description="stochastic depth; null: 0.1 for transformers, 0 for CNNs")
    ema: float = Field(
        0.99, ge=0, lt=1, description="decay per step of the averaged weights, which are validated and kept; 0: no averaging"
    )
    clip: float = Field(1.0, ge=0, description="maximum gradient norm; 0: no clipping")
    class_weight: Literal["balanced", "none"] = Field(
        "balanced", description="equal weight of all classes in the loss; removed again from the scores"
    )
    augment: dict[str, Any] = Field(
        {"preset": "auto"}, description="preset and knobs; auto: finetune_<modality of the store>, or none if there is no such preset"
    )
    freeze_bn: bool = Field(
        False, description="use and keep the encoder's BatchNorm statistics; useful for very small batches, not for random weights"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="arithmetic of training; auto: fp32 on a CPU, bf16 on a GPU that has it, otherwise fp16 with a scaled loss. The record "
        "holds what auto became. Validation and test images are scored in fp32, and fp32 is without TF32",
    )
    workers: int = Field(0, ge=0, description="loader processes of training and scoring; results do not depend on it")
    seed: int = Field(0, description="seed of the head, the order, the augmentation and drop path")


class FinetuneNetwork(nn.Module):
    """Backbone and linear head: maps images (B, K, S, S), or one input per part, to logits (B, C)."""

    def __init__(self, model: nn.Module, width: int, outputs: int, normalised: int = 0):
        """normalised: the features consist of that many vectors of norm 1; they are scaled to a mean square of 1 for the head."""
        super().__init__()
        self.backbone, self.head = model, nn.Linear(width, outputs)
        self.scale = math.sqrt(width / normalised) if normalised else 1.0
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: EncoderInput) -> Tensor:
        features: Tensor = self.backbone(x) if isinstance(x, tuple) else backbone.pooled_features(self.backbone, x)
        logits: Tensor = self.head(features * self.scale if self.scale != 1 else features)
        return logits


@dataclass
class Fitted(FittedProtocol[ImageSet]):
    """The network at its best validation score."""

    network: FinetuneNetwork
    encoder: "Encoder"
    kind: str
    class_offset: Array  # (C,) what the class weights added to the logits
    selection: dict[str, Any]
    workers: int = 0  # processes that read the images to score

    def scores(self, rows: ImageSet) -> FloatArray:
        """(M, C) probabilities; float32 forward pass in evaluation mode."""
        rows = replace(rows, encoder=self.encoder)
        return predict_images(self.network, rows, self.class_offset, self.kind, self.workers)


def fit(cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """Trains a copy of the network of `train.encoder`; `log` receives the loss and the score of every validation.

    Raises InputError for fewer than two labeled train rows, for an encoder without a network, and when no validation has a finite score."""
    encoder, train = train.encoder, in_image_order(train)
    if not has_network(encoder.card):
        what = "features of files have no network" if encoder.card.source == STORED_FEATURES else "pixels has no weights"
        raise InputError(f"{encoder.card.name} cannot be fine-tuned: {what}; use another protocol or encoder")
    rows = np.flatnonzero(find_labeled_rows(train.y, train.kind))
    if len(rows) < 2:
        raise InputError(
            f"fine-tuning needs at least two labeled train images, and the split has {len(rows)}; check the task's label column"
        )
    batch, device = min(cfg.batch, len(rows)), encoder.device
    steps = int(np.clip(round(cfg.epochs * len(rows) / batch), cfg.min_steps, max(cfg.max_steps, cfg.min_steps)))
    weight = class_weights(train.y[rows], train.kind, cfg.class_weight == "balanced")
    gpus = [device] if device.type == "cuda" else []
    cfg = cfg.model_copy(update={"precision": resolve_training_precision(cfg.precision, device)})
    with torch.random.fork_rng(devices=gpus), without_tf32(), build_batches(cfg, encoder, train, rows, batch) as batches:
        torch.manual_seed(cfg.seed)
        own = build_trainable_backbone(encoder, cfg.drop_path)
        pixels = encoder.card.preprocess
        if (cfg.precision, device.type) == ("bf16", "cpu") and has_wrong_bf16_gradient(own, pixels.channels, [pixels.size]):
            raise InputError(describe_wrong_gradient(encoder.card.name, [pixels.size]))
        network = FinetuneNetwork(own, encoder.card.dim, train.y.shape[1], count_normalised(encoder.card)).to(device)
        if cfg.freeze_bn:
            freeze_statistics(network.backbone)
        kept, selection = _train(
            cfg, network, encoder, batches, build_row_targets(train, rows, device), weight, steps, batch, train.kind, val, select, log
        )
    return Fitted(kept.eval(), encoder, train.kind, logit_shift(weight), selection, cfg.workers)


def _train(
    cfg: Config,
    network: FinetuneNetwork,
    encoder: "Encoder",
    batches: Batches,
    labels: Tensor,
    weight: Array,
    steps: int,
    batch: int,
    kind: str,
    val: ImageSet,
    select: Select,
    log: Log | None,
) -> tuple[FinetuneNetwork, dict[str, Any]]:
    """The network with its best weights, and the selection with every validation. labels: (rows of the store, C).

    On a GPU the host waits for the device at every validation, and with fp16 once a step, to learn whether a gradient overflowed."""
    device, precision = encoder.device, resolve_training_precision(cfg.precision, encoder.device)
    val = replace(val, encoder=encoder)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    groups = layers.parameter_groups(network.backbone, network.head, cfg.layer_decay, cfg.optim.weight_decay, cfg.head_lr)
    decays = [layers.default_layer_decay(one) if cfg.layer_decay is None else cfg.layer_decay for _, one in list_networks(network.backbone)]
    optimizer = build_optimizer(groups, cfg.optim, batch)
    average = copy.deepcopy(network) if cfg.ema else network
    cost = torch.as_tensor(weight, dtype=torch.float32, device=device)
    checks = {round(steps * (i + 1) / cfg.evaluations) for i in range(cfg.evaluations)}
    course: list[dict[str, Any]] = []
    best, best_state, stale = -np.inf, copy_state(average), 0
    for step in range(steps):
        network.train()
        set_lr(optimizer, step, steps, round(cfg.warmup * steps), cfg.optim)
        torch.manual_seed((cfg.seed << 32) + step + 1)  # for drop path; the head is initialised from the seed alone
        (micro,) = batches.micro_batches(step)
        loss = training_step(network, optimizer, scaler, micro.views[0], labels[micro.index], cost, kind, precision, cfg.clip)
        if cfg.ema:
            update_ema(average, network, min(cfg.ema, (1 + step) / (10 + step)))
        if step + 1 not in checks:
            continue
        score = float(select(val.y, predict_images(average, val, logit_shift(weight), kind, cfg.workers)))
        course.append({"step": step + 1, "score": score, "loss": float(loss)})
        if log:
            log(step + 1, loss=course[-1]["loss"], val=score)
        stale = 0 if score > best else stale + 1
        if score > best:
            best, best_state = score, copy_state(average)
        if stale >= cfg.patience:
            break
    if not np.isfinite(best):
        raise InputError("fine-tuning has no validation score: the validation split has no label with a known value; give it more patients")
    average.load_state_dict(best_state)
    chosen = next(row["step"] for row in course if row["score"] == best)
    used = decays[0] if len(set(decays)) == 1 else decays  # one for each part
    return average, {"step": chosen, "score": best, "steps": steps, "stopped": course[-1]["step"], "layer_decay": used, "table": course}


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images: Tensor,
    y: Tensor,
    class_weight: Tensor,
    kind: str,
    precision: TrainingPrecision,
    clip: float,
) -> Tensor:
    """One update of the network; returns the loss before it, on its device. images: (B, K, S, S) prepared.  y: (B, C).

    The host does not wait for the device, except in `scaler.step` with fp16."""
    with use_precision(images.device, precision):
        logits = network(images)
    loss = supervised_loss(logits, y, class_weight, kind)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    clip_gradients(list(network.parameters()), clip)
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()


def build_trainable_backbone(encoder: "Encoder", drop_path: float | None) -> nn.Module:
    """A copy of the network of the encoder, with drop path if the rate is above 0. The encoder itself is never trained.

    With parts, a copy of every network; with stages, the layers above the last stage stay as they are."""
    if encoder.parts:
        own = [build_trainable_backbone(part, drop_path) for part in encoder.parts]
        return JoinedNetwork(own, [part.card.preprocess for part in encoder.parts])
    rate = drop_path if drop_path is not None else 0.1 if layers.is_transformer(encoder.model) else 0.0
    if not rate:
        return copy.deepcopy(encoder.model)
    card = encoder.card
    model = backbone.build_backbone(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size, rate)
    model.load_state_dict(inner_network(encoder.model).state_dict())
    return select_stages(model, card.stages)


def build_batches(cfg: Config, encoder: "Encoder", train: ImageSet, rows: Array, batch: int) -> Batches:
    """Augmented, seeded batches of the labeled train rows. With parts, images in [0, 1], from which the network makes each part's input."""
    spec = resolve_augmentation(cfg.augment, train.store.modality)
    preprocess = encoder.card.preprocess
    return Batches(
        train.store, [spec], preprocess, seed=cfg.seed, batch=batch, index=train.index[rows], workers=cfg.workers, device=encoder.device
    )


def resolve_augmentation(raw: dict[str, Any], modality: str | None) -> Augment:
    """The augmentation that `raw` names; `auto` is the preset of the modality, if there is one. Raises InputError for an unknown preset."""
    own = f"finetune_{modality}" if f"finetune_{modality}" in PRESETS else "none"
    return resolve_augment({**raw, "preset": own} if raw.get("preset", "auto") == "auto" else raw, "finetune.augment")


def build_row_targets(train: ImageSet, rows: Array, device: torch.device) -> Tensor:
    """(rows of the store, C) labels at the given rows, NaN elsewhere."""
    by_row = np.full((len(train.store), train.y.shape[1]), np.nan, dtype=np.float32)
    by_row[train.index[rows]] = train.y[rows]
    return torch.from_numpy(by_row).to(device)


def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the averaged weights and BatchNorm statistics towards those of the model; counters are copied."""
    move_average(average.state_dict(), model.state_dict(), decay)


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of all tensors. `.cpu()` alone would alias the live weights on a CPU."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def predict_images(network: FinetuneNetwork, images: ImageSet, class_offset: Array, kind: str, workers: int = 0) -> FloatArray:
    """(M, C) probabilities with the deterministic preprocessing of the card; the network computes in fp32."""
    network.eval()
    with without_tf32():
        logits = predict_logits(network, images, workers)
    return logits_to_probabilities(logits.numpy() - class_offset, kind)
