"""MoCo v2: tell a view of an image from a queue of other images.

Source: He et al. 2020 (arXiv:1911.05722), algorithm 1 and equation 1; Chen et al. 2020 (arXiv:2003.04297) for the MLP head, T = 0.2.

A key encoder follows the query encoder slowly. Each query must pick its own key among K older ones: cross-entropy over 1 + K.

Departures:
- BatchNorm would give a key away: query and key of one image share batch statistics, the queue does not. The authors shuffle keys
  between GPUs. Here a micro-batch is split into groups, the keys after a shuffle, and each group passes its encoder alone; a query then
  shares 1 / groups of its statistics' images with its key, as on that many GPUs (their own one-GPU demonstration does the same). This
  holds with one process or many; keys are not moved between ranks. Encoders without BatchNorm are not split.
- The queue holds at most half the images and a whole number of batches: otherwise an image meets itself as a negative.
- The EMA momentum is scaled to the batch, m ** (B / 256), so that the key encoder lags by as many images as published.
- The queue begins empty of keys: random unit vectors, as in the authors' code.
- With `exclude_same_patient` the queue remembers whose its keys are, and keys of a query's own patient are no negatives (MedAug's idea,
  arXiv:2102.10663, turned round).

The key encoder runs in train mode and keeps BatchNorm statistics of its own: the EMA moves parameters, not buffers, as published.

Shapes: B images, G groups, D width of the embedding, K queue.
"""

from typing import Any

import torch
from einops import einsum, pack
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.runtime import dist
from encoders.runtime.config import Config
from pretrain.methods.common import (
    DataShape,
    Method,
    ParamGroup,
    StepBuffer,
    Traits,
    build_param_groups,
    ema_,
    feature_dim,
    frozen_copy,
    full_precision,
    l2_normalize,
    mask_same_patient,
    mlp,
    scaled_momentum,
)

MOCO_PUBLISHED_BATCH = 256


class MoCoConfig(Config):
    """MoCo v2, published values."""

    dim: int = Field(128, gt=1, description="width of the embedding")
    hidden: int = Field(2048, gt=0, description="width of the head's hidden layer")
    queue: int = Field(65536, gt=0, description="keys remembered; cut to half the images and to whole batches")
    momentum: float = Field(0.999, ge=0, le=1, description="EMA of the key encoder at batch 256")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 256)")
    temperature: float = Field(0.2, gt=0, description="the similarities are divided by it")
    bn_group: int = Field(32, gt=1, description="images that share BatchNorm statistics (32 a GPU published); at least two groups of 8")
    exclude_same_patient: bool = Field(False, description="other images of the same patient are no negatives (by `patient` of the store)")


@full_precision
def info_nce(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Cross-entropy (nats) of picking `k[i]` for `q[i]` among itself and all negatives.

    q, k: (B, D) unit rows.  negatives: (K, D) unit rows.  Returns a scalar."""
    return first_column_cross_entropy(query_key_cosines(q, k, negatives) / temperature)


@full_precision
def query_key_cosines(q: Tensor, k: Tensor, negatives: Tensor) -> Tensor:
    """Cosines of each query with its own key (first column) and with the negatives: (B, 1 + K)."""
    own = einsum(q, k, "b d, b d -> b")
    others = einsum(q, negatives.to(q.dtype), "b d, k d -> b k")
    return pack([own, others], "b *")[0]


def first_column_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy (nats) of the first column of (B, 1 + K)."""
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def mask_same_patient_keys(similar: Tensor, patients: Tensor, whose: Tensor) -> Tensor:
    """(B, 1 + K) with -inf for keys in the queue of the query's own patient.  patients: (B,), whose: (K,)."""
    own = similar.new_zeros(len(similar), dtype=torch.long)  # the first column, of which the -2 below is nobody's
    return mask_same_patient(similar, patients, torch.cat([whose.new_full((1,), -2), whose]), own)


def encode_in_groups(encode: nn.Module, images: Tensor, n_groups: int, shuffle: bool) -> Tensor:
    """`encode(images)` with the batch cut into groups that share BatchNorm statistics; rows come back in their own order.

    images: (B, C, H, W).  shuffle: the groups are drawn at random, from torch's CPU generator.  Returns (B, D)."""
    if n_groups == 1:
        return encode(images)
    if not shuffle:
        return torch.cat([encode(part) for part in images.tensor_split(n_groups)])
    order = torch.randperm(len(images)).to(images.device)
    mixed = torch.cat([encode(images[part]) for part in order.tensor_split(n_groups)])
    return mixed[order.argsort()]


class MoCo(Method):
    """Query encoder (exported), key encoder, queue."""

    Config = MoCoConfig
    traits = Traits(
        takes="CNN, ViT",
        trained=1,
        untrained=1,
        needs="any batch from 16: negatives come from a queue; BatchNorm is split in groups; a second encoder and the queue in memory",
        choose="the first choice for a CNN on one GPU or a laptop: cheapest of the contrastive ones, and small batches do",
    )

    sync_batchnorm = False  # groups of a micro-batch, shuffled, are its answer

    def __init__(self, cfg: MoCoConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.head = mlp([feature_dim(backbone), cfg.hidden, cfg.dim], norm=False)
        self.key = frozen_copy(nn.Sequential(self.backbone, self.head))
        self.momentum = ema_momentum(cfg, data)
        self.has_batchnorm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in backbone.modules())
        self.register_buffer("queue", l2_normalize(torch.randn(queue_size(cfg, data), cfg.dim)))  # (K, D)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        self.queue: Tensor
        if cfg.exclude_same_patient:
            self.register_buffer("whose", torch.full((len(self.queue),), -1))  # (K,) patients of the keys, -1: nobody's
        self.whose: Tensor
        self.pointer: Tensor
        self.fresh = StepBuffer()  # keys of this step's micro-batches
        self.fresh_patients = StepBuffer()

    def forward(self, views: list[Tensor], masks: Any, progress: float, patients: Tensor | None = None) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        n = count_bn_groups(self.cfg, len(views[0])) if self.has_batchnorm and self.training else 1
        q = l2_normalize(encode_in_groups(nn.Sequential(self.backbone, self.head), views[0], n, shuffle=False))  # (B, D)
        with torch.no_grad():
            k = l2_normalize(encode_in_groups(self.key, views[1], n, shuffle=True))  # (B, D)
        self.fresh.add(k)
        similar = query_key_cosines(q, k, self.queue)  # (B, 1 + K), as in `info_nce`, kept for the second line
        if patients is not None:
            self.fresh_patients.add(patients)
            similar = mask_same_patient_keys(similar, patients, self.whose)
        return {"loss": first_column_cross_entropy(similar / self.cfg.temperature), "top1": (similar.argmax(dim=1) == 0).float().mean()}

    def after_backward(self, progress: float) -> None:
        self.fresh.end()
        self.fresh_patients.end()

    def after_step(self, progress: float) -> None:
        """Once per step really taken: the key encoder follows the query encoder, the keys enter the queue."""
        ema_(self.key, nn.Sequential(self.backbone, self.head), self.momentum)
        patients = dist.gather(self.fresh_patients.take()) if self.cfg.exclude_same_patient else None
        self.enqueue(dist.gather(self.fresh.take()), patients)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, patients: Tensor | None = None) -> None:
        """The oldest keys of the FIFO give way to `keys` (B * ranks, D), and the patients of those to `patients` (B * ranks,)."""
        where = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[where] = keys.to(self.queue.dtype)
        if patients is not None:
            self.whose[where] = patients
        self.pointer.add_(len(keys)).remainder_(len(self.queue))

    def param_groups(self) -> list[ParamGroup]:
        """Weight decay on all parameters, biases and norms too, as published."""
        return build_param_groups(self.backbone, self.head, decay="all")

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        """What is adjusted to the data, in sentences."""
        cfg, said = self.cfg, []
        if (size := queue_size(cfg, data)) != cfg.queue:
            said.append(f"queue {cfg.queue} -> {size}: at most half of {data.n_images} images, in whole batches of {data.batch}")
        if 2 * size > data.n_images:
            said.append(f"the queue of one batch ({size}) is more than half the images: queries meet their own image as a negative")
        if (m := ema_momentum(cfg, data)) != cfg.momentum:
            said.append(f"EMA momentum {cfg.momentum} -> {m:.6f} at batch {data.batch}: the same lag in images as at batch 256")
        if self.has_batchnorm and count_bn_groups(cfg, data.batch) == 1:
            said.append(f"batch {data.batch} is too small to split: with BatchNorm, batch statistics can give a key away (use 16 or more)")
        return said


def queue_size(cfg: MoCoConfig, data: DataShape) -> int:
    """K: as asked, but at most half the images, and whole batches, at least one."""
    return max(min(cfg.queue, data.n_images // 2) // data.batch, 1) * data.batch


def ema_momentum(cfg: MoCoConfig, data: DataShape) -> float:
    """The EMA momentum at this batch."""
    return scaled_momentum(cfg.momentum, data.batch, MOCO_PUBLISHED_BATCH) if cfg.scale_momentum else cfg.momentum


def count_bn_groups(cfg: MoCoConfig, batch: int) -> int:
    """G: groups of `bn_group` images, at least two, none below 8 images; 1 where that cannot be."""
    return max(batch // cfg.bn_group, 2) if batch >= 16 else 1
