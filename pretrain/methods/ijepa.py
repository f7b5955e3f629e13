"""I-JEPA: from one block of an image, predict the features that a slow encoder gives other blocks of it.

Source: Assran et al. 2023 (arXiv:2301.08243), section 3 and appendix A; facebookresearch/ijepa, src/train.py, src/helper.py and
src/models/vision_transformer.py. The context encoder sees the patches of one block. A narrow predictor sees their codes and, at the place
of each patch of a target block, a mask token with its position; every target block is predicted on its own. The targets are the outputs of
the target encoder, an EMA of the context encoder that sees the whole image, normalised token by token. The loss is the smooth L1 of each
coordinate. The masks: encoders/augment/context_masks.py.

The watchdog measures the target encoder itself, whose collapse is that of the targets: there is no head between it and the loss.

Departures:
- The EMA momentum is scaled to the batch, m ** (B / 2048).
- The learning rate and the weight decay that rises from 0.04 to 0.4 are settings of the recipe; its warm-up starts at 1 / warmup.
- Prefix tokens, which the authors' ViT lacks, are seen by the encoders only. A network that would pool by its class token pools by the mean
  of its patches, as published. Tokens have no weight decay.
- An encoder with pretrained weights (`data.pretrained`) keeps them and its position table.

Shapes: B images, C channels, H x W pixels, N patches, K of the context, T target blocks, M patches of each, P prefix tokens, D width of the
encoder, E of the predictor.
"""

import torch
from einops import rearrange, repeat
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.config import Augment
from encoders.augment.context_masks import ContextBlocks, ContextMasks
from encoders.augment.masks import Masks
from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from pretrain.methods.ema import ema_, scaled_momentum
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import frozen_copy
from pretrain.methods.positions import freeze_sincos_positions, sincos_2d
from pretrain.methods.precision import full_precision
from pretrain.methods.vit_tokens import build_blocks, encode_visible, gather_tokens, init_truncated, require_vit

IJEPA_PUBLISHED_BATCH = 2048
TARGET_NORM_EPS = 1e-5  # added to the variance of a token's coordinates: torch's default, as in the authors' code


class IJEPAConfig(Config):
    """I-JEPA, published values for ViT-B/16; `predictor_depth: 12` for ViT-L and larger."""

    predictor_width: int = Field(384, gt=0, description="width of the predictor, a multiple of 4 and of its heads")
    predictor_depth: int = Field(6, gt=0, description="blocks of the predictor")
    predictor_heads: int = Field(12, gt=0, description="attention heads of the predictor; as many as the encoder has")
    momentum: float = Field(0.996, ge=0, le=1, description="EMA momentum at the start, at batch 2048; it rises linearly to 1 at the end")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 2048)")
    targets: int = Field(4, ge=1, description="target blocks per image")
    target_scale: tuple[float, float] = Field((0.15, 0.2), description="area of a target block as a fraction of the view")
    target_aspect: tuple[float, float] = Field((0.75, 1.5), description="height / width of a target block")
    context_scale: tuple[float, float] = Field(
        (0.85, 1.0), description="area of the context block as a fraction of the view, before the targets are removed from it"
    )
    min_keep: int = Field(10, ge=1, description="patches that a context keeps at least")


@full_precision
def prediction_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 of each coordinate, mean over all: |d| - 1/2 where |d| > 1, else d^2 / 2.

    predicted, target: (B, T, M, D); each target token is first brought to mean 0 and variance 1.  Returns a scalar."""
    return F.smooth_l1_loss(predicted, F.layer_norm(target, target.shape[-1:], eps=TARGET_NORM_EPS))


class IJEPA(Method):
    """Context encoder and predictor; target encoder (exported)."""

    Config = IJEPAConfig
    cfg: IJEPAConfig
    summary = "I-JEPA: from one block of an image, predict the features that a slow encoder gives other blocks of it."
    traits = Traits(
        networks="ViT",
        passes_with_grad=1,
        passes_without_grad=1,
        needs="a ViT with 14 x 14 patches or more; the pass with gradients sees about a quarter of them; a second encoder in memory",
        when_to_choose="a ViT without augmentations to tune, features by k-NN or a linear probe without pixels to reconstruct",
    )
    plain_vit_only = True
    pools_patches = True

    def __init__(self, cfg: IJEPAConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.vit = require_vit(backbone, "ijepa")
        self.grid: tuple[int, int] = self.vit.patch_embed.grid_size  # rows and columns of patches
        check_context(cfg, self.grid)
        self.predictor = IJEPAPredictor(cfg, self.vit.embed_dim, self.grid)
        init_truncated(self.predictor)
        if not data.pretrained:
            init_truncated(self.vit)
            freeze_sincos_positions(self.vit)
        self.target = frozen_copy(self.vit)

    @property
    def slow_network(self) -> nn.Module:
        return self.target

    def views(self, augment: Augment) -> list[Augment]:
        """One view."""
        return [augment]

    def mask_spec(self) -> ContextBlocks:
        cfg, (rows, columns) = self.cfg, self.grid
        return ContextBlocks(
            rows=rows,
            columns=columns,
            batch=self.data.batch,
            targets=cfg.targets,
            target_scale=cfg.target_scale,
            target_aspect=cfg.target_aspect,
            context_scale=cfg.context_scale,
            min_keep=cfg.min_keep,
        )

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: one (B, C, H, W).  masks: one with the indices of context (B, K) and targets (B, T, M)."""
        assert masks is not None, "`mask_spec` asks for them"
        assert isinstance(masks[0], ContextMasks)
        context, targets = masks[0]
        with torch.no_grad():
            everything = self.target.forward_features(views[0])[:, self.vit.num_prefix_tokens :]  # (B, N, D)
            wanted = gather_tokens(everything, rearrange(targets, "b t m -> b (t m)"))
        codes = encode_visible(self.vit, views[0], context)[:, self.vit.num_prefix_tokens :]  # (B, K, D)
        predicted = self.predictor(codes, context, targets)  # (B, T, M, D)
        return {"loss": prediction_loss(predicted, rearrange(wanted, "b (t m) d -> b t m d", t=targets.shape[1]))}

    def after_step(self, progress: float) -> None:
        """The target encoder follows the context encoder."""
        ema_(self.target, self.vit, self.momentum(progress))

    def momentum(self, progress: float) -> float:
        m = self.cfg.momentum + (1 - self.cfg.momentum) * progress
        return scaled_momentum(m, self.data.batch, IJEPA_PUBLISHED_BATCH) if self.cfg.scale_momentum else m

    def encoder(self) -> nn.Module:
        """The target encoder, as published."""
        return self.target

    def notes(self, data: DataShape) -> list[str]:
        if self.momentum(0.0) == self.cfg.momentum:
            return []
        return [f"EMA momentum {self.cfg.momentum} -> {self.momentum(0.0):.6f} at batch {data.batch}: the lag in images of batch 2048"]


class IJEPAPredictor(nn.Module):
    """Codes of the context -> features of the target blocks, each block on its own."""

    def __init__(self, cfg: IJEPAConfig, width: int, grid: tuple[int, int]):
        super().__init__()
        dim = cfg.predictor_width
        if dim % cfg.predictor_heads or dim % 4:
            raise InputError(f"method.predictor_width={dim}: expected a multiple of 4 and of method.predictor_heads={cfg.predictor_heads}")
        self.embed = nn.Linear(width, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.04, b=0.04)
        self.positions: Tensor
        self.register_buffer("positions", sincos_2d(dim, grid), persistent=False)  # (1, N, E), fixed
        self.blocks = build_blocks(dim, cfg.predictor_heads, cfg.predictor_depth)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.features = nn.Linear(dim, width)

    def forward(self, codes: Tensor, context: Tensor, targets: Tensor) -> Tensor:
        """codes: (B, K, D) of the patches `context` (B, K).  targets: (B, T, M).  Returns (B, T, M, D)."""
        n_targets, size = targets.shape[1:]
        table = self.positions.expand(len(codes), -1, -1)
        seen = self.embed(codes) + gather_tokens(table, context)  # (B, K, E)
        asked = self.mask_token + gather_tokens(table, rearrange(targets, "b t m -> b (t m)"))  # (B, T * M, E)
        each = torch.cat([repeat(seen, "b k e -> (b t) k e", t=n_targets), rearrange(asked, "b (t m) e -> (b t) m e", t=n_targets)], dim=1)
        x = self.norm(self.blocks(each))[:, -size:]  # (B * T, M, E)
        predicted: Tensor = self.features(x)  # (B * T, M, D)
        return rearrange(predicted, "(b t) m d -> b t m d", t=n_targets)


def check_context(cfg: IJEPAConfig, grid: tuple[int, int]) -> None:
    """Raises InputError where the view has fewer patches than a context must keep."""
    if grid[0] * grid[1] < cfg.min_keep:
        raise InputError(
            f"method.min_keep={cfg.min_keep}: a view has only {grid[0]} x {grid[1]} patches; choose a network with smaller patches, "
            f"a larger size, or a lower method.min_keep"
        )
