"""From rows of a store to normalised views: reading and drawing on the host, the rest wherever the images are.

Shapes: b images, V views, C channels, H, W pixels.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.augment.apply import RESAMPLE_GROUP, augment, chunk_slices, to_planar_float
from encoders.augment.config import Augment
from encoders.augment.draw import draw_params
from encoders.augment.masks import Masks, MaskSpec, draw_mask
from encoders.augment.operation import DrawnParams, PixelSource
from encoders.augment.resample import uses_dense_matrices
from encoders.loading.pairing import Partners
from encoders.runtime.threads import ThreadTeam
from encoders.store.store import read_unit_map
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import normalise_input


class RawBatch(NamedTuple):
    """What a micro-batch is made of, on the host."""

    images: Tensor  # (b, H, W, C): bytes where the store has them, else float32 in [0, 1]
    scale: float  # stored value of white
    params: list[DrawnParams]  # one a view
    masks: list[Masks] | None
    index: Tensor  # type: ignore[assignment]  # (b,); hides tuple.index, which nobody wants here
    positions: Tensor  # (b,)
    partners: Tensor | None = None  # (b, H, W, C) other images, of which the second view and every other one after it is made


def view_shows_partner(view: int) -> bool:
    """Whether a view shows the partner of its image, in a batch with partners: every second view does."""
    return view % 2 == 1


def read_raw_batch(
    store: Any,
    rows: np.ndarray,
    positions: np.ndarray,
    specs: Sequence[Augment],
    spec: MaskSpec | None,
    seed: int,
    partners: Partners | None = None,
    corpus: np.ndarray | None = None,
) -> RawBatch:
    """The images of `rows`, and all that is drawn for them.

    partners: who may stand in for them.  corpus: rows that stains may be taken from; all of the store by default."""
    images, scale = read_stored_images(store, rows)
    others = None if partners is None else torch.from_numpy(read_stored_images(store, partners.of(rows, positions, seed))[0])
    size = images.shape[1], images.shape[2]
    pool = np.arange(len(store)) if corpus is None else corpus
    params = []
    for view, cfg in enumerate(specs):
        source = images if others is None or not view_shows_partner(view) else others.numpy()  # what `make_views` computes this view from
        params.append(draw_params(cfg, seed, positions, view, size, PixelSource(source, scale, store, pool)))
    masks = None
    if spec is not None:
        pairs = [draw_mask(seed, positions, spec.tokens, spec.ratio, view) for view in range(len(specs))]
        masks = [Masks(torch.from_numpy(kept), torch.from_numpy(hidden)) for kept, hidden in pairs]
    index, places = torch.from_numpy(np.array(rows)), torch.from_numpy(np.array(positions))
    return RawBatch(torch.from_numpy(images), scale, params, masks, index, places, others)


def read_stored_images(store: Any, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """The images as bytes with their white, a quarter of the traffic; or as float32 in [0, 1] where bytes would not say it all."""
    parts = getattr(store, "parts", [])
    units = {read_unit_map(part) for part in parts}
    if len(units) == 1 and len({part.shape for part in parts}) == 1 and all(part.dtype == np.uint8 for part in parts):
        offset, scale = units.pop()
        if offset == 0:
            return store.images(rows), scale
    return store.unit_images(rows), 1.0


def make_views(
    images: Tensor, raw: RawBatch, specs: Sequence[Augment], preprocess: Preprocess, team: ThreadTeam | None = None, threads: int = 1
) -> list[Tensor]:
    """V normalised views (b, C, size, size), on the device of `images`; on a CPU a group of images at a time goes through everything.

    team: who shares the groups, on so many threads. The groups, and with them the bits, are the same for any number of threads."""
    sizes = [cfg.size or preprocess.size for cfg in specs]
    both = [images] if raw.partners is None else [images, raw.partners.to(images.device, non_blocking=True)]
    views = [torch.empty(len(images), preprocess.channels, size, size, device=images.device) for size in sizes]

    def make(rows: slice) -> None:
        sources = [to_planar_float(one[rows], raw.scale) for one in both]
        for i, (view, drawn, size) in enumerate(zip(views, raw.params, sizes, strict=True)):
            part = {name: value[rows] for name, value in drawn.items()}
            view[rows] = normalise_input(augment(sources[i % len(sources)], part, size), preprocess)

    groups = list(chunk_slices(len(images), len(images) if uses_dense_matrices(images.device) else RESAMPLE_GROUP))
    (team or ThreadTeam()).each(make, groups, threads)
    return views
