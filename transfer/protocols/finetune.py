"""Fine-tuning of a copy of the encoder with a linear head, with early stopping on validation rows; the best weights are kept.

AdamW with layer decay, linear warm-up and cosine decay, drop path for transformers, weight averaging, augmentation by modality. Order,
augmentation, head and drop path are functions of (seed, step), so that two runs on one CPU give the same scores. The strategy
(`transfer/strategies/`) says what is trained, by default everything; the loop is in `finetune_training.py`.

Budget: `epochs` passes, but at least `min_steps` steps, because thirty labeled images need more than ten passes. With the defaults,
3,000 images at 64 px and a ResNet-18 take about 940 steps of 32 images, about five minutes on two CPU cores.

Shapes: N train rows, M rows to score, C labels or classes.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.presets import PRESETS, resolve_augment
from encoders.loading.batches import Batches
from encoders.runtime.arithmetic import resolve_training_precision, without_tf32
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.cpu_bf16 import describe_wrong_gradient, has_wrong_bf16_gradient
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.zoo import backbone
from encoders.zoo.batchnorm import freeze_statistics
from encoders.zoo.card import Card
from encoders.zoo.names import STORED_FEATURES
from encoders.zoo.parts import JoinedNetwork, count_normalised
from encoders.zoo.pixels import has_network
from encoders.zoo.stages import inner_network, select_stages
from encoders.zoo.tta_settings import TtaSettings
from transfer.losses.registry import build_loss
from transfer.protocols import layers
from transfer.protocols.common import ImageSet, find_labeled_rows, in_image_order, validation_score
from transfer.protocols.contract import FittedProtocol, Log, Needs, Select
from transfer.protocols.finetune_checkpoint import TrainingFile
from transfer.protocols.finetune_config import Config
from transfer.protocols.finetune_network import FinetuneNetwork, predict_images
from transfer.protocols.finetune_training import TrainingRun, train_network
from transfer.protocols.fit_place import FitPlace
from transfer.strategies.registry import build_strategy

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

VERSION = 2
NEEDS: Needs = "images"


@dataclass
class Fitted(FittedProtocol[ImageSet]):
    """The network at its best validation score."""

    network: FinetuneNetwork
    encoder: "Encoder"
    kind: str
    class_offset: Array  # (C,) what class weights or draws added to the logits
    selection: dict[str, Any]
    workers: int = 0  # processes that read the images to score
    cost: Mapping[str, Json] = field(default_factory=dict)
    tta: TtaSettings | None = None

    def scores(self, rows: ImageSet) -> FloatArray:
        """(M, C) probabilities; float32 forward pass in evaluation mode."""
        rows = replace(rows, encoder=self.encoder)
        return predict_images(self.network, rows, self.class_offset, self.kind, self.workers, self.tta)


def fit(cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """Trains a copy of the network of `train.encoder`; `log` receives the loss and the score of every validation.

    Raises InputError for fewer than two labeled train rows, for an encoder without a network, and when no validation has a finite score."""
    return fit_from_file(None, cfg, train, val, select, log)


def fit_from_file(
    file: TrainingFile | None, cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None
) -> Fitted:
    """As `fit`. An interrupted training of the same settings and images goes on from the state in `file`, saved at every validation."""
    encoder, train = train.encoder, in_image_order(train)
    require_network(encoder.card)
    rows = np.flatnonzero(find_labeled_rows(train.y, train.kind))
    if len(rows) < 2:
        raise InputError(
            f"fine-tuning needs at least two labeled train images, and the split has {len(rows)}; check the task's label column"
        )
    (steps, batch), device = count_steps(cfg, len(rows)), encoder.device
    loss = build_loss(cfg, cfg.class_weight == "balanced", train.y[rows], train.kind, train.patient[rows], device)
    gpus = [device] if device.type == "cuda" else []
    cfg = cfg.model_copy(update={"precision": resolve_training_precision(cfg.precision, device)})
    with torch.random.fork_rng(devices=gpus), without_tf32(), build_batches(cfg, encoder, train, rows, batch, loss.row_weight) as batches:
        torch.manual_seed(cfg.seed)
        own = build_trainable_backbone(encoder, cfg.drop_path)
        pixels = encoder.card.preprocess
        if (cfg.precision, device.type) == ("bf16", "cpu") and has_wrong_bf16_gradient(own, pixels.channels, [pixels.size]):
            raise InputError(describe_wrong_gradient(encoder.card.name, [pixels.size]))
        network = FinetuneNetwork(own, encoder.card.dim, train.y.shape[1], count_normalised(encoder.card), cfg.dropout).to(device)
        if cfg.freeze_bn:
            freeze_statistics(network.backbone)
        labels = build_row_targets(train, rows, device)
        run = TrainingRun(cfg, encoder, batches, labels, loss, steps, batch, train.kind, replace(val, encoder=encoder), select, log, file)
        kept, selection, cost = train_network(run, network, build_strategy(cfg))
    return Fitted(kept.eval(), encoder, train.kind, loss.shift, selection, cfg.workers, cost.as_record(), cfg.tta)


def require_network(card: Card) -> None:
    """Raises InputError for an encoder that cannot be fine-tuned."""
    if not has_network(card):
        what = "features of files have no network" if card.source == STORED_FEATURES else "pixels has no weights"
        raise InputError(f"{card.name} cannot be fine-tuned: {what}; use another protocol or encoder")


def fit_resumable(
    place: FitPlace, cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None
) -> Fitted:
    """As `fit`. An interrupted training that had the same place goes on from its last validation."""
    return fit_from_file(TrainingFile(place.path), cfg, train, val, select, log)


def count_steps(cfg: Config, images: int) -> tuple[int, int]:
    """The steps of a whole training on so many labeled images, and the images of each step."""
    batch = min(cfg.batch, images)
    return int(np.clip(round(cfg.epochs * images / batch), cfg.min_steps, max(cfg.max_steps, cfg.min_steps))), batch


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


def build_batches(cfg: Config, encoder: "Encoder", train: ImageSet, rows: Array, batch: int, weights: Array | None = None) -> Batches:
    """Augmented, seeded batches of the labeled train rows. With parts, images in [0, 1], from which the network makes each part's input.

    weights: (rows,) relative frequency with which each row is drawn; None: once an epoch."""
    spec = resolve_augmentation(cfg.augment, train.store.modality)
    preprocess = encoder.card.preprocess
    return Batches(
        train.store,
        [spec],
        preprocess,
        seed=cfg.seed,
        batch=batch,
        index=train.index[rows],
        workers=cfg.workers,
        device=encoder.device,
        weights=weights,
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
