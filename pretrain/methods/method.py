"""The contract between a pretraining method and the training loop.

A method is an `nn.Module` in a file of its own, which derives from `Method`. `pretrain/methods/__init__.py` names them all.

- A method knows no rank, logger or file.
- `state_dict()` holds all of its state, as tensors only.
- Random numbers that it draws come from torch's generator, which the loop seeds from (seed, step, micro-batch, rank).

Shapes: B images of a micro-batch, C channels, H height, W width, D width of the features, K width of what the loss compares or number of
outcomes of a teacher.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import Masks, MaskSpec
from pretrain.methods.param_groups import ParamGroup, build_param_groups


@dataclass(frozen=True)
class DataShape:
    """What a method may know about the data."""

    n_images: int  # in the corpus
    size: int  # side of a full view, pixels
    channels: int
    batch: int  # global: over ranks and micro-batches
    pretrained: bool = False  # the backbone comes with pretrained weights
    accumulate: int = 1  # micro-batches per batch


@dataclass(frozen=True)
class Traits:
    """What helps a person to choose a method; `pretrain methods` prints it. Text only: no code decides by it."""

    networks: str
    passes_with_grad: int  # passes of one image through an encoder with gradients, per step
    passes_without_grad: int  # passes without gradients: teacher, key encoder
    needs: str  # batch, normalisation, memory
    when_to_choose: str

    @property
    def cost(self) -> str:
        """Passes of one image per step, in words."""
        without_grad = f", {self.passes_without_grad} forward" if self.passes_without_grad else ""
        return f"{self.passes_with_grad} forward and backward{without_grad}"

    def rows(self) -> list[tuple[str, str]]:
        """(label, text) of every line that `pretrain methods` prints."""
        return [("takes", self.networks), ("cost", self.cost), ("needs", self.needs), ("choose", self.when_to_choose)]


class Method(nn.Module):
    """A pretraining method: a backbone, its heads and its loss. The defaults here are those of most methods."""

    Config: ClassVar[type[BaseModel]]  # settings, found under `method:` in a recipe
    summary: ClassVar[str]  # one line, printed by `pretrain methods`
    traits: ClassVar[Traits]
    plain_vit_only: ClassVar[bool] = False  # the backbone must be one of timm's plain ViTs
    pools_patches: ClassVar[bool] = False  # a backbone that would pool by its class token pools by the mean of its patches
    has_negatives: ClassVar[bool] = False  # the loss pushes other images away; `cfg.exclude_same_patient` then exists
    sync_batchnorm_by_default: ClassVar[bool] = True  # with several ranks, BatchNorm uses the statistics of all of them

    cfg: BaseModel  # subclasses narrow it to their own Config
    data: DataShape

    def __init__(self, cfg: BaseModel, backbone: nn.Module, data: DataShape):
        """backbone: a timm module with num_classes=0."""
        super().__init__()
        self.cfg = cfg
        self.data = data

    # Data

    def views(self, augment: Augment) -> list[Augment]:
        """One augmentation per view: two equal ones by default.

        A pure function of (cfg, data, augment): it is called more than once."""
        return [augment, augment]

    def mask_spec(self) -> MaskSpec | None:
        """What draws the tokens to hide in each view (encoders/augment/masks.py); None if the method hides none."""
        return None

    def needs_patients(self) -> bool:
        """Whether `forward` receives `patient_ids`, one id per image."""
        return False

    def label_column(self) -> str | None:
        """The column of the store whose classes `forward` receives as `class_ids`; None for a method without labels.

        `forward` then has another argument, `class_ids: Tensor | None = None`: (B,) int64, -1 = unlabeled."""
        return None

    # Training

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Returns the scalars `loss`, and others that are logged under their own names.

        views: (B, C, H, W) each.  masks: one per view, as `mask_spec` draws them, or None without it.
        progress: fraction of the run that is done, in [0, 1); with compile=true a float64 scalar tensor on the CPU, so that it is no
        constant of the graph: calculate with it, and make no decision by it.  patient_ids: (B,) int64, or None if `needs_patients` is
        false.

        Without gradients it changes no state."""
        raise NotImplementedError

    def param_groups(self) -> list[ParamGroup]:
        """Every trainable tensor in exactly one group."""
        return build_param_groups(self)

    def after_backward(self, progress: float) -> None:
        """Runs once per step, before gradients are clipped, also if the step is rejected afterwards."""

    def after_step(self, progress: float) -> None:
        """Updates EMA networks and queues. Runs once per accepted optimizer step."""

    # Results

    def encoder(self) -> nn.Module:
        """The network that is exported, with timm's parameter names."""
        raise NotImplementedError

    def notes(self, data: DataShape) -> list[str]:
        """Sentences about what was adjusted to the data, or may not suit it."""
        return []

    # What the plan and the watchdog read

    @property
    def loss_head(self) -> nn.Module | None:
        """The module whose output the loss compares; it may collapse while the encoder does not. None without one."""
        return None

    @property
    def slow_network(self) -> nn.Module | None:
        """The EMA copy of the trained network (key encoder, target or teacher); None without one."""
        return None

    @property
    def queue_length(self) -> int | None:
        """K, the number of keys in the queue; None without a queue."""
        return None

    @property
    def constant_momentum(self) -> float | None:
        """The EMA momentum, if it is the same in every step; None if it follows a schedule or there is no EMA."""
        return None

    def loss_embedding(self, images: Tensor, features: Tensor) -> Tensor | None:
        """(B, K) output of `loss_head`, or None without one.

        images: (B, C, H, W).  features: (B, D) output of `encoder()` for these images, which is not computed twice."""
        return None if self.loss_head is None else self.loss_head(features)

    def teacher_probs(self, features: Tensor, progress: float) -> Tensor | None:
        """(B, K) probabilities that a teacher assigns to its outcomes; rows sum to 1. None without such a teacher.

        features: (B, D) output of `encoder()`."""
        return None


def label_arguments(class_ids: Tensor | None) -> dict[str, Tensor]:
    """The keyword arguments of `forward` for labels: none for a method without them, whose `forward` has no such argument."""
    return {} if class_ids is None else {"class_ids": class_ids}


@runtime_checkable
class Reconstructs(Protocol):
    """A method that predicts the pixels of hidden patches."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in a view."""
        ...

    @property
    def given_patch_statistics(self) -> bool:
        """Whether a reconstruction takes the mean and standard deviation of each hidden patch from the target."""
        ...

    def reconstruct(self, views: list[Tensor], masks: list[Masks]) -> tuple[Tensor, Tensor, Tensor]:
        """(B, C, H, W) each: masked input, reconstruction, target."""
        ...
