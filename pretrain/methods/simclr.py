"""SimCLR: find the other view of the same image among all views in the batch.

Source: Chen et al. 2020 (arXiv:2002.05709), algorithm 1 (NT-Xent); Chen et al. 2020 (arXiv:2006.10029) for the head of three layers.

The negatives are the other images of the micro-batch (of all ranks): a small batch, or accumulation, means few of them; MoCo has a queue.

Departures: the last BatchNorm of the head has no scale (it would only rescale a direction whose length is divided out afterwards).

Shapes: B images, C channels, H height, W width, D width of the embedding.
"""

import torch
from einops import einsum
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.masks import Masks
from encoders.runtime import dist
from encoders.runtime.config import Config
from pretrain.methods.contrastive import ContrastiveMethod
from pretrain.methods.method import DataShape, Traits
from pretrain.methods.negatives import mask_same_patient
from pretrain.methods.precision import full_precision


class SimCLRConfig(Config):
    """SimCLR, published values."""

    dim: int = Field(128, gt=1, description="width of the embedding")
    hidden: int | None = Field(None, gt=0, description="width of the head's hidden layers; null: that of the encoder's features")
    layers: int = Field(3, gt=0, description="layers of the head (2 in the first paper)")
    temperature: float = Field(0.1, gt=0, description="the similarities are divided by it (0.5 suits small images and batches)")
    exclude_same_patient: bool = Field(
        False, description="do not use other images of the same patient as negatives (column `patient` of the store)"
    )


@full_precision
def nt_xent(a: Tensor, b: Tensor, temperature: float, patient_ids: Tensor | None = None) -> Tensor:
    """Cross-entropy (nats) of picking each row's partner among all other 2B - 1 rows, mean over all 2B.

    a, b: (B, D) unit rows, a[i] and b[i] two views of one image.  patient_ids: (B,); other images of the same patient are then left out.
    Returns a scalar."""
    z = torch.cat([a, b])  # (2B, D)
    similarities = einsum(z, z, "i d, j d -> i j") / temperature
    similarities = similarities.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)  # not with itself
    partner = torch.arange(len(z), device=z.device).roll(len(a))
    both_ids = None if patient_ids is None else patient_ids.repeat(2)  # (2B,)
    return F.cross_entropy(mask_same_patient(similarities, both_ids, both_ids, partner), partner)


class SimCLR(ContrastiveMethod):
    """NT-Xent on the embeddings of two views."""

    Config = SimCLRConfig
    cfg: SimCLRConfig
    summary = "SimCLR: find the other view of the same image among all views in the batch."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=0,
        needs="a batch of 256 or more, in one piece: its other images are the negatives",
        when_to_choose="no second encoder and nothing to tune but the temperature; many GPUs",
    )

    def __init__(self, cfg: SimCLRConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data, cfg.dim, cfg.hidden, cfg.layers, cfg.exclude_same_patient)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches."""
        a, b = self.embed_views(views)  # (B, D) each
        all_ids = None if patient_ids is None else dist.gather(patient_ids)
        return {"loss": nt_xent(dist.gather(a), dist.gather(b), self.cfg.temperature, all_ids)}

    def notes(self, data: DataShape) -> list[str]:
        together = data.batch // data.accumulate
        if together >= 256:
            return []
        how = f"batch {data.batch}" + (f" in {data.accumulate} micro-batches" if data.accumulate > 1 else "")
        better = "MoCo's queue" if self.cfg.temperature >= 0.5 else "method.temperature=0.5 or MoCo's queue"
        return [f"{how} gives {2 * together - 2} negatives; with fewer than 510, {better} may do better"]
