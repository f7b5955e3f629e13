"""`lora=R`: each attention and MLP weight W is replaced by W + alpha / R B A, and only A (R, in) and B (out, R) are trained, with the head.

Source: Hu et al. 2022, arXiv:2106.09685, sec. 4.1: A random, B zero, so that training starts from the pretrained network. In transformers
the layers of `ADAPTED` get an update, in networks without them every 1x1 convolution of one group. BatchNorm statistics are kept.
Departure: the weight is put together at every forward pass, by a parametrization, in place of two small products beside the layer. The
function is the same, and `merge` leaves a plain network.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from encoders.runtime.errors import InputError
from encoders.zoo.parts import list_networks
from transfer.strategies.contract import Phase, Strategy

ADAPTED = frozenset({"qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj", "fc1", "fc2"})


class LowRankUpdate(nn.Module):
    """The parametrization of a weight (out, in) or (out, in, 1, 1)."""

    def __init__(self, weight: Tensor, rank: int, alpha: float):
        super().__init__()
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, weight.shape[1], device=weight.device, dtype=weight.dtype))  # A
        self.up = nn.Parameter(torch.zeros(weight.shape[0], rank, device=weight.device, dtype=weight.dtype))  # B
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, weight: Tensor) -> Tensor:
        update = (self.up @ self.down).to(weight.dtype).view_as(weight)
        return weight + self.scale * update


class LowRankTuning(Strategy):
    """rank, alpha: as in the paper.  lr: learning rate of A and B, as a multiple of the base rate."""

    def __init__(self, rank: int, alpha: float, lr: float):
        self.rank, self.alpha, self.lr = rank, alpha, lr

    def prepare(self, backbone: nn.Module) -> None:
        """Adds the updates. Raises InputError for a network without a layer that can be adapted."""
        for _, network in list_networks(backbone):
            layers = list_adapted_layers(network)
            if not layers:
                raise InputError(
                    f"strategy lora adapts layers called {', '.join(sorted(ADAPTED))} or 1x1 convolutions, and {type(network).__name__} "
                    "has none; use another strategy"
                )
            for layer in layers:
                weight = layer.weight
                assert isinstance(weight, Tensor)
                parametrize.register_parametrization(layer, "weight", LowRankUpdate(weight, self.rank, self.alpha))

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        updates = frozenset(
            f"{prefix}.{name}"
            for prefix, module in backbone.named_modules()
            if isinstance(module, LowRankUpdate)
            for name, _ in module.named_parameters()
        )
        return [Phase("", 1.0, updates, statistics=False, flat_lr=self.lr)]

    def merge(self, backbone: nn.Module) -> None:
        for layer in [module for module in backbone.modules() if parametrize.is_parametrized(module, "weight")]:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
            if "bias" in layer._parameters:
                layer._parameters["bias"] = layer._parameters.pop("bias")  # behind the weight again


def list_adapted_layers(network: nn.Module) -> list[nn.Module]:
    """The layers of one timm network whose weights get an update."""
    named: list[nn.Module] = [
        module for name, module in network.named_modules() if isinstance(module, nn.Linear) and name.rpartition(".")[2] in ADAPTED
    ]
    return named or [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and m.groups == 1]
