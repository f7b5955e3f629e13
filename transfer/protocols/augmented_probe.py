"""The linear presets `mae` and `dinov2`: heads trained on augmented images through a frozen network, as published (`heads.py`).

Both augment: a random crop of 8 to 100 % of the area, bicubic, and a horizontal flip with probability 0.5. They therefore read images
instead of cached features, and every step costs a forward pass of its images. As published, a step has 16,384 images (mae, 90 epochs) or
1,024 (dinov2, 12,500 steps). A train part with fewer images is used whole at every step, and the learning rates scale with the batch.
`linear.batch` and `linear.length` change the budget, which changes the hash of the protocol.

Departures: MAE reports the best epoch on the test set; here the epoch is chosen on validation rows, as is the head of DINOv2 (by top-1, or
by macro AUROC for a multi-label task). In MAE, BatchNorm sees the share of the batch on one GPU; here it sees the whole batch. A binary
task has two classes.

Shapes: B images of a step, N train rows, M rows to score, D width, C labels or classes, K outputs.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.loading.batches import Batches
from encoders.runtime.arithmetic import use_precision
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.encoder import EncoderInput
from encoders.zoo.pixels import has_network
from transfer.metrics import accuracy
from transfer.protocols.common import ImageSet, best_candidate, find_labeled_rows, in_image_order, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select
from transfer.protocols.heads import DINOV2_RATES, DinoV2Heads, MaeHead
from transfer.protocols.last_blocks import extract_last_blocks
from transfer.protocols.linear_config import PUBLISHED_BUDGETS, Config
from transfer.protocols.logistic import logits_to_probabilities
from transfer.protocols.predict_images import FORWARD_BATCH, iterate_image_inputs
from transfer.protocols.presets import softmax_columns

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

VERSION = 2
NEEDS: Needs = "images"
MAE_WARMUP = 10 / 90  # share of the epochs
PROBE_AUGMENT = Augment(crop=(0.08, 1.0), flip=0.5, interpolation="bicubic")
HeadInputs: TypeAlias = Mapping[str, Tensor]
Extract: TypeAlias = Callable[[nn.Module, EncoderInput], HeadInputs]  # prepared images (B, K, S, S) -> inputs of the heads


@dataclass(frozen=True)
class HeadTraining:
    """The data and the budget with which heads are trained and chosen."""

    stream: Iterator[tuple[HeadInputs, Tensor]]  # features (B, D) of each input and targets (B, K), step after step
    val_inputs: HeadInputs  # features of the validation rows
    val: ImageSet
    outputs: int  # K
    batch: int
    budget: int  # epochs or steps, as in PUBLISHED_BUDGETS
    steps_per_epoch: int
    select: Select
    log: Log | None

    @property
    def widths(self) -> dict[str, int]:
        return {name: x.shape[1] for name, x in self.val_inputs.items()}

    @property
    def exclusive(self) -> bool:
        return self.val.kind != "multilabel"

    @property
    def device(self) -> torch.device:
        return next(iter(self.val_inputs.values())).device


@dataclass
class Fitted(FittedProtocol[ImageSet]):
    """The network and the chosen head."""

    encoder: "Encoder"
    extract: Extract
    head: Callable[[HeadInputs], Tensor]
    kind: str
    selection: dict[str, Any]

    def scores(self, rows: ImageSet) -> FloatArray:
        """(M, C) probabilities on images with the preprocessing of the card."""
        return head_probabilities(self.head(extract_inputs(self.encoder, rows, self.extract)), self.kind)


def fit(cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """Trains the heads of `cfg.preset` and chooses epoch or head on `val`. Raises InputError for fewer than two labeled train images."""
    encoder, train = train.encoder, in_image_order(train)
    rows = np.flatnonzero(find_labeled_rows(train.y, train.kind))
    if len(rows) < 2:
        raise InputError(
            f"linear.preset={cfg.preset} needs at least two labeled train images, the split has {len(rows)}; check the task's label column"
        )
    if not has_network(encoder.card):
        raise InputError(f"linear.preset={cfg.preset} trains on images, and {encoder.card.name} has no network; use linear.preset=logistic")
    if cfg.preset == "dinov2" and (encoder.parts or encoder.card.stages):
        own = "several networks" if encoder.parts else "stages of its own"
        raise InputError(
            f"linear.preset=dinov2 takes the last blocks of one network, and {encoder.card.name} has {own}; use another preset"
        )
    labeled_val = val.at(np.flatnonzero(find_labeled_rows(val.y, val.kind)))
    batch, micro = batch_sizes(min(cfg.batch or PUBLISHED_BUDGETS[cfg.preset][0], len(rows)))
    budget = cfg.length or PUBLISHED_BUDGETS[cfg.preset][1]
    y = torch.from_numpy(head_targets(train.y[rows], train.kind)).to(encoder.device)
    extract: Extract = pooled_inputs if cfg.preset == "mae" else last_block_inputs
    val_inputs = extract_inputs(encoder, labeled_val, extract)
    place = np.zeros(len(train.store), dtype=np.int64)
    place[train.index[rows]] = np.arange(len(rows))
    with (
        torch.random.fork_rng(devices=[encoder.device] if encoder.device.type == "cuda" else []),
        Batches(
            train.store,
            [PROBE_AUGMENT],
            encoder.card.preprocess,
            seed=cfg.seed,
            batch=batch,
            accumulate=batch // micro,
            index=train.index[rows],
            device=encoder.device,
        ) as batches,
    ):
        torch.manual_seed(cfg.seed)
        stream = stream_features(encoder, batches, y, torch.from_numpy(place).to(encoder.device), extract)
        trial = HeadTraining(stream, val_inputs, labeled_val, y.shape[1], batch, budget, batches.steps_per_epoch, select, log)
        head, selection = train_mae_head(trial) if cfg.preset == "mae" else train_dinov2_heads(trial)
    return Fitted(encoder, extract, head, train.kind, selection | {"batch": batch, "length": budget})


def batch_sizes(wanted: int) -> tuple[int, int]:
    """Images per step and per forward pass: at most FORWARD_BATCH, and an equal share of the step, which may shrink by a few images."""
    passes = -(-wanted // FORWARD_BATCH)
    return wanted // passes * passes, wanted // passes


def stream_features(
    encoder: "Encoder", batches: Batches, y: Tensor, place: Tensor, extract: Extract
) -> Iterator[tuple[HeadInputs, Tensor]]:
    """Yields features and targets of every step, of newly augmented images. y: (N, K).  place: row of the store -> row of y."""
    step = 0
    while True:
        parts, at = [], []
        for micro in batches.micro_batches(step):
            parts.append(frozen_inputs(encoder, micro.views[0], extract))
            at.append(place[micro.index])
        yield {name: torch.cat([p[name] for p in parts]) for name in parts[0]}, y[torch.cat(at)]
        step += 1


def train_mae_head(trial: HeadTraining) -> tuple[Callable[[HeadInputs], Tensor], dict[str, Any]]:
    """The head of MAE at its best epoch, and the selection."""
    (name,), epochs, steps_per_epoch, val = trial.widths, trial.budget, trial.steps_per_epoch, trial.val
    with trial.device:
        warmup = round(MAE_WARMUP * epochs * steps_per_epoch)
        head = MaeHead(trial.widths[name], trial.outputs, trial.exclusive, trial.batch, epochs * steps_per_epoch, warmup)
    table: list[dict[str, Any]] = []
    kept, top = copy.deepcopy(head), -np.inf
    for epoch in range(1, epochs + 1):
        loss = float([head.step(x[name], y) for x, y in (next(trial.stream) for _ in range(steps_per_epoch))][-1])
        score = float(trial.select(val.y, head_probabilities(head.logits(trial.val_inputs[name]), val.kind)))
        table.append({"epoch": epoch, "score": score, "loss": loss})
        if trial.log:
            trial.log(epoch, loss=loss, val=score)
        if score > top:
            kept, top = copy.deepcopy(head), score
    chosen = best_candidate(table)
    return lambda x: kept.logits(x[name]), {"epoch": chosen["epoch"], "score": chosen["score"], "table": table}


def train_dinov2_heads(trial: HeadTraining) -> tuple[Callable[[HeadInputs], Tensor], dict[str, Any]]:
    """The best head of DINOv2, and the selection."""
    val = trial.val
    with trial.device:
        heads = DinoV2Heads(trial.widths, trial.outputs, trial.exclusive, trial.batch, trial.budget)
    for step in range(trial.budget):
        loss = heads.step(*next(trial.stream))
        if trial.log and step % trial.steps_per_epoch == 0:
            trial.log(step, loss=float(loss))
    table: list[dict[str, Any]] = []
    for name, logits in heads.logits(trial.val_inputs).items():
        for h, rate in enumerate(DINOV2_RATES):
            p = head_probabilities(logits[:, h], val.kind)
            score = float(accuracy(val.y, p, val.kind).mean()) if trial.exclusive else float(trial.select(val.y, p))
            table.append({"input": name, "lr": rate, "score": score})
    chosen = best_candidate(table)
    name_of_best, h = str(chosen["input"]), DINOV2_RATES.index(chosen["lr"])
    return lambda x: heads.logits({name_of_best: x[name_of_best]})[name_of_best][:, h], {**chosen, "table": table}


def head_targets(y: Array, kind: str) -> Array:
    """(N, K) float32 targets of the heads; a binary label becomes two classes."""
    return np.concatenate([1 - y, y], axis=1).astype(np.float32) if kind == "binary" else np.asarray(y, dtype=np.float32)


def head_probabilities(logits: Tensor, kind: str) -> FloatArray:
    """(M, C) probabilities from logits (M, K)."""
    z = logits.double().cpu().numpy()
    return logits_to_probabilities(z, kind) if kind == "multilabel" else softmax_columns(z, kind)


def pooled_inputs(model: nn.Module, x: EncoderInput) -> HeadInputs:
    """The pooled features of the network (MAE: the class token, if the network has one and pools by it)."""
    return {"pooled": model(x) if isinstance(x, tuple) else backbone.pooled_features(model, x)}


def last_block_inputs(model: nn.Module, x: EncoderInput) -> HeadInputs:
    """The inputs of the heads of DINOv2."""
    assert isinstance(x, Tensor), "`fit` refuses encoders made of parts"
    return extract_last_blocks(model, x).inputs()


def frozen_inputs(encoder: "Encoder", x: EncoderInput, extract: Extract) -> HeadInputs:
    """The inputs of the heads, with the network in evaluation mode, in the encoder's precision, and no gradient."""
    with torch.no_grad(), use_precision(encoder.device, encoder.precision):
        encoder.model.eval()
        return {name: value.float() for name, value in extract(encoder.model, x).items()}


def extract_inputs(encoder: "Encoder", images: ImageSet, extract: Extract) -> dict[str, Tensor]:
    """The inputs of the heads, (M, D) each, on images with the preprocessing of the card."""
    parts = [frozen_inputs(encoder, x, extract) for x in iterate_image_inputs(replace(images, encoder=encoder))]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
