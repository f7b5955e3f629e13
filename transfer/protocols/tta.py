"""Test-time augmentation: the logits of an image are the mean of those of its views.

The views are made from the prepared input of the network, so that an encoder made of parts sees the same view in each part. With `flip` the
views of an image and of its mirror image are the same, and so are the scores.

Shapes: B images, K channels, S pixels of a side, V views, C classes.
"""

from collections.abc import Callable
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.zoo.encoder import EncoderInput
from encoders.zoo.tta_settings import TtaSettings

CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))  # shares of the room that a crop has to move down and right
CENTRE = (0.5, 0.5)


class TtaView(NamedTuple):
    """A view: a crop of the image, enlarged to its size; then mirrored left-right; then turned counter-clockwise.

    side: of the crop, as a share; 1: the whole image.  place: how far down and right it is, as shares of its room.  turns: quarters."""

    side: float = 1.0
    place: tuple[float, float] = CENTRE
    flip: bool = False
    turns: int = 0

    def of(self, x: EncoderInput) -> EncoderInput:
        """This view of prepared images."""
        return self.of_images(x) if isinstance(x, Tensor) else tuple(self.of_images(own) for own in x)

    def of_images(self, x: Tensor) -> Tensor:
        """(B, K, S, S) -> (B, K, S, S)."""
        if self.side < 1:
            x = crop_and_enlarge(x, self.side, self.place)
        x = x.flip(3) if self.flip else x
        return torch.rot90(x, self.turns, (2, 3)) if self.turns else x

    def describe(self) -> str:
        """In words: `crop 0.9 top left, flip, turn 90`; `image` for the image itself."""
        words = []
        if self.side < 1:
            where = "centre" if self.place == CENTRE else f"{'bottom' if self.place[0] else 'top'} {'right' if self.place[1] else 'left'}"
            words.append(f"crop {self.side:g} {where}")
        words += ["flip"] if self.flip else []
        words += [f"turn {90 * self.turns}"] if self.turns else []
        return ", ".join(words) or "image"


def list_tta_views(settings: TtaSettings | None) -> list[TtaView]:
    """The views, of which the first is the image itself: every crop in every orientation."""
    settings = settings or TtaSettings()
    places = (CENTRE, *(CORNERS if settings.corners else ()))
    crops = [TtaView(), *(TtaView(side, place) for side in settings.crops for place in places)]
    turned = range(4) if settings.turn else (0,)
    flipped = (False, True) if settings.flip else (False,)
    upside_down = (False, True) if settings.flip_vertical else (False,)
    # An up-down flip is a left-right flip and half a turn. A dict keeps the first of equal orientations.
    orientations = dict.fromkeys((flip != down, (turns + 2 * down) % 4) for turns, flip, down in product(turned, flipped, upside_down))
    return [crop._replace(flip=flip, turns=turns) for crop in crops for flip, turns in orientations]


def crop_and_enlarge(x: Tensor, side: float, place: tuple[float, float]) -> Tensor:
    """A crop of (B, K, S, S), `side` of its width, resized to it. What is cut off is even, so that a central crop is central."""
    size = x.shape[-1]
    room = 2 * round((1 - side) * size / 2)
    top, left = (round(share * room) for share in place)
    crop = x[..., top : top + size - room, left : left + size - room]
    return F.interpolate(crop, (size, size), mode="bilinear", align_corners=False)


def average_views(network: Callable[[EncoderInput], Tensor], settings: TtaSettings | None) -> Callable[[EncoderInput], Tensor]:
    """Maps prepared images to the mean of the logits (B, C) of their views, in float64; without settings the network itself."""
    views = list_tta_views(settings)
    if len(views) == 1:
        return network
    return lambda x: torch.stack([network(view.of(x)).double() for view in views]).mean(0)
