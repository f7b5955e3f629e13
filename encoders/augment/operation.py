"""What an augmentation is: its settings, the parameters it draws for each image, and how it applies them.

An operation has a file of its own with four parts: a settings class (fields of `Augment`), `draw`, `apply` for a CPU, and
`apply_on_device` for a CUDA device. `config.AUGMENTATIONS` lists the operations in the order in which they are applied. To add one, write
its file, enter it in `AUGMENTATIONS`, and add its settings class to the bases of `Augment`.

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import AfterValidator
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose, normal, uniform

DrawnParams = dict[str, Array]  # name of a parameter -> values with first axis B
Settings_contra = TypeVar("Settings_contra", bound=Config, contravariant=True)


def _check_range(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= value[0] <= value[1]:
        raise ValueError("expected two numbers, 0 <= low <= high")
    return value


FloatRange = Annotated[tuple[float, float], AfterValidator(_check_range)]


def check_positive(name: str, value: tuple[float, float]) -> None:
    """Raises ValueError when the range `name` starts at 0: its values are drawn log-uniformly."""
    if value[0] <= 0:
        raise ValueError(f"{name}: expected numbers above 0")


class UnitImages(Protocol):
    """What an operation that reads other images needs of a store."""

    def unit_images(self, index: ArrayLike, /) -> Array: ...


class PixelSource(NamedTuple):
    """The pixels that a draw may depend on: those of the images themselves, and those of other images of the store."""

    images: Array  # (B, H, W, C) stored values
    scale: float  # stored value of white
    store: UnitImages
    pool: IntArray  # rows of the store that may be read


class Draws:
    """The random numbers of one view of B images, addressed by purpose and lane; they do not depend on what else is drawn."""

    def __init__(self, seed: int, position: ArrayLike, view: int, source: tuple[int, int], pixels: PixelSource | None = None):
        """position: (B,) places in the global order.  view: 0..65535.  source: (H, W) of the images."""
        self.seed, self.view, self.source, self.pixels = seed, view, source, pixels
        self.position = np.atleast_1d(np.asarray(position))
        self._lanes: dict[tuple[Purpose, int], FloatArray] = {}

    def __len__(self) -> int:
        return len(self.position)

    def lanes(self, purpose: Purpose, n: int) -> FloatArray:
        """(n, B) uniform numbers in [0, 1). Operations that share a purpose use different lanes of it."""
        if (purpose, n) not in self._lanes:
            self._lanes[purpose, n] = uniform(self.seed, purpose, self.position, self.view, n).T
        return self._lanes[purpose, n]

    def normal(self, purpose: Purpose, n: int) -> FloatArray:
        """(B, n) standard normal numbers."""
        return normal(self.seed, purpose, self.position, self.view, n)


class Augmentation(ABC, Generic[Settings_contra]):
    """One operation. A geometric one takes part in the single resampling; any other changes the finished view in `apply`."""

    settings: ClassVar[type[Config]]  # its fields of `Augment`
    params: ClassVar[tuple[str, ...]]  # names of the parameters that `draw` returns when the operation is on
    one_row_at_a_time: ClassVar[bool] = False  # on a CPU `apply` gets single rows, where its work depends on the row's own parameter
    picks_rows_on_device: ClassVar[bool] = False  # `apply_on_device` gets only the rows it changes: they cost more than a copy

    @abstractmethod
    def draw(self, cfg: Settings_contra, draws: Draws) -> DrawnParams:
        """The parameters, with first axis B; {} when the operation is off. A row without the operation carries its identity."""

    def lookup_rows(self, params: DrawnParams) -> BoolArray | None:
        """(B,) rows whose crop is rotated, scaled or bent, so that its two axes cannot be resampled one by one; None for no row."""
        return None

    def changed_rows(self, params: DrawnParams) -> BoolArray | None:
        """(B,) rows whose finished view `apply` changes; None for no row."""
        return None

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        """Changes the views (B, C, S, S), values in [0, 1], in place."""

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        """The changed views (B, C, S, S), in which the memory of `views` may be reused.

        All rows at once, in a number of operations that depends on no row: a row without the operation carries its identity. Nothing is
        copied from or to the host. By default the rows are changed by `apply`, with copies that the host waits for."""
        own = self.own_params(params.host)
        picked = None if own is None else self.changed_rows(own)
        if own is None or picked is None or not picked.any():
            return views
        index = torch.from_numpy(np.flatnonzero(picked)).to(views.device)
        part = views[index]
        self.apply(part, {name: value[picked] for name, value in own.items()})
        return views.index_copy_(0, index, part)

    def own_params(self, params: Mapping[str, Array]) -> DrawnParams | None:
        """This operation's part of `params`; None when it is off."""
        own = {name: params[name] for name in self.params if name in params}
        return own or None


def uniform_between(u: FloatArray, low: float, high: float) -> FloatArray:
    """Uniform numbers in [low, high) from uniform numbers in [0, 1)."""
    return low + u * (high - low)


def log_uniform_between(u: FloatArray, ends: tuple[float, float]) -> FloatArray:
    """Numbers in [ends[0], ends[1]) whose logarithm is uniform."""
    return np.exp(uniform_between(u, np.log(ends[0]), np.log(ends[1])))


def broadcast_per_image(values: Array | Tensor, like: Tensor) -> Tensor:
    """(B,) numbers as a (B, 1, 1, 1) tensor on the device of `like`, a single one without axes; a tensor is one already."""
    if isinstance(values, Tensor):
        return values
    tensor = torch.as_tensor(np.asarray(values, dtype=np.float32)).to(like.device, non_blocking=True)
    return tensor.view(()) if len(values) == 1 else tensor.view(-1, 1, 1, 1)
