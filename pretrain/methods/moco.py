"""MoCo v2: distinguish a view of an image from a queue of other images.

Source: He et al. 2020 (arXiv:1911.05722), algorithm 1 and equation 1; Chen et al. 2020 (arXiv:2003.04297) for the MLP head, T = 0.2.

A key encoder follows the query encoder slowly. Each query must pick its own key among K older ones: cross-entropy over 1 + K.

Departures:
- BatchNorm would leak a key: query and key of one image share batch statistics, the queue does not. The authors shuffle keys between GPUs.
  Here a micro-batch is split into groups, the keys after a shuffle, and BatchNorm uses the statistics of each group; a query then shares
  1 / groups of its statistics' images with its key, as on that many GPUs (the authors' own one-GPU demonstration does the same). This
  holds with one process or many; keys are not moved between ranks. The groups pass the encoder together (batch_groups.py), or one after
  the other if its norms are of other kinds. Encoders without BatchNorm are not split.
- The queue holds at most half the images and a whole number of batches: otherwise an image meets itself as a negative.
- The EMA momentum is scaled to the batch, m ** (B / 256), so that the key encoder lags behind by the published number of images.
- The queue starts with random unit vectors, as in the authors' code.
- With `exclude_same_patient` the queue stores the patient of each key, and keys of a query's own patient are not used as negatives
  (the opposite use of MedAug's idea, arXiv:2102.10663).

The key encoder runs in train mode and keeps BatchNorm statistics of its own: the EMA moves parameters, not buffers, as published.

Shapes: B images, C channels, H height, W width, G groups, D width of the embedding, K queue.
"""

from collections.abc import Callable
from typing import ClassVar

import torch
from einops import einsum, pack
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.masks import Masks
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from encoders.zoo.batchnorm import uses_batch_statistics
from pretrain.methods.batch_groups import BatchGroups, group_batchnorm
from pretrain.methods.ema import ema_, scaled_momentum
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.negatives import mask_same_patient
from pretrain.methods.networks import frozen_copy, mlp
from pretrain.methods.param_groups import ParamGroup, build_param_groups
from pretrain.methods.precision import full_precision, l2_normalize
from pretrain.methods.step_buffer import StepBuffer

MOCO_PUBLISHED_BATCH = 256


class MoCoConfig(Config):
    """MoCo v2, published values."""

    dim: int = Field(128, gt=1, description="width of the embedding")
    hidden: int = Field(2048, gt=0, description="width of the head's hidden layer")
    queue: int = Field(65536, gt=0, description="keys in the queue; reduced to half the images and to whole batches")
    momentum: float = Field(0.999, ge=0, le=1, description="EMA momentum of the key encoder at batch 256")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 256)")
    temperature: float = Field(0.2, gt=0, description="the similarities are divided by it")
    bn_group: int = Field(32, gt=1, description="images that share BatchNorm statistics (published: 32 per GPU); at least two groups of 8")
    exclude_same_patient: bool = Field(
        False, description="do not use other images of the same patient as negatives (column `patient` of the store)"
    )


@full_precision
def info_nce(
    q: Tensor,
    k: Tensor,
    negatives: Tensor,
    temperature: float,
    query_patients: Tensor | None = None,
    negative_patients: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy (nats) of picking `k[i]` for `q[i]` among itself and all negatives; and the fraction of queries that pick it.

    q, k: (B, D) unit rows.  negatives: (K, D) unit rows.  query_patients: (B,), negative_patients: (K,) patient ids: negatives of the
    query's own patient are left out; None: all are used.  Returns two scalars."""
    own = einsum(q, k, "b d, b d -> b")
    others = einsum(q, negatives.to(q.dtype), "b d, k d -> b k")
    similarities = pack([own, others], "b *")[0]  # (B, 1 + K), own key first
    first = torch.zeros(len(q), dtype=torch.long, device=q.device)  # (B,) column of the own key
    if query_patients is not None and negative_patients is not None:
        key_patients = torch.cat([negative_patients.new_full((1,), -2), negative_patients])  # -2: no patient; the own key stays anyway
        similarities = mask_same_patient(similarities, query_patients, key_patients, first)
    return F.cross_entropy(similarities / temperature, first), (similarities.argmax(dim=1) == 0).float().mean()


def encode_in_groups(encode: Callable[[Tensor], Tensor], images: Tensor, n_groups: int, shuffle: bool) -> Tensor:
    """`encode(images)` with the batch split into groups that share BatchNorm statistics; rows come back in their own order.

    images: (B, C, H, W).  shuffle: the groups are drawn at random, from torch's generator of the device.  Returns (B, D)."""
    if n_groups == 1:
        return encode(images)
    if not shuffle:
        return torch.cat([encode(part) for part in images.tensor_split(n_groups)])
    order = torch.randperm(len(images), device=images.device)
    mixed = torch.cat([encode(images[part]) for part in order.tensor_split(n_groups)])
    return mixed[order.argsort()]


def encode_together(encode: Callable[[Tensor], Tensor], images: Tensor, n_groups: int, shuffle: bool) -> Tensor:
    """The same as `encode_in_groups` in one pass, for a network whose norms know groups (`group_batchnorm`)."""
    if n_groups == 1:
        return encode(images)
    groups = BatchGroups(len(images), n_groups)
    indices = (torch.randperm if shuffle else torch.arange)(len(images), device=images.device)
    order = groups.interleave(indices)
    with groups:
        rows = encode(images[order])
    return rows[order.argsort()]


class MoCo(Method):
    """Query encoder (exported), key encoder, queue."""

    Config = MoCoConfig
    cfg: MoCoConfig
    summary = "MoCo v2: distinguish a view of an image from a queue of other images."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=1,
        passes_without_grad=1,
        needs="any batch from 16: negatives come from a queue; BatchNorm is split in groups; a second encoder and the queue in memory",
        when_to_choose="the first choice for a CNN on one GPU or a laptop: cheapest of the contrastive ones, and small batches suffice",
    )
    has_negatives = True
    sync_batchnorm_by_default = False  # shuffled groups of a micro-batch prevent the leak instead
    one_pass_devices: ClassVar[frozenset[str]] = frozenset({"cuda"})  # on two CPU threads 2 groups of 32 took 1.4 times as long in one pass
    queue: Tensor
    pointer: Tensor
    patient_ids: Tensor

    def __init__(self, cfg: MoCoConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.head = mlp([feature_dim(backbone), cfg.hidden, cfg.dim], norm=False)
        self.norms_know_groups = group_batchnorm(backbone)  # before the copy
        self.key = frozen_copy(nn.Sequential(self.backbone, self.head))
        self.momentum = ema_momentum(cfg, data)
        self.has_batchnorm = uses_batch_statistics(backbone)  # frozen statistics leak nothing
        self.register_buffer("queue", l2_normalize(torch.randn(queue_size(cfg, data), cfg.dim)))  # (K, D)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))
        if cfg.exclude_same_patient:
            self.register_buffer("patient_ids", torch.full((len(self.queue),), -1))  # (K,) patients of the keys; -1: none
        self.step_keys = StepBuffer()  # keys of this step's micro-batches
        self.step_patient_ids = StepBuffer()
        self.register_load_state_dict_pre_hook(_rename_old_patient_buffer)

    @property
    def loss_head(self) -> nn.Module:
        return self.head

    @property
    def slow_network(self) -> nn.Module:
        return self.key

    @property
    def queue_length(self) -> int:
        return len(self.queue)

    @property
    def constant_momentum(self) -> float:
        return self.momentum

    def needs_patients(self) -> bool:
        return self.cfg.exclude_same_patient

    def encode(self, network: nn.Module, images: Tensor, n_groups: int, shuffle: bool) -> Tensor:
        """(B, dim) outputs of `network` on (B, C, H, W) images, whose norms see `n_groups` groups: in one pass where that is faster."""
        together = self.norms_know_groups and images.device.type in self.one_pass_devices
        return (encode_together if together else encode_in_groups)(network, images, n_groups, shuffle)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        n = count_bn_groups(self.cfg, len(views[0])) if self.has_batchnorm and self.training else 1
        q = l2_normalize(self.encode(nn.Sequential(self.backbone, self.head), views[0], n, shuffle=False))  # (B, D)
        with torch.no_grad():
            k = l2_normalize(self.encode(self.key, views[1], n, shuffle=True))  # (B, D)
        self.step_keys.add(k)
        if patient_ids is not None:
            self.step_patient_ids.add(patient_ids)
        queue_patients = None if patient_ids is None else self.patient_ids
        loss, top1 = info_nce(q, k, self.queue, self.cfg.temperature, patient_ids, queue_patients)
        return {"loss": loss, "top1": top1}

    def after_backward(self, progress: float) -> None:
        self.step_keys.close()
        self.step_patient_ids.close()

    def after_step(self, progress: float) -> None:
        """The key encoder follows the query encoder, and the keys enter the queue."""
        ema_(self.key, nn.Sequential(self.backbone, self.head), self.momentum)
        patient_ids = dist.gather(self.step_patient_ids.pop_all()) if self.needs_patients() else None
        self.enqueue(dist.gather(self.step_keys.pop_all()), patient_ids)

    @torch.no_grad()
    def enqueue(self, keys: Tensor, patient_ids: Tensor | None = None) -> None:
        """Replaces the oldest keys of the queue by `keys` (B * ranks, D), and their patients by `patient_ids` (B * ranks,)."""
        where = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[where] = keys.to(self.queue.dtype)
        if patient_ids is not None:
            self.patient_ids[where] = patient_ids
        self.pointer.add_(len(keys)).remainder_(len(self.queue))

    def param_groups(self) -> list[ParamGroup]:
        """Weight decay on all parameters, biases and norms included, as published."""
        return build_param_groups(self.backbone, self.head, decay="all")

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        cfg, notes = self.cfg, []
        if (size := queue_size(cfg, data)) != cfg.queue:
            notes.append(f"queue {cfg.queue} -> {size}: at most half of {data.n_images} images, in whole batches of {data.batch}")
        if 2 * size > data.n_images:
            notes.append(f"the queue of one batch ({size}) is more than half the images: queries meet their own image as a negative")
        if (m := ema_momentum(cfg, data)) != cfg.momentum:
            notes.append(f"EMA momentum {cfg.momentum} -> {m:.6f} at batch {data.batch}: the same lag in images as at batch 256")
        if self.has_batchnorm and count_bn_groups(cfg, data.batch) == 1:
            notes.append(f"batch {data.batch} is too small to split: with BatchNorm, batch statistics can leak a key (use 16 or more)")
        return notes


def _rename_old_patient_buffer(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Renames the buffer `whose` of older checkpoints to `patient_ids`."""
    if f"{prefix}whose" in state_dict:
        state_dict[f"{prefix}patient_ids"] = state_dict.pop(f"{prefix}whose")


def queue_size(cfg: MoCoConfig, data: DataShape) -> int:
    """K: `cfg.queue`, but at most half the images, and a whole number of batches, at least one."""
    return max(min(cfg.queue, data.n_images // 2) // data.batch, 1) * data.batch


def ema_momentum(cfg: MoCoConfig, data: DataShape) -> float:
    """The EMA momentum at this batch."""
    return scaled_momentum(cfg.momentum, data.batch, MOCO_PUBLISHED_BATCH) if cfg.scale_momentum else cfg.momentum


def count_bn_groups(cfg: MoCoConfig, batch: int) -> int:
    """G: groups of `bn_group` images, at least two, none below 8 images; 1 if that is impossible."""
    return max(batch // cfg.bn_group, 2) if batch >= 16 else 1
