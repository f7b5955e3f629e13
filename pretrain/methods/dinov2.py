"""DINOv2: DINO on whole images, iBOT on hidden patches, and features that stay apart.

Source: Oquab et al. 2023 (arXiv:2304.07193), section 4; facebookresearch/dinov2, dinov2/train/ssl_meta_arch.py and dinov2/configs for the
values. Registers: Darcet et al. 2023 (arXiv:2309.16588), a setting of the network, model_args.reg_tokens. The loss has three terms:

1. DINO: the student's class token of each view predicts the teacher's of the other global views (pretrain/methods/dino.py).
2. iBOT (Zhou et al. 2021, arXiv:2111.07832): in half of the global crops the student sees blocks of mask tokens, and predicts the teacher's
   output for the hidden patches.
3. KoLeo: the student's class tokens of different images lie far apart (pretrain/methods/koleo.py).

Sinkhorn-Knopp balances the teacher's outputs over the prototypes, for class tokens and for patches; centring is a setting.
iBOT alone is `balance=centre separate_heads=false koleo=0 prototypes=8192 momentum=0.996`.

Departures:
- The EMA momentum is scaled to the batch, as in DINO: 0.992 is that of batch 2048.
- KoLeo compares the images of all ranks, and a mask depends on its image only (encoders/augment/block_masks.py): ranks do not matter.
- The centres move once per accepted step; that of the patches is the mean over all hidden patches of the step.
- Class, mask and register tokens and the position table have no weight decay. The mask token has the learning rate of the heads.
- Drop path rises linearly to `drop_path`, as timm does; the authors use one rate in all blocks.

Shapes: B images, C channels, H height, W width, V views, P prefix tokens, N patches, M hidden patches, D width of features, K prototypes.
"""

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from einops import rearrange
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.block_masks import BlockMasks, BlockTokens
from encoders.augment.masks import Masks
from encoders.runtime import dist
from encoders.runtime.errors import InputError
from pretrain.methods.dino import DINO, DINOConfig, DINOHead, cross_view_entropy, teacher_temperature
from pretrain.methods.ema import ema_
from pretrain.methods.koleo import koleo_loss
from pretrain.methods.method import DataShape, Traits
from pretrain.methods.networks import frozen_copy, require_dynamic_image_size
from pretrain.methods.param_groups import ParamGroup, build_param_groups
from pretrain.methods.precision import at_least_float32, full_precision
from pretrain.methods.sinkhorn import sinkhorn
from pretrain.methods.step_buffer import StepBuffer
from pretrain.methods.vit_tokens import encode_tokens, require_vit


class DINOv2Config(DINOConfig):
    """DINOv2, published values."""

    fixed_norm: bool = Field(False, description="prototypes have length 1 (false: learned lengths)")
    momentum: float = Field(0.992, ge=0, le=1, description="EMA momentum at the start, at batch 2048; 1 at the end")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 2048)")
    teacher_temperature: float = Field(0.07, gt=0, description="temperature of the teacher's softmax after its warm-up")
    global_crop: tuple[float, float] = Field((0.32, 1.0), description="area of a global crop as a fraction of the image")
    local_crop: tuple[float, float] = Field((0.05, 0.32), description="area of a local crop as a fraction of the image")
    balance: Literal["sinkhorn", "centre"] = Field("sinkhorn", description="how the teacher's outputs are spread over the prototypes")
    sinkhorn_iterations: int = Field(3, ge=1, description="balance=sinkhorn: iterations of Sinkhorn-Knopp")
    separate_heads: bool = Field(True, description="patches have a head of their own (false: that of the class token, as in iBOT)")
    patch_weight: float = Field(1.0, ge=0, description="weight of the loss of hidden patches (iBOT)")
    koleo: float = Field(0.1, ge=0, description="weight of KoLeo; 0: without it")
    mask_probability: float = Field(0.5, ge=0, le=1, description="share of the global crops in which patches are hidden")
    mask_ratio: tuple[float, float] = Field((0.1, 0.5), description="lowest and highest share of the patches that is hidden in such a crop")
    patch_embed_lr: float = Field(0.2, gt=0, description="learning rate of the patch embedding as a fraction of the others'")


@full_precision
def masked_patch_loss(student: Tensor, targets: Tensor, number: Tensor, student_t: float, n_crops: int) -> Tensor:
    """Cross-entropy (nats) of the student's softmax under the targets: mean over the hidden patches of a crop, then over all crops.

    student, targets: (M, K).  number: (M,) of hidden patches in the crop of each.  n_crops: those without hidden patches count too, with a
    loss of 0.  Returns a scalar."""
    entropies = -(targets * F.log_softmax(student / student_t, dim=-1)).sum(dim=-1)  # (M,)
    return (entropies / number).sum() / n_crops


class DINOv2(DINO):
    """Student encoder, teacher encoder (exported), and for each a head of the class token and one of patches."""

    Config = DINOv2Config
    cfg: DINOv2Config
    summary = "DINOv2: DINO on whole images, iBOT on hidden patches, and features that stay apart."
    traits = Traits(
        networks="ViT",
        passes_with_grad=2,
        passes_without_grad=2,
        needs="AdamW, clipping, layer decay 0.9; each local crop adds a small pass with gradients (8 add about 1.5); two encoders and two "
        "wide heads in memory",
        when_to_choose="a ViT for frozen features of images and patches, the method of most recent pathology encoders; small data: fewer "
        "prototypes",
    )
    plain_vit_only = True
    published_batch: ClassVar[int] = 2048
    backbone: VisionTransformer
    patch_centre: Tensor

    def __init__(self, cfg: DINOv2Config, backbone: nn.Module, data: DataShape):
        vit = require_vit(backbone, "dinov2")
        if not isinstance(vit.patch_drop, nn.Identity):
            raise InputError("method dinov2 hides patches itself and needs all of them: leave out model_args.patch_drop_rate")
        if cfg.n_local:
            require_dynamic_image_size(backbone, "dinov2")
        super().__init__(cfg, backbone, data)
        self.mask_token = nn.Parameter(torch.zeros(vit.embed_dim))
        self.patch_head = DINOHead(vit.embed_dim, cfg) if cfg.separate_heads else None
        self.patch_teacher = frozen_copy(self.patch_head) if self.patch_head is not None else None
        self.register_buffer("patch_centre", torch.zeros(cfg.prototypes))  # (K,)
        self.step_patch_outputs = StepBuffer()  # sum of the teacher's outputs for hidden patches, and their number

    def mask_spec(self) -> BlockTokens:
        rows, columns = self.backbone.patch_embed.grid_size
        cfg = self.cfg
        return BlockTokens(rows=rows, columns=columns, views=2, probability=cfg.mask_probability, ratio=cfg.mask_ratio)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two global (B, C, H, W) batches, then local ones (B, C, h, w).  masks: `BlockMasks` of the two global ones."""
        cfg, images, blocks = self.cfg, torch.cat(views[:2]), join_block_masks(masks)  # images: (2B, C, H, W)
        tokens = self.encode(images, blocks.hidden)  # (2B, P + N, D)
        features = self.backbone.forward_head(tokens, pre_logits=True)  # (2B, D)
        local = self.student(views[2:]) if views[2:] else []
        patch_head = self.head if self.patch_head is None else self.patch_head
        predicted = patch_head(self.select_patches(tokens, blocks.index))  # (M, K)
        outputs, patch_outputs = self.teacher_outputs(images, blocks.index)  # (2B, K), (M, K)
        targets, patch_targets = self.balance(outputs, self.centre, progress), self.balance(patch_outputs, self.patch_centre, progress)
        self.remember(outputs, patch_outputs)
        dino = cross_view_entropy([*self.head(features).chunk(2), *local], list(targets.chunk(2)), cfg.student_temperature)
        ibot = masked_patch_loss(predicted, patch_targets, blocks.number, cfg.student_temperature, len(images))
        scalars = {"loss": dino + cfg.patch_weight * ibot, "dino": dino, "ibot": ibot}
        if cfg.koleo:  # not between the two views of an image, which should be near
            scalars["koleo"] = torch.stack([koleo_loss(dist.gather(view)) for view in features.chunk(2)]).sum()
            scalars["loss"] = scalars["loss"] + cfg.koleo * scalars["koleo"]
        scalars["teacher_entropy"] = torch.special.entr(targets).sum(dim=-1).mean()
        return scalars

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """(B, P + N, D) the student's tokens of images in which the mask token takes the place of the embedded patches `hidden` (B, N)."""
        patches = self.backbone.patch_embed(images)  # (B, N, D), or (B, rows, columns, D) of a ViT for several sizes
        patches = torch.where(hidden.view(*patches.shape[:-1], 1), self.mask_token.to(patches.dtype), patches)
        return encode_tokens(self.backbone, self.backbone._pos_embed(patches))

    def select_patches(self, tokens: Tensor, index: Tensor) -> Tensor:
        """The tokens at the places `index` among the patches of all images: (B, P + N, D), (M,) -> (M, D)."""
        patches = tokens[:, self.backbone.num_prefix_tokens :]
        return rearrange(patches, "b n d -> (b n) d").index_select(0, index)

    @torch.no_grad()
    def teacher_outputs(self, images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """What the teacher, which sees all patches, says of whole images and of the hidden patches: (2B, K), (M, K)."""
        backbone, head = self.teacher
        assert isinstance(backbone, VisionTransformer)  # a copy of the student's
        patch_head = head if self.patch_teacher is None else self.patch_teacher
        tokens = backbone.forward_features(images)  # (2B, P + N, D)
        return head(backbone.forward_head(tokens, pre_logits=True)), patch_head(self.select_patches(tokens, index))

    def remember(self, outputs: Tensor, patch_outputs: Tensor) -> None:
        """Keeps what the centres need until the step is accepted."""
        if self.cfg.balance == "centre":
            number = patch_outputs.new_full((1,), len(patch_outputs))
            self.step_outputs.add(outputs.mean(dim=0, keepdim=True))  # (1, K)
            self.step_patch_outputs.add(torch.cat([patch_outputs.sum(dim=0), number])[None])  # (1, K + 1)

    @torch.no_grad()
    def balance(self, outputs: Tensor, centre: Tensor, progress: float, over_ranks: bool = True) -> Tensor:
        """The teacher's outputs (B, K) as probabilities.  over_ranks: false if this rank alone computes them."""
        temperature = teacher_temperature(self.cfg, progress)
        if self.cfg.balance == "sinkhorn":
            return sinkhorn(outputs, temperature, self.cfg.sinkhorn_iterations, over_ranks)
        return F.softmax((at_least_float32(outputs) - centre) / temperature, dim=-1)

    def param_groups(self) -> list[ParamGroup]:
        """The patch embedding has a lower learning rate."""
        stem = {id(p) for p in self.backbone.patch_embed.parameters()}
        return [part for group in build_param_groups(self) for part in split_group(group, stem, "patch_embed", self.cfg.patch_embed_lr)]

    def after_backward(self, progress: float) -> None:
        """The prototypes of both heads stay fixed at first."""
        super().after_backward(progress)
        self.step_patch_outputs.close()
        if progress < self.cfg.freeze and self.patch_head is not None:
            self.patch_head.prototypes.grad = None
            self.patch_head.length.grad = None

    def after_step(self, progress: float) -> None:
        """The teacher follows the student, the centres follow the teacher's mean outputs."""
        momentum = self.momentum(progress)
        ema_(self.teacher, nn.Sequential(self.backbone, self.head), momentum)
        if self.patch_head is not None and self.patch_teacher is not None:
            ema_(self.patch_teacher, self.patch_head, momentum)
        if self.cfg.balance == "centre":
            self.move_centres(1 - self.cfg.centre_momentum)

    @torch.no_grad()
    def move_centres(self, share: float) -> None:
        """Moves each centre by `share` of the way to the mean output of the step, over its micro-batches and ranks."""
        self.centre.lerp_(dist.gather(self.step_outputs.pop_all()).mean(dim=0), share)
        total = dist.gather(self.step_patch_outputs.pop_all()).sum(dim=0)  # (K + 1,)
        number = total[-1]
        mean = total[:-1] / number.clamp(min=1)
        self.patch_centre.lerp_(torch.where(number > 0, mean, self.patch_centre), share)  # nothing was hidden: it stays

    def teacher_probs(self, features: Tensor, progress: float) -> Tensor:
        """(B, K) the teacher's distribution over prototypes. Sinkhorn-Knopp balances it over the B images given."""
        return self.balance(self.teacher[1](features), self.centre, progress, over_ranks=False)

    def notes(self, data: DataShape) -> list[str]:
        notes = self.size_notes(data)
        if data.accumulate > 1 and self.cfg.balance == "sinkhorn":
            notes.append(f"Sinkhorn-Knopp balances each micro-batch of {data.batch // data.accumulate} images on its own")
        return notes


def join_block_masks(masks: list[Masks] | None) -> BlockMasks:
    """The masks of the two global views as those of one batch of 2B images, the first view first."""
    assert masks is not None  # `mask_spec` asks for them
    first, second = masks[:2]
    assert isinstance(first, BlockMasks)
    assert isinstance(second, BlockMasks)
    return BlockMasks(
        torch.cat([first.hidden, second.hidden]),
        torch.cat([first.index, second.index + first.hidden.numel()]),
        torch.cat([first.number, second.number]),
    )


def split_group(group: ParamGroup, apart: set[int], name: str, lr_scale: float) -> Iterator[ParamGroup]:
    """The group without the parameters whose ids are in `apart`, and one of these with `lr_scale`; each only if it is not empty."""
    rest, own = group.copy(), group.copy()
    rest["params"] = [p for p in group["params"] if id(p) not in apart]
    own["params"] = [p for p in group["params"] if id(p) in apart]
    own["name"], own["lr_scale"] = f"{group['name']}_{name}", lr_scale
    yield from (part for part in (rest, own) if part["params"])
