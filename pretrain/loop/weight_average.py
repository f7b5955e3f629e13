"""The exponential moving average (EMA) of the encoder's weights, exported beside the last ones.

Source: Polyak and Juditsky 1992; Tarvainen and Valpola 2017 (arXiv:1703.01780) for the EMA. The decay of step n is
min(ema, (1 + n) / (10 + n)), as in TensorFlow's `ExponentialMovingAverage`: otherwise a short run would export little but its start
(0.999 ** 70 = 0.93).

Running statistics of BatchNorm are averaged as the weights are, and counters copied, as in timm's `ModelEmaV3`.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from encoders.runtime.moving_average import move_average


class WeightAverage:
    """An average of all tensors of `encoder`, which it reads and never changes."""

    def __init__(self, encoder: nn.Module, decay: float):
        """decay: per step, after the first steps."""
        self.encoder, self.decay = encoder, decay
        self.tensors: dict[str, Tensor] = {name: t.detach().clone() for name, t in encoder.state_dict().items()}

    def decay_at(self, step: int) -> float:
        """The decay of the step with this index, counted from 0."""
        return min(self.decay, (1 + step) / (10 + step))

    def update(self, step: int) -> None:
        """Moves the average towards the encoder. Once per accepted step, after the method's own updates."""
        move_average(self.tensors, self.encoder.state_dict(), self.decay_at(step))

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Continues from the average in a checkpoint. Raises ValueError for tensors of another network."""
        if tensors.keys() != self.tensors.keys():
            raise ValueError(f"the checkpoint's average has {len(tensors)} tensors, the encoder {len(self.tensors)}")
        for name, t in tensors.items():
            self.tensors[name].copy_(t)
