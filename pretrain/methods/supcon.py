"""SupCon: find the views of all images of the same class among all views in the batch.

Source: Khosla et al. 2020 (arXiv:2004.11362), supervised contrastive learning, equation 2 (L_out: the mean over positives stands outside
the logarithm); the authors' code is HobbitLong/SupContrast.

The class is that of one column of the store, `method.label`. An image without a label has one positive, its own other view, as in SimCLR:
without any label the loss is that of SimCLR. The negatives are the other images of the micro-batch (of all ranks), also those without a
label, of which some may be of the same class.

Departures: BatchNorm in the head, as our SimCLR has it; the loss is not multiplied by temperature / base temperature, which are equal in
the authors' code.

Shapes: B images, C channels, H height, W width, D width of the embedding.
"""

import torch
from einops import einsum
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.masks import Masks
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from pretrain.methods.contrastive import ContrastiveMethod
from pretrain.methods.method import DataShape, Traits
from pretrain.methods.precision import full_precision

UNLABELED = -1  # in `class_ids`


class SupConConfig(Config):
    """Supervised contrastive learning, published values."""

    label: str | None = Field(
        None,
        description="column of the store whose classes make positives, e.g. pneumonia; one column. Images without a value are unlabeled",
    )
    dim: int = Field(128, gt=1, description="width of the embedding")
    hidden: int | None = Field(None, gt=0, description="width of the head's hidden layers; null: that of the encoder's features")
    layers: int = Field(2, gt=0, description="layers of the head")
    temperature: float = Field(0.1, gt=0, description="the similarities are divided by it (0.07 by default in the authors' code)")
    exclude_same_patient: bool = Field(
        False, description="do not use other images of the same patient as negatives (column `patient` of the store)"
    )


@full_precision
def supcon_loss(a: Tensor, b: Tensor, temperature: float, class_ids: Tensor | None = None, patient_ids: Tensor | None = None) -> Tensor:
    """Mean over all 2B views of -1/|P| sum over positives of log(softmax over all other views), in nats: a scalar.

    a, b: (B, D) unit rows, a[i] and b[i] two views of one image.  class_ids: (B,), -1 = unlabeled; None: all unlabeled.
    patient_ids: (B,); other images of the same patient are then left out, unless they are positives."""
    z = torch.cat([a, b])  # (2B, D)
    similarities = einsum(z, z, "i d, j d -> i j") / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    image = torch.arange(len(a), device=z.device).repeat(2)  # (2B,)
    positive = image[:, None] == image[None]
    if class_ids is not None:
        label = class_ids.repeat(2)
        positive |= (label[:, None] == label[None]) & (label != UNLABELED)[:, None]
    positive &= ~itself
    left_out = itself
    if patient_ids is not None:
        patient = patient_ids.repeat(2)
        left_out = itself | ((patient[:, None] == patient[None]) & ~positive)
    log_share = similarities - similarities.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)  # (2B, 2B)
    per_view = log_share.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1)  # each view has a positive: its other view
    return -per_view.mean()


class SupCon(ContrastiveMethod):
    """The supervised contrastive loss on the embeddings of two views."""

    Config = SupConConfig
    cfg: SupConConfig
    summary = "SupCon: find the views of all images of the same class among all views in the batch."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=0,
        needs="a label of some of the images (`method.label`); a batch of 256 or more, in one piece: its other images are the negatives",
        when_to_choose="labels of another task on the same kind of images; its encoders have seen labels, and card and benchmark say so",
    )

    def __init__(self, cfg: SupConConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data, cfg.dim, cfg.hidden, cfg.layers, cfg.exclude_same_patient)

    def label_column(self) -> str:
        if self.cfg.label is None:
            raise InputError("method supcon needs the column of the store whose classes make positives: set method.label=NAME")
        return self.cfg.label

    def forward(
        self,
        views: list[Tensor],
        masks: list[Masks] | None,
        progress: float,
        patient_ids: Tensor | None = None,
        class_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches.  class_ids: (B,), -1 = unlabeled; None: all unlabeled."""
        a, b = self.embed_views(views)  # (B, D) each
        all_classes, all_patients = (None if ids is None else dist.gather(ids) for ids in (class_ids, patient_ids))
        return {"loss": supcon_loss(dist.gather(a), dist.gather(b), self.cfg.temperature, all_classes, all_patients)}

    def notes(self, data: DataShape) -> list[str]:
        together = data.batch // data.accumulate
        if together >= 256:
            return []
        how = f"batch {data.batch}" + (f" in {data.accumulate} micro-batches" if data.accumulate > 1 else "")
        return [
            f"{how} gives {2 * together - 1} other views to each view; Khosla et al. use 6,144 images, and their gain grows with the batch"
        ]
