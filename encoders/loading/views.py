"""From rows of a store to normalised views: reading and drawing on the host, the rest on the device of the images.

Shapes: b images, V views, C channels, H, W pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from encoders.augment.apply import RESAMPLE_GROUP, augment, chunk_slices, to_planar_float
from encoders.augment.apply_together import augment_together, pack_views
from encoders.augment.config import Augment
from encoders.augment.device_params import PackedParams, unpack_params
from encoders.augment.draw import draw_params
from encoders.augment.masks import Masks, MaskSpec
from encoders.augment.operation import DrawnParams, PixelSource, UnitImages
from encoders.augment.resample import uses_dense_matrices
from encoders.loading.pairing import Partners
from encoders.runtime.arithmetic import without_tf32
from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.threads import ThreadTeam
from encoders.store.store import Store
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import normalise_input


class ImageSource(UnitImages, Protocol):
    """Where images are read from: a `Store`, or images in memory."""

    def __len__(self) -> int: ...


class RawBatch(NamedTuple):
    """What a micro-batch is computed from, on the host."""

    images: Tensor  # (b, H, W, C): bytes where the store has them, else float32 in [0, 1]
    scale: float  # stored value of white
    params: list[DrawnParams]  # one per view
    masks: list[Masks] | None
    index: Tensor  # type: ignore[assignment]  # (b,); hides tuple.index, which nothing uses here
    positions: Tensor  # (b,)
    partners: Tensor | None = None  # (b, H, W, C) images that the views of `shows_partner` show
    packed: PackedParams | None = None  # `params` in one buffer, where a device augments


def shows_partner(view: int) -> bool:
    """Whether a view shows the partner of an image, where there are partners: the second view and every other one after it."""
    return view % 2 == 1


def read_raw_batch(
    store: ImageSource,
    rows: IntArray,
    positions: IntArray,
    specs: Sequence[Augment],
    mask: MaskSpec | None,
    seed: int,
    partners: Partners | None = None,
    corpus: IntArray | None = None,
) -> RawBatch:
    """The images of `rows`, and all that is drawn for them.

    specs: one augmentation per view.  partners: None where all views show the image itself.
    corpus: rows whose stains may be mixed in; all of the store by default."""
    images, scale = read_stored_images(store, rows)
    others = None if partners is None else torch.from_numpy(read_stored_images(store, partners.sample(rows, positions, seed))[0])
    size = images.shape[1], images.shape[2]
    pool = np.arange(len(store)) if corpus is None else corpus
    params = []
    for view, cfg in enumerate(specs):
        source = others.numpy() if others is not None and shows_partner(view) else images
        params.append(draw_params(cfg, seed, positions, view, size, PixelSource(source, scale, store, pool)))
    masks = None if mask is None else [mask.draw(seed, positions, view) for view in range(len(specs))]
    index, global_positions = torch.from_numpy(np.array(rows)), torch.from_numpy(np.array(positions))
    return RawBatch(torch.from_numpy(images), scale, params, masks, index, global_positions, others)


def read_stored_images(store: ImageSource, rows: IntArray) -> tuple[Array, float]:
    """The images as bytes with their value of white, a quarter of the traffic; or as float32 in [0, 1] where bytes would lose something."""
    return store.compact_images(rows) if isinstance(store, Store) else (store.unit_images(rows), 1.0)


def make_views(
    images: Tensor, raw: RawBatch, specs: Sequence[Augment], preprocess: Preprocess, team: ThreadTeam | None = None, threads: int = 1
) -> list[Tensor]:
    """V normalised views (b, C, size, size), on the device of `images`.

    On a CPU one group of images at a time passes through everything; on a CUDA device all images do, one view after the other.
    team: threads that share the groups.  threads: their number. The groups do not depend on it, so the views are bit-identical."""
    sizes = [cfg.size or preprocess.size for cfg in specs]
    sources = [images] if raw.partners is None else [images, raw.partners.to(images.device, non_blocking=True)]
    if uses_dense_matrices(images.device):
        return _make_views_together(sources, raw, sizes, preprocess)
    views = [torch.empty(len(images), preprocess.channels, size, size, device=images.device) for size in sizes]

    def make_group(rows: slice) -> None:
        planar = [to_planar_float(source[rows], raw.scale) for source in sources]
        for i, (view, drawn, size) in enumerate(zip(views, raw.params, sizes, strict=True)):
            params = {name: value[rows] for name, value in drawn.items()}
            view[rows] = normalise_input(augment(planar[-1] if shows_partner(i) else planar[0], params, size), preprocess)

    (team or ThreadTeam()).map(make_group, list(chunk_slices(len(images), RESAMPLE_GROUP)), threads)
    return views


def _make_views_together(sources: Sequence[Tensor], raw: RawBatch, sizes: Sequence[int], preprocess: Preprocess) -> list[Tensor]:
    """The views of all images at once. The host waits for nothing: the drawn parameters were sent in one buffer, or are sent here."""
    packed = raw.packed or pack_views(raw.params)
    with without_tf32():  # ten bits of mantissa would be steps of a thousandth of white
        planar = [to_planar_float(source, raw.scale) for source in sources]
        return [
            normalise_input(augment_together(planar[-1] if shows_partner(i) else planar[0], params, size), preprocess)
            for i, (params, size) in enumerate(zip(unpack_params(packed, raw.params, sources[0].device), sizes, strict=True))
        ]
