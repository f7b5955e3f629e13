"""DINO: a student that sees small crops agrees with a slow teacher that sees large ones.

Source: Caron et al. 2021 (arXiv:2104.14294), algorithm 1, sections 3.1 and 5.3; facebookresearch/dino main_dino.py for the heads.

The teacher's output is centred (by an EMA of its mean) and sharpened (by a low temperature): together they prevent collapse.

Departures:
- The EMA momentum is scaled to the batch, m ** (B / 512): 0.998 at batch 256 (for which the authors advise 0.9995, slower still).
- The centre moves once per accepted step, by all its micro-batches.
- The increase of weight decay from 0.04 to 0.4 is a setting of the recipe: optim.weight_decay_end.
- Local crops keep the published proportion, 96 to 224 pixels, rounded to whole patches.

Shapes: B images, C channels, H height, W width, V views, D width of the bottleneck, K prototypes.
"""

from typing import ClassVar

import torch
from einops import einsum
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.config import Augment
from encoders.augment.masks import Masks
from encoders.augment.presets import byol_views, local_view
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.ema import cosine_momentum, ema_, scaled_momentum
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import frozen_copy, local_crop_pixels, require_dynamic_image_size
from pretrain.methods.precision import full_precision, l2_normalize
from pretrain.methods.step_buffer import StepBuffer

SHORT_RUN_TEACHER_TEMPERATURE = 0.04  # of the published 100-epoch runs; those of 300 and more epochs rise to 0.07


class DINOConfig(Config):
    """DINO, published values."""

    prototypes: int = Field(65536, gt=1, description="outputs of the head; 4096 or fewer for tens of thousands of images")
    hidden: int = Field(2048, gt=0, description="width of the head's two hidden layers")
    bottleneck: int = Field(256, gt=0, description="width before the prototypes")
    fixed_norm: bool = Field(True, description="prototypes have length 1 (false: learned lengths, for ViT-S in long runs)")
    momentum: float = Field(0.996, ge=0, le=1, description="EMA momentum at the start, at batch 512; 1 at the end")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 512)")
    student_temperature: float = Field(0.1, gt=0, description="temperature of the student's softmax")
    teacher_temperature: float = Field(0.04, gt=0, description="temperature of the teacher's softmax after its warm-up; at most 0.07")
    warmup_temperature: float = Field(0.04, gt=0, description="temperature of the teacher's softmax at the start; lower it on collapse")
    temperature_warmup: float = Field(0.3, ge=0, le=1, description="fraction of the run over which the teacher's temperature rises")
    centre_momentum: float = Field(0.9, ge=0, lt=1, description="EMA momentum of the teacher's mean output, per step")
    freeze: float = Field(0.01, ge=0, le=1, description="fraction of the run in which the prototypes stay fixed (one epoch of 100)")
    n_local: int = Field(8, ge=0, description="local crops per image")
    local_size: int | None = Field(None, gt=0, description="side of a local crop, pixels; null: 96 / 224 of the view")
    global_crop: tuple[float, float] = Field((0.4, 1.0), description="area of a global crop as a fraction of the image")
    local_crop: tuple[float, float] = Field((0.05, 0.4), description="area of a local crop as a fraction of the image")


@full_precision
def distillation_loss(student: list[Tensor], teacher: list[Tensor], centre: Tensor, student_t: float, teacher_t: float) -> Tensor:
    """Cross-entropy (nats) of the student's softmax under the teacher's, mean over all pairs of different views.

    student: V of (B, K), the global views first.  teacher: (B, K) per global view.  centre: (K,).  Returns a scalar."""
    targets = [F.softmax((t - centre) / teacher_t, dim=-1).detach() for t in teacher]
    return cross_view_entropy(student, targets, student_t)


@full_precision
def cross_view_entropy(student: list[Tensor], targets: list[Tensor], student_t: float) -> Tensor:
    """Cross-entropy (nats) of the student's softmax under `targets`, mean over all pairs of different views.

    student: V of (B, K), the global views first.  targets: (B, K) per global view, rows sum to 1.  Returns a scalar."""
    log_probs = [F.log_softmax(s / student_t, dim=-1) for s in student]
    terms = [-(p * log_q).sum(dim=-1).mean() for i, p in enumerate(targets) for j, log_q in enumerate(log_probs) if i != j]
    return torch.stack(terms).mean()


class DINOHead(nn.Module):
    """Features -> cosines with K prototypes, each times the prototype's length."""

    def __init__(self, dim: int, cfg: DINOConfig):
        super().__init__()
        widths = [dim, cfg.hidden, cfg.hidden, cfg.bottleneck]
        self.mlp = nn.Sequential(
            nn.Linear(widths[0], widths[1]), nn.GELU(), nn.Linear(widths[1], widths[2]), nn.GELU(), nn.Linear(widths[2], widths[3])
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(l2_normalize(torch.randn(cfg.prototypes, cfg.bottleneck)))  # (K, D), only directions matter
        self.length = nn.Parameter(torch.ones(cfg.prototypes), requires_grad=not cfg.fixed_norm)  # (K,)

    def forward(self, x: Tensor) -> Tensor:
        return prototype_cosines(self.mlp(x), self.prototypes) * self.length


@full_precision
def prototype_cosines(x: Tensor, prototypes: Tensor) -> Tensor:
    """Cosine of each row of x with each prototype: (B, D), (K, D) -> (B, K)."""
    return einsum(l2_normalize(x), l2_normalize(prototypes), "b d, k d -> b k")


class DINO(Method):
    """Student encoder with head; teacher encoder (exported) with head; centre."""

    Config = DINOConfig
    cfg: DINOConfig
    summary = "DINO: a student that sees small crops agrees with a slow teacher that sees large ones."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=2,
        needs="AdamW and clipping; each local crop adds a small pass with gradients (8 add about 1.5); a second encoder in memory",
        when_to_choose="a ViT with 100,000 or more images, k-NN and attention maps without fine-tuning; small data: fewer prototypes",
    )
    published_batch: ClassVar[int] = 512  # to which `cfg.momentum` refers
    centre: Tensor

    def __init__(self, cfg: DINOConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        if cfg.n_local:
            require_dynamic_image_size(backbone, "dino")
        self.backbone = backbone
        self.head = DINOHead(feature_dim(backbone), cfg)
        self.teacher = frozen_copy(nn.Sequential(self.backbone, self.head))
        self.register_buffer("centre", torch.zeros(cfg.prototypes))  # (K,)
        self.step_outputs = StepBuffer()  # mean teacher outputs of this step's micro-batches

    @property
    def loss_head(self) -> nn.Module:
        return self.head

    @property
    def slow_network(self) -> nn.Module:
        return self.teacher

    def views(self, augment: Augment) -> list[Augment]:
        """Two different global views, then the local ones."""
        large = [v.model_copy(update={"crop": self.cfg.global_crop}) for v in byol_views(augment)]
        small = augment.model_copy(update={"blur": 0.5}) if augment.blur else augment
        return large + [local_view(small, self.local_size(), self.cfg.local_crop)] * self.cfg.n_local

    def local_size(self) -> int:
        """Side of a local crop in pixels: whole patches, at least one."""
        return local_crop_pixels(self.backbone, self.cfg.local_size or self.data.size * 96 / 224)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two global (B, C, H, W) batches, then local ones (B, C, h, w)."""
        cfg = self.cfg
        student = [out for part in (views[:2], views[2:]) if part for out in self.student(part)]  # V of (B, K)
        with torch.no_grad():
            teacher = list(self.teacher(torch.cat(views[:2])).chunk(2))  # 2 of (B, K)
        self.step_outputs.add(torch.cat(teacher).mean(dim=0, keepdim=True))  # (1, K)
        temperature = teacher_temperature(cfg, progress)
        loss = distillation_loss(student, teacher, self.centre, cfg.student_temperature, temperature)
        with torch.no_grad():
            p = F.softmax((torch.cat(teacher) - self.centre) / temperature, dim=-1)
            entropy = -(p * (p + 1e-12).log()).sum(dim=-1).mean()  # 1e-12: 0 log 0 is 0
        return {"loss": loss, "teacher_entropy": entropy}

    def student(self, views: list[Tensor]) -> list[Tensor]:
        """(B, K) per view: views of one size go through the student in one pass."""
        return list(self.head(self.backbone(torch.cat(views))).chunk(len(views)))

    def after_backward(self, progress: float) -> None:
        """The prototypes stay fixed at first."""
        self.step_outputs.close()
        if progress < self.cfg.freeze:
            self.head.prototypes.grad = None
            self.head.length.grad = None

    def after_step(self, progress: float) -> None:
        """The teacher follows the student, the centre follows the teacher's mean output."""
        ema_(self.teacher, nn.Sequential(self.backbone, self.head), self.momentum(progress))
        with torch.no_grad():
            self.centre.lerp_(dist.gather(self.step_outputs.pop_all()).mean(dim=0), 1 - self.cfg.centre_momentum)

    def momentum(self, progress: float) -> float:
        m = cosine_momentum(self.cfg.momentum, progress)
        return scaled_momentum(m, self.data.batch, self.published_batch) if self.cfg.scale_momentum else m

    def encoder(self) -> nn.Module:
        """The teacher's: the better of the two, as published."""
        return self.teacher[0]

    def loss_embedding(self, images: Tensor, features: Tensor) -> Tensor:
        """(B, K) outputs of the student; `features` are the teacher's."""
        outputs: Tensor = self.head(self.backbone(images))
        return outputs

    def teacher_probs(self, features: Tensor, progress: float) -> Tensor:
        """(B, K) the teacher's distribution over prototypes."""
        logits = self.teacher[1](features) - self.centre
        return F.softmax(logits / teacher_temperature(self.cfg, progress), dim=-1)

    def notes(self, data: DataShape) -> list[str]:
        cfg, notes = self.cfg, self.size_notes(data)
        if cfg.teacher_temperature > SHORT_RUN_TEACHER_TEMPERATURE:
            notes.append(
                f"the teacher's temperature rises to {cfg.teacher_temperature:g}; the published 100-epoch runs keep it at "
                f"{SHORT_RUN_TEACHER_TEMPERATURE}: for a short run set method.teacher_temperature={SHORT_RUN_TEACHER_TEMPERATURE}"
            )
        return notes

    def size_notes(self, data: DataShape) -> list[str]:
        """Sentences about what depends on the size of the batch and of the corpus."""
        cfg, now, notes = self.cfg, self.momentum(0.0), []
        if now != cfg.momentum:
            published = f"the lag in images of batch {self.published_batch}"
            notes.append(f"EMA momentum {cfg.momentum} -> {now:.6f} at batch {data.batch}: {published}")
        if cfg.prototypes > data.n_images:
            notes.append(f"{cfg.prototypes} prototypes for {data.n_images} images: fewer, e.g. {max(data.n_images // 8, 64)}, train faster")
        return notes


def teacher_temperature(cfg: DINOConfig, progress: float) -> float:
    """Linear from `warmup_temperature` to `teacher_temperature` over the first `temperature_warmup` of the run, then constant."""
    share = progress / cfg.temperature_warmup if cfg.temperature_warmup else 1.0
    done = share.clamp(max=1.0) if isinstance(share, Tensor) else min(share, 1.0)  # torch.compile gives a scalar tensor
    return cfg.warmup_temperature + (cfg.teacher_temperature - cfg.warmup_temperature) * done
