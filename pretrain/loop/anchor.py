"""A method whose loss also holds its backbone to the weights that it starts from: in what features say (`anchor.relational`), and in the
weights themselves (`anchor.l2_sp`).

- Relational distillation: the images that the method passes through its backbone with gradients also pass the frozen start, and the
  distances between them should stay (pretrain/methods/relational.py). It adds a forward pass to each of those passes, without gradients.
- L2-SP: a/2 |w - w0|^2 over the trained weights of the backbone. Source: Li et al. 2018 (arXiv:1802.01483), section 3; the heads keep their
  weight decay. It is part of the loss as published, so AdamW rescales it with the gradient.

The start is not part of checkpoints: a resumed run loads `init` again, and its sha256 must be that of the card.

Shapes: B images of a micro-batch on this rank, D width of the features, R ranks.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from encoders.augment.masks import Masks
from encoders.runtime import dist
from encoders.runtime.errors import InputError
from pretrain.methods import Method
from pretrain.methods.method import label_arguments
from pretrain.methods.precision import full_precision
from pretrain.methods.relational import relational_loss
from pretrain.recipe.anchor_config import AnchorConfig


class AnchoredMethod(nn.Module):
    """`method` with the terms of `anchor`. DDP wraps it in place of the method; checkpoints hold the method alone."""

    def __init__(self, method: Method, backbone: nn.Module, start: nn.Module, cfg: AnchorConfig):
        """backbone: of the method.  start: an equal network, frozen.  Raises InputError for a method that hides parts of an image."""
        super().__init__()
        if cfg.relational and method.mask_spec() is not None:
            raise InputError("anchor.relational compares features of whole images, and this method hides patches: use anchor.l2_sp")
        self.method, self.backbone, self.start, self.cfg = method, backbone, start.requires_grad_(False).eval(), cfg

    def train(self, mode: bool = True) -> "AnchoredMethod":
        """The start stays in evaluation mode."""
        super().train(mode)
        self.start.eval()
        return self

    def forward(
        self,
        views: list[Tensor],
        masks: list[Masks] | None,
        progress: float,
        patient_ids: Tensor | None = None,
        class_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The scalars of the method, with the terms added to its `loss` and under their own names."""
        with record_passes(self.backbone) as passes:
            outputs = dict(self.method(views, masks, progress=progress, patient_ids=patient_ids, **label_arguments(class_ids)))
        if self.cfg.relational:
            outputs["anchor_relational"] = self.relational_term(passes)
            outputs["loss"] = outputs["loss"] + self.cfg.relational * outputs["anchor_relational"]
        if self.cfg.l2_sp:
            outputs["anchor_distance"] = squared_distance(*self.weight_pairs())
            outputs["loss"] = outputs["loss"] + self.cfg.l2_sp / 2 * outputs["anchor_distance"]
        return outputs

    def relational_term(self, passes: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Relational loss over all images of all passes and ranks.  passes: (images (B, C, H, W), features (B, D)) of each."""
        with torch.no_grad():
            before = torch.cat([self.start(images) for images, _ in passes])  # (B of all passes, D)
        now = torch.cat([features for _, features in passes])
        return relational_loss(dist.gather(now), dist.gather(before))  # (R * B, D): every rank computes the same loss, as SimCLR does

    def weight_pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """The trained weights of the backbone, and their values at the start."""
        start = dict(self.start.named_parameters())
        trained = [(p, start[name]) for name, p in self.backbone.named_parameters() if p.requires_grad]
        return [p for p, _ in trained], [p0 for _, p0 in trained]


@full_precision
def squared_distance(weights: list[Tensor], start: list[Tensor]) -> Tensor:
    """Squared Euclidean distance between two lists of tensors of equal shapes: a scalar."""
    return torch.stack([(p - p0).square().sum() for p, p0 in zip(weights, start, strict=True)]).sum()


@contextmanager
def record_passes(backbone: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yields a list that receives (images, features) of every pass through `backbone` with gradients while the context is open."""
    passes: list[tuple[Tensor, Tensor]] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...], features: Tensor) -> None:
        if torch.is_grad_enabled():
            passes.append((inputs[0].detach(), features))

    handle = backbone.register_forward_hook(record)
    try:
        yield passes
    finally:
        handle.remove()
