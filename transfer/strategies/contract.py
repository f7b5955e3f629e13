"""The contract between the training loop of `finetune` and a strategy. A strategy chooses tensors; the loop trains them.

All strategies get the same images in the same order, the same augmentation, the same number of steps and the same number of validations.
"""

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Phase:
    """A part of the training. The head is always trained.

    name: in the table of validations; "" for the only phase.  end: share of all steps at which it ends; the last phase has 1.
    trained: names of the backbone's parameters that are trained.
    statistics: BatchNorm of trained modules follows the batches; otherwise its statistics are used and kept, as those of frozen modules
    always are.  restarts: the phase begins from the best weights so far, with a new optimizer and schedule; otherwise both go on.
    head_lr: learning rate of the head as a multiple of the base rate; None: that of the settings.
    flat_lr: learning rate of the trained parameters as a multiple of the base rate, without layer decay; None: layer decay."""

    name: str
    end: float
    trained: frozenset[str]
    statistics: bool = True
    restarts: bool = False
    head_lr: float | None = None
    flat_lr: float | None = None


class Strategy:
    """Full fine-tuning, and the base of the others, which replace one method each.

    backbone: the network without the head, as it is when training starts."""

    decays_to_zero = True
    """Whether the backbone has the optimizer's weight decay."""

    validates_while_training = True
    """Whether the weights of a step are chosen by validation; otherwise `blends` are, at the end."""

    def prepare(self, backbone: nn.Module) -> None:
        """Changes modules before training; the features of the network stay what they are."""

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        """The phases in their order.  unused: parameters that the features do not depend on."""
        return [Phase("", 1.0, list_trainable(backbone))]

    def penalty(self, backbone: nn.Module) -> Tensor | None:
        """A scalar that is added to the loss of every step; None for none."""
        return None

    def blends(self, evaluations: int) -> list[float]:
        """The shares of trained weights among which validation chooses after training, with 1 - share of the start's; [] for none."""
        return []

    def merge(self, backbone: nn.Module) -> None:
        """Undoes `prepare` after training: the modules and names of the start, with the trained weights."""


def list_trainable(backbone: nn.Module) -> frozenset[str]:
    """The names of the parameters that have gradients; a fixed position embedding has none."""
    return frozenset(name for name, parameter in backbone.named_parameters() if parameter.requires_grad)
