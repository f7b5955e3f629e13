"""The columns of a preview: the views, what a masked method sees of each, and reconstructions.

Shapes: n images, V views, C channels, H, W pixels, N patches of a view, K of them seen, T target blocks, M patches of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from encoders.augment.context_masks import ContextMasks
from encoders.augment.masks import HidesTokens, Masks
from encoders.augment.picture import to_pictures
from encoders.loading.views import RawBatch
from encoders.runtime.arrays import Array, BoolArray
from encoders.zoo.card import Preprocess
from pretrain.loop.setup import Setup
from pretrain.methods import Reconstructs

HIDDEN_GRAY = 0.6  # of hidden patches: neither black nor white, which occur in images


class Box(NamedTuple):
    """A rectangle in pixels of a picture: its upper left corner, and its height and width."""

    top: float
    left: float
    height: float
    width: float


@dataclass(frozen=True)
class PreviewColumn:
    """One column to the right of the stored images.

    pictures: (n, H, W, C) in [0, 1].  view: number of the view whose augmentation is described; None: none is.
    notes: one text per picture.  boxes: rectangles to outline in each picture."""

    pictures: Array
    title: str
    view: int | None = None
    notes: Sequence[str] = ()
    boxes: Sequence[Sequence[Box]] = field(default=())


@runtime_checkable
class _HasGrid(Protocol):
    """Settings of masks that name the grid of patches of a view."""

    rows: int
    columns: int


def build_columns(setup: Setup, raw: RawBatch, views: list[Tensor], step: int | None) -> list[PreviewColumn]:
    """Masked input, reconstruction and target for a method that reconstructs; else every view, followed by what a masked method sees of it.

    views: (n, C, H, W) each, normalised.  step: of the weights, or None if they are untrained."""
    if raw.masks is not None and isinstance(setup.method, Reconstructs) and isinstance(raw.masks[0], HidesTokens):
        return reconstruction_columns(setup, setup.method, raw.masks, views, step)
    columns = []
    for i, view in enumerate(views):
        columns.append(PreviewColumn(denormalise_views(view, setup.card.preprocess), f"view {i + 1}", view=i))
        if raw.masks is not None:
            columns += mask_columns(setup, raw.masks[i], view, f"view {i + 1}")
    return columns


def reconstruction_columns(
    setup: Setup, method: Reconstructs, masks: list[Masks], views: list[Tensor], step: int | None
) -> list[PreviewColumn]:
    """Masked input, reconstruction and target of the first view."""
    prep, hides = setup.card.preprocess, masks[0]
    assert isinstance(hides, HidesTokens)
    setup.method.eval()
    masked, reconstruction, target = method.reconstruct(views, masks)
    hidden = hidden_pixel_mask(method.grid, hides.hidden, target)
    # Without this remark a reconstruction looks better than it is: the brightness of its patches comes from the target.
    remark = "\nmean and contrast of patches:\nthose of the target" if method.given_patch_statistics else ""
    return [
        PreviewColumn(denormalise_views(masked, prep, hidden), "masked input", notes=describe_hidden_share(hidden)),
        PreviewColumn(
            denormalise_views(reconstruction, prep), f"reconstruction, {'untrained' if step is None else f'step {step}'}{remark}"
        ),
        PreviewColumn(denormalise_views(target, prep), "target"),
    ]


def mask_columns(setup: Setup, masks: Masks, view: Tensor, name: str) -> list[PreviewColumn]:
    """What the method sees of a view, and the blocks that it predicts; nothing for a view that is never masked.

    view: (n, C, H, W), normalised.  name: of the view."""
    grid, prep = setup.method.mask_spec(), setup.card.preprocess
    if not isinstance(grid, _HasGrid):
        return []
    rows, columns = grid.rows, grid.columns
    if isinstance(masks, ContextMasks):
        hidden = hidden_pixel_mask((rows, columns), hidden_outside_context(masks, rows * columns), view)
        seen = denormalise_views(view, prep, hidden)
        boxes = target_boxes(masks, (rows, columns), (view.shape[2], view.shape[3]))
        return [
            PreviewColumn(seen, f"{name}, context: seen", notes=describe_hidden_share(hidden)),
            PreviewColumn(
                denormalise_views(view, prep), f"{name}, targets: predicted", notes=[f"{len(b)} blocks" for b in boxes], boxes=boxes
            ),
        ]
    if isinstance(masks, HidesTokens):
        hidden = hidden_pixel_mask((rows, columns), masks.hidden, view)
        return [PreviewColumn(denormalise_views(view, prep, hidden), f"{name}, masked: seen", notes=describe_hidden_share(hidden))]
    return []


def hidden_outside_context(masks: ContextMasks, n_tokens: int) -> Tensor:
    """(n, N) bool, true for the patches that are not in the context."""
    hidden = torch.ones(len(masks.context), n_tokens, dtype=torch.bool)
    return hidden.scatter_(1, masks.context, False)


def target_boxes(masks: ContextMasks, grid: tuple[int, int], size: tuple[int, int]) -> list[list[Box]]:
    """The target blocks of each image.  grid: rows and columns of patches.  size: height and width of the view, pixels."""
    (rows, columns), (height, width) = grid, size
    down, across = height / rows, width / columns  # pixels of a patch
    row, column = masks.targets // columns, masks.targets % columns  # (n, T, M)
    found = []
    for r, c in zip(row.numpy(), column.numpy(), strict=True):
        edges = zip(r.min(axis=1), c.min(axis=1), np.ptp(r, axis=1) + 1, np.ptp(c, axis=1) + 1, strict=True)
        found.append([Box(top * down, left * across, high * down, wide * across) for top, left, high, wide in edges])
    return found


def describe_hidden_share(hidden: BoolArray) -> list[str]:
    """`60 % hidden` for each image, `nothing hidden` where all is seen.  hidden: (n, H, W)."""
    return [f"{share:.0%} hidden".replace("%", " %") if share else "nothing hidden" for share in hidden.mean(axis=(1, 2))]


def hidden_pixel_mask(grid: tuple[int, int], hidden: Tensor, images: Tensor) -> BoolArray:
    """(n, H, W) true for the pixels of hidden patches.

    grid: rows and columns of patches.  hidden: (n, N), true for the hidden patches.  images: (n, C, H, W)."""
    rows, columns = grid
    patches = hidden.float().view(len(images), 1, rows, columns)
    return torch.nn.functional.interpolate(patches, size=images.shape[2:], mode="nearest")[:, 0].bool().numpy()


def denormalise_views(views: Tensor, prep: Preprocess, hidden: BoolArray | None = None) -> Array:
    """Normalised views (n, C, H, W) as pictures (n, H, W, C) in [0, 1].  hidden: (n, H, W), pixels to paint gray."""
    pictures = to_pictures(views, prep)
    return pictures if hidden is None else np.where(hidden[..., None], HIDDEN_GRAY, pictures)
