"""Mixup and CutMix: the images of a step are mixed with those of the same step in reverse order, and so are their losses.

One share is drawn for the whole step, and the partner of an image is its mirror place in the batch, whose order is random: both as in timm
(`timm.data.mixup`, mode "batch"). Two images of one patient may be partners. Losses are mixed instead of labels, so that unknown labels,
class weights, and losses that need to know the class (focal, asymmetric, margins) are what they are without mixing. Since both terms are
means over the same labels, class weights w still add log(w) to the optimal logits, and nothing else.

Sources: Zhang et al. 2018, arXiv:1710.09412, eq. 1; Yun et al. 2019, arXiv:1905.04899, eq. 1 and 2.

Shapes: B images of a step, K channels, S pixels of a side, C labels or classes.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from encoders.runtime.arrays import FloatArray
from encoders.runtime.random import Purpose, generator

if TYPE_CHECKING:
    from transfer.protocols.finetune_config import Config
    from transfer.protocols.mixing_settings import MixingSettings


class LossOfLabels(Protocol):
    """The loss of a step."""

    def __call__(self, logits: Tensor, y: Tensor) -> Tensor:
        """A scalar. logits, y: (B, C), NaN = unknown."""


class PastedBox(NamedTuple):
    """A rectangle in pixels, its ends exclusive."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Pixels."""
        return (self.bottom - self.top) * (self.right - self.left)


class Mix(NamedTuple):
    """How the images of a step are mixed. share: of an image's own pixels or values, and of its own loss; the rest is its partner's.

    box: what shows the partner; None for a blend."""

    share: float
    box: PastedBox | None = None


def mix_step(cfg: "Config", step: int, images: Tensor, y: Tensor, loss: LossOfLabels) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """The images of a step as the network gets them, and the loss of its logits: mixed, or as they are where the step is not mixed.

    images: (B, K, S, S).  y: (B, C)."""
    mix = draw_mix(cfg, cfg.seed, step, images.shape[2])
    if mix is None:
        return images, partial(loss, y=y)
    return mix_images(images, mix), partial(mixed_loss, y=y, loss=loss, mix=mix)


def draw_mix(cfg: "MixingSettings", seed: int, step: int, size: int) -> Mix | None:
    """The mix of a step, a function of (seed, step); None for a step that is not mixed, as for a share of 1.  size: S."""
    if not cfg.mixes:
        return None
    draw = generator(seed, Purpose.MIXUP, step)
    mixed, by_cutmix = draw.random(2)
    if mixed >= cfg.mixing.p:
        return None
    if cfg.cutmix.alpha and (not cfg.mixup.alpha or by_cutmix < cfg.mixing.cutmix_share):
        box = place_box(draw.beta(cfg.cutmix.alpha, cfg.cutmix.alpha), draw.random(2), size)
        mix = Mix(1 - box.area / size**2, box)
    else:
        mix = Mix(float(draw.beta(cfg.mixup.alpha, cfg.mixup.alpha)))
    return None if mix.share == 1 else mix


def place_box(share: float, centre: FloatArray, size: int) -> PastedBox:
    """The rectangle of area (1 - share) S^2 around a centre, cut at the border of the image.  centre: (2,) down, right, in [0, 1)."""
    side = int(size * np.sqrt(1 - share))
    first = (centre * size).astype(int) - side // 2
    (top, left), (bottom, right) = np.clip(first, 0, size).tolist(), np.clip(first + side, 0, size).tolist()
    return PastedBox(top, bottom, left, right)


def mix_images(images: Tensor, mix: Mix) -> Tensor:
    """The mixed images (B, K, S, S), which may be normalised; `images` is not changed. Nothing is copied from or to the host."""
    if mix.box is None:
        return images.mul(mix.share).add_(images.flip(0), alpha=1 - mix.share)
    top, bottom, left, right = mix.box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[:, :, top:bottom, left:right].flip(0)
    return mixed


def mixed_loss(logits: Tensor, y: Tensor, loss: LossOfLabels, mix: Mix) -> Tensor:
    """share * loss(logits, y) + (1 - share) * loss(logits, labels of the partners), a scalar.  logits, y: (B, C), NaN = unknown."""
    return mix.share * loss(logits, y) + (1 - mix.share) * loss(logits, y.flip(0))
