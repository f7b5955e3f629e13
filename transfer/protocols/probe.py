"""The linear presets `mae` and `dinov2`: a frozen network, and heads trained on augmented images, as published (`heads.py`).

Both augment: a random crop of 8 to 100 % of the area, bicubic, and a left-right flip in half of the cases; so they read images, not cached
features, and cost a forward pass for every image of every step. As published a step holds 16,384 (mae, 90 epochs) or 1,024 images (dinov2,
12,500 steps); a train part with fewer images makes a step of all of them, and the rates follow by their rule. `linear.batch` and
`linear.length` set others, which is another hash.

Departures: MAE's number is that of its best epoch on the test set; here the epoch is chosen on validation rows, as DINOv2's head is (top-1,
or macro AUROC for a multi-label task). MAE's BatchNorm sees a GPU's share of the batch, here the whole. A binary task has two classes.

Shapes: B images of a step, N train rows, M rows to score, D width, C labels or classes, K outputs.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.augment.config import Augment
from encoders.loading.batches import Batches
from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.preprocess import prepare_input
from transfer.metrics import accuracy
from transfer.protocols.blocks import extract_last_blocks
from transfer.protocols.common import Array, ImageSet, Select, best_candidate, find_labeled_rows, validation_score
from transfer.protocols.heads import DINOV2_RATES, DinoV2Heads, MaeHead
from transfer.protocols.logistic import logits_to_probabilities
from transfer.protocols.presets import softmax_columns

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder
    from transfer.protocols.linear import Config

VERSION = 1
NEEDS = "images"
PUBLISHED_BUDGETS = {"mae": (16_384, 90), "dinov2": (1024, 12_500)}  # images a step; epochs of mae, steps of dinov2
MAE_WARMUP = 10 / 90  # of mae's epochs
FORWARD_BATCH = 128  # images in a forward pass
PROBE_AUGMENT = Augment(crop=(0.08, 1.0), flip=0.5, interpolation="bicubic")
HeadInputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class HeadTraining:
    """What heads are trained and chosen on."""

    stream: Iterator[tuple[HeadInputs, Tensor]]  # features (B, D) of each input and targets (B, K), step after step
    checked: HeadInputs  # features of the validation rows
    val: ImageSet
    outputs: int  # K
    batch: int
    length: int  # epochs or steps, as PUBLISHED counts
    an_epoch: int  # steps
    select: Select
    log: Callable[..., None] | None

    @property
    def widths(self) -> dict[str, int]:
        return {name: x.shape[1] for name, x in self.checked.items()}

    @property
    def exclusive(self) -> bool:
        return self.val.kind != "multilabel"

    @property
    def device(self) -> torch.device:
        return next(iter(self.checked.values())).device


@dataclass
class Fitted:
    """The network and its chosen head."""

    encoder: "Encoder"
    of: Callable[[Any, Tensor], HeadInputs]
    head: Callable[[HeadInputs], Tensor]
    kind: str
    selection: dict[str, Any]

    def scores(self, images: ImageSet) -> NDArray[np.float64]:
        """Probabilities (M, C) on images as the card prepares them."""
        return head_probabilities(self.head(extract_inputs(self.encoder, images, self.of)), self.kind)


def fit(
    cfg: "Config",
    encoder: "Encoder",
    train: ImageSet,
    val: ImageSet,
    select: Select = validation_score,
    log: Callable[..., None] | None = None,
) -> Fitted:
    """Trains the heads of `cfg.preset` and chooses epoch or head on `val`. Raises InputError for fewer than two labeled train images."""
    rows = np.flatnonzero(find_labeled_rows(train.y, train.kind))
    if len(rows) < 2:
        raise InputError(f"linear.preset={cfg.preset} needs labeled train images, the split has {len(rows)}; check the task's label column")
    held_out = val.at(np.flatnonzero(find_labeled_rows(val.y, val.kind)))
    batch, micro = batch_sizes(min(cfg.batch or PUBLISHED_BUDGETS[cfg.preset][0], len(rows)))
    length = cfg.length or PUBLISHED_BUDGETS[cfg.preset][1]
    y = torch.from_numpy(head_targets(train.y[rows], train.kind)).to(encoder.device)
    of = pooled_inputs if cfg.preset == "mae" else last_block_inputs
    checked = extract_inputs(encoder, held_out, of)
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
        stream = stream_features(encoder, batches, y, torch.from_numpy(place).to(encoder.device), of)
        trial = HeadTraining(stream, checked, held_out, y.shape[1], batch, length, batches.steps_per_epoch, select, log)
        head, selection = train_mae_head(trial) if cfg.preset == "mae" else train_dinov2_heads(trial)
    return Fitted(encoder, of, head, train.kind, selection | {"batch": batch, "length": length})


def batch_sizes(wanted: int) -> tuple[int, int]:
    """The images of a step and of a forward pass: at most AT_ONCE, and an equal share of the step, which may lose a few for it."""
    turns = -(-wanted // FORWARD_BATCH)
    return wanted // turns * turns, wanted // turns


def stream_features(
    encoder: "Encoder", batches: Batches, y: Tensor, place: Tensor, of: Callable[[Any, Tensor], HeadInputs]
) -> Iterator[tuple[HeadInputs, Tensor]]:
    """Features and targets of step after step, each of freshly augmented images. y: (N, K).  place: row of the store -> row of y."""
    step = 0
    while True:
        parts, at = [], []
        for micro in batches.of(step):
            parts.append(frozen_inputs(encoder, micro.views[0], of))
            at.append(place[micro.index])
        yield {name: torch.cat([p[name] for p in parts]) for name in parts[0]}, y[torch.cat(at)]
        step += 1


def train_mae_head(trial: HeadTraining) -> tuple[Callable[[HeadInputs], Tensor], dict[str, Any]]:
    """MAE's head at its best epoch."""
    (name,), epochs, an_epoch, val = trial.widths, trial.length, trial.an_epoch, trial.val
    with trial.device:
        warmup = round(MAE_WARMUP * epochs * an_epoch)
        head = MaeHead(trial.widths[name], trial.outputs, trial.exclusive, trial.batch, epochs * an_epoch, warmup)
    table: list[dict[str, Any]] = []
    kept, top = copy.deepcopy(head), -np.inf
    for epoch in range(1, epochs + 1):
        loss = [head.step(x[name], y) for x, y in (next(trial.stream) for _ in range(an_epoch))][-1]
        score = float(trial.select(val.y, head_probabilities(head.logits(trial.checked[name]), val.kind)))
        table.append({"epoch": epoch, "score": score, "loss": loss})
        if trial.log:
            trial.log(epoch, loss=loss, val=score)
        if score > top:
            kept, top = copy.deepcopy(head), score
    chosen = best_candidate(table)
    return lambda x: kept.logits(x[name]), {"epoch": chosen["epoch"], "score": chosen["score"], "table": table}


def train_dinov2_heads(trial: HeadTraining) -> tuple[Callable[[HeadInputs], Tensor], dict[str, Any]]:
    """The best of DINOv2's heads."""
    val = trial.val
    with trial.device:
        heads = DinoV2Heads(trial.widths, trial.outputs, trial.exclusive, trial.batch, trial.length)
    for step in range(trial.length):
        loss = heads.step(*next(trial.stream))
        if trial.log and step % trial.an_epoch == 0:
            trial.log(step, loss=loss)
    table: list[dict[str, Any]] = []
    for name, logits in heads.logits(trial.checked).items():
        for h, rate in enumerate(DINOV2_RATES):
            p = head_probabilities(logits[:, h], val.kind)
            score = float(accuracy(val.y, p, val.kind).mean()) if trial.exclusive else float(trial.select(val.y, p))
            table.append({"input": name, "lr": rate, "score": score})
    chosen = best_candidate(table)
    won, h = str(chosen["input"]), DINOV2_RATES.index(chosen["lr"])
    return lambda x: heads.logits({won: x[won]})[won][:, h], {**chosen, "table": table}


def head_targets(y: Array, kind: str) -> NDArray[np.float32]:
    """(N, K) targets of the heads: a binary label as two classes."""
    return np.concatenate([1 - y, y], axis=1).astype(np.float32) if kind == "binary" else np.asarray(y, dtype=np.float32)


def head_probabilities(logits: Tensor, kind: str) -> NDArray[np.float64]:
    """(M, C) probabilities from logits (M, K)."""
    z = logits.double().cpu().numpy()
    return logits_to_probabilities(z, kind) if kind == "multilabel" else softmax_columns(z, kind)


def pooled_inputs(model: Any, x: Tensor) -> HeadInputs:
    """The network's own pooled features (MAE: the class token, where the network has one and pools by it)."""
    return {"pooled": backbone.pooled_features(model, x)}


def last_block_inputs(model: Any, x: Tensor) -> HeadInputs:
    """What DINOv2's heads look at."""
    return extract_last_blocks(model, x).inputs()


def frozen_inputs(encoder: "Encoder", x: Tensor, of: Callable[[Any, Tensor], HeadInputs]) -> HeadInputs:
    """The inputs of the heads, with the network in evaluation mode and no gradient."""
    with torch.no_grad():
        encoder.model.eval()
        return {name: value.float() for name, value in of(encoder.model, x).items()}


def extract_inputs(encoder: "Encoder", images: ImageSet, of: Callable[[Any, Tensor], HeadInputs]) -> dict[str, Tensor]:
    """The inputs of the heads on images as the card prepares them, (M, D) each."""
    parts = []
    for start in range(0, len(images), FORWARD_BATCH):
        pixels = images.store.unit_images(images.index[start : start + FORWARD_BATCH])
        x = prepare_input(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(encoder.device), encoder.card.preprocess)
        parts.append(frozen_inputs(encoder, x, of))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
