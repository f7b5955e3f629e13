"""`wise`: full fine-tuning, then a mean of the weights at its start and at its end: (1 - alpha) start + alpha end.

Source: Wortsman et al. 2022 (WiSE-FT), arXiv:2109.01903, sec. 3. alpha is chosen on validation images, among as many values as the other
strategies have validations. Departure: the start has no trained head, unlike the zero-shot classifier of the paper, so the head is the
fine-tuned one for every alpha. Floating-point buffers, that is BatchNorm statistics, are interpolated as weights are; counters are the
end's.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from transfer.strategies.contract import Strategy


class StartInterpolation(Strategy):
    """alphas: the candidates; None: evenly spaced up to 1, one for each validation."""

    validates_while_training = False

    def __init__(self, alphas: Sequence[float] | None):
        self.alphas = alphas

    def blends(self, evaluations: int) -> list[float]:
        return list(self.alphas) if self.alphas is not None else [(i + 1) / evaluations for i in range(evaluations)]


def interpolate(start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) start + alpha end, by name; integers are those of `end`."""
    return {name: torch.lerp(start[name], value, alpha) if value.is_floating_point() else value for name, value in end.items()}
