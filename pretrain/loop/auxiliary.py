"""A method whose loss also holds supervised terms: a linear layer on the features of the backbone predicts each label of `auxiliary`.

Multi-task pretraining. Classes: cross-entropy. Numbers: squared error, in units of the label's standard deviation. The layers take the
features that the method computes with gradients for its full-size views, brought to one length. A method that hides parts of an image, or
mixes images, gets one more forward and backward pass of the first view. The layers are not exported.

An image without a label adds 0 to the sum, which is divided by the images times the labeled share s of the corpus, and not by the labeled
images of the batch: its expectation is the mean over labeled images, and the sum over micro-batches and ranks is that of the whole batch.

Shapes: B images of a micro-batch on this rank, K full-size views, M = K * B rows of features, D width, C classes, T targets.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.masks import Masks
from encoders.zoo.backbone import feature_dim
from pretrain.loop.anchor import AnchoredMethod, record_passes
from pretrain.loop.usable_labels import UsedLabel
from pretrain.methods import Method
from pretrain.methods.method import label_arguments
from pretrain.methods.param_groups import ParamGroup, build_param_groups
from pretrain.methods.precision import full_precision, l2_normalize

PREFIX = "auxiliary/"  # of the metrics
# The squared error of a head on features of length l diverges under SGD with momentum .9 once weight * rate * 2 l^2 > 3.8. Pooled features
# of a ResNet have a length of about 20; with 4, a rate of 0.1 at weight 1 converges, and none is slow.
FEATURE_LENGTH = 4.0


class AuxiliaryMethod(nn.Module):
    """`inner` with the supervised terms. DDP wraps it in place of the method; checkpoints hold the method and `heads`."""

    def __init__(self, method: Method, inner: Method | AnchoredMethod, backbone: nn.Module, labels: Sequence[UsedLabel]):
        """inner: the method, perhaps with the terms of `anchor`.  backbone: the trained one of the method.  labels: T."""
        super().__init__()
        self.inner, self.backbone, self.labels = inner, backbone, tuple(labels)
        self.heads = nn.ModuleList(nn.Linear(feature_dim(backbone), len(label.names or "1")) for label in labels)
        self.reuses_passes = None if method.mask_spec() is None else False  # None: decided in the first step

    def param_groups(self) -> list[ParamGroup]:
        """The parameters of the heads, all with weight decay: LARS rescales these only, and its rate is too large for others."""
        return build_param_groups(self.heads, decay="all", name="auxiliary")

    def forward(
        self,
        views: list[Tensor],
        masks: list[Masks] | None,
        progress: float,
        patient_ids: Tensor | None = None,
        class_ids: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The scalars of `inner`, with the terms added to its `loss` and under their own names.  targets: (B, T), NaN = unlabeled."""
        assert targets is not None
        with record_passes(self.backbone) as passes:
            outputs = dict(self.inner(views, masks, progress=progress, patient_ids=patient_ids, **label_arguments(class_ids)))
        features = self.full_view_features(views, passes)  # (M, D)
        rows = targets.repeat(len(features) // len(targets), 1)  # (M, T)
        for i, (label, head) in enumerate(zip(self.labels, self.heads, strict=True)):
            terms = supervised_terms(features, rows[:, i], head, label)
            outputs["loss"] = outputs["loss"] + label.weight * terms["loss"]
            outputs |= {f"{PREFIX}{label.name}{'' if key == 'loss' else ':' + key}": value for key, value in terms.items()}
        return outputs

    def full_view_features(self, views: list[Tensor], passes: list[tuple[Tensor, Tensor]]) -> Tensor:
        """(M, D) features of full-size views, row i of image i % B.  passes: (images, features) that the method computed."""
        whole = [(images, features) for images, features in passes if images.shape[1:] == views[0].shape[1:]]
        if self.reuses_passes is None and torch.is_grad_enabled():
            self.reuses_passes = bool(whole) and are_views(torch.cat([images for images, _ in whole]), views)
        if self.reuses_passes and whole:
            return torch.cat([features for _, features in whole])
        features: Tensor = self.backbone(views[0])
        return features


def are_views(images: Tensor, views: Sequence[Tensor]) -> bool:
    """Whether the images (M, C, H, W) are whole views (B, C, H, W), one after another. Waits for the device."""
    n = len(views[0])
    if len(images) % n:
        return False
    whole = [view.to(images.dtype) for view in views if view.shape == views[0].shape]
    return all(any(torch.equal(images[i : i + n], view) for view in whole) for i in range(0, len(images), n))


def supervised_terms(features: Tensor, target: Tensor, head: nn.Module, label: UsedLabel) -> dict[str, Tensor]:
    """Scalars `loss`, `labeled` (rows with a label), and `correct`, or for a number `error` (sum of absolute errors in its own unit).

    features: (M, D).  target: (M,), NaN = unlabeled."""
    known = ~target.isnan()
    filled = target.nan_to_num(0.0)
    expected = len(target) * label.share  # rows with a label in a batch, on average
    output = apply_head(features, head)  # (M, C) or (M, 1)
    if label.names is None:
        difference = output[:, 0] - filled.to(output.dtype)
        losses, score = difference.square(), difference.detach().abs() * label.std
        measured = {"error": (score * known).sum()}
    else:
        losses = F.cross_entropy(output, filled.long(), reduction="none")
        measured = {"correct": ((output.detach().argmax(dim=1) == filled) & known).sum()}
    return {"loss": (losses * known).sum() / expected, "labeled": known.sum(), **measured}


@full_precision
def apply_head(features: Tensor, head: nn.Module) -> Tensor:
    """(M, C) outputs for features of one length, in float32 or better, whatever autocast says."""
    outputs: Tensor = head(FEATURE_LENGTH * l2_normalize(features))
    return outputs


def summarise_terms(scalars: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scalars of a step, with `NAME_accuracy` or `NAME_error` (mean absolute error) in place of the sums that they come from.

    A step without a labeled image has neither. Reading the number of labeled images waits for the device: call it for logged steps only."""
    kept = {key: value for key, value in scalars.items() if not (key.startswith(PREFIX) and ":" in key)}
    for key, total in scalars.items():
        name, _, measure = key.rpartition(":")
        if measure in ("correct", "error") and key.startswith(PREFIX) and float(labeled := scalars[f"{name}:labeled"]) > 0:
            kept[f"{name}_{'accuracy' if measure == 'correct' else 'error'}"] = total / labeled
    return kept


def build_auxiliary(
    method: Method, inner: Method | AnchoredMethod, network: nn.Module, labels: Sequence[UsedLabel]
) -> AuxiliaryMethod | None:
    """The supervised terms on the method's device; None without labels.  network: the backbone."""
    return AuxiliaryMethod(method, inner, network, labels).to(next(network.parameters()).device) if labels else None
