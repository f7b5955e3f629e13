"""Where three tools for whole slides look for tile features, and in which form.

- `trident`: FOLDER/SLIDE.h5 with `features` (N, D) and `coords` (N, 2), level-0 pixels, x before y.
- `clam`: the same in FOLDER/h5_files, and FOLDER/pt_files/SLIDE.pt, the tensor (N, D), which CLAM's training reads.
- `stamp`: FOLDER/SLIDE.h5 with `feats` (N, D) and `coords` (N, 2), micrometres, and the attributes that STAMP 2 reads.

Source: mahmoodlab/CLAM (extract_features_fp.py, dataset_modules/dataset_generic.py), mahmoodlab/TRIDENT, KatherLab/STAMP
(src/stamp/preprocessing, src/stamp/modeling/data.py).

Shapes: N tiles of a slide, D width.
"""

from pathlib import Path
from typing import Literal, NotRequired, TypedDict

import h5py
import numpy as np
from numpy.typing import NDArray

from encoders.runtime.errors import InputError
from encoders.runtime.file_names import shorten_file_name
from encoders.runtime.files import atomic_write
from encoders.runtime.hdf5_file import atomic_hdf5
from encoders.runtime.precision_names import FeaturePrecision
from encoders.store.store import Store
from encoders.store.tile_coordinates import slide_mpp

SlideLayout = Literal["trident", "clam", "stamp"]


class SlideAttributes(TypedDict):
    """The attributes of a feature file; the names of the geometry are TRIDENT's."""

    name: str  # of the slide
    encoder: str
    encoder_sha256: str
    tiles_sha256: str  # of all tiles, in their order
    patch_size: int  # side of a tile, pixels
    patch_size_level0: NotRequired[int]  # the same at level 0; missing if it is unknown, or if tiles are not square there
    mpp: float  # micrometres per pixel of the tiles; NaN: unknown
    precision: NotRequired[FeaturePrecision]  # arithmetic of the network; missing for fp32


def feature_path(folder: Path, name: str, layout: SlideLayout) -> Path:
    """The HDF5 file of the slide `name`; it is written last, so that a slide that has it is complete."""
    return (folder / "h5_files" if layout == "clam" else folder) / f"{shorten_file_name(name)}.h5"


def level0_mpp(store: Store, rows: NDArray[np.int64]) -> tuple[float, float]:
    """Micrometres per level-0 pixel of the slide of these tiles, along x and y.

    Raises InputError if its resolution, or that of the tiles, is unknown."""
    part, _ = store.locate(int(rows[0]))
    scale = slide_mpp(part)
    tiles = float(store.column("mpp")[rows[0]]) if store.has_column("mpp") else float("nan")
    if scale is None or not np.isfinite([tiles, *scale]).all():
        raise InputError(
            f"the slide {str(store.column('slide')[rows[0]])!r} of {part.path} has no resolution, and STAMP's coordinates are micrometres: "
            "choose the layout trident or clam, or tile it again with `encoders ingest wsi --slide-mpp`"
        )
    return scale


def write_slide_features(
    folder: Path, layout: SlideLayout, x: NDArray[np.float32], store: Store, rows: NDArray[np.int64], attributes: SlideAttributes
) -> None:
    """Writes the features of a slide.  x: (N, D), of `rows` of the store.  Raises InputError as `level0_mpp` for STAMP."""
    corners = np.stack([store.column("x")[rows], store.column("y")[rows]], axis=1)  # (N, 2) level-0 pixels
    out = feature_path(folder, attributes["name"], layout)
    if layout == "clam":
        _write_tensor(folder / "pt_files" / f"{out.stem}.pt", x)
    with atomic_hdf5(out, track_order=False) as file:
        if layout == "stamp":
            file.create_dataset("feats", data=x, track_times=False)
            file.create_dataset("coords", data=(corners * level0_mpp(store, rows)).astype(np.float32), track_times=False)
            # An attribute `encoder` marks features of whole slides there.
            file.attrs.update({name: value for name, value in attributes.items() if name != "encoder"})
            side = attributes["patch_size"]
            scale = {"unit": "um", "tile_size_um": side * attributes["mpp"], "tile_size_px": side}
            file.attrs.update({**scale, "extractor": attributes["encoder"], "feat_type": "tile"})
        else:
            file.create_dataset("features", data=x, track_times=False).attrs["encoder"] = attributes["encoder"]
            coords = file.create_dataset("coords", data=np.rint(corners).astype(np.int64), track_times=False)
            coords.attrs.update({name: value for name, value in attributes.items() if name in ("name", "patch_size", "patch_size_level0")})
            file.attrs.update(attributes)
        file.create_dataset("key", data=store.column("key")[rows].tolist(), dtype=h5py.string_dtype(), track_times=False)


def _write_tensor(path: Path, x: NDArray[np.float32]) -> None:
    import torch

    with atomic_write(path) as part:
        torch.save(torch.from_numpy(np.ascontiguousarray(x)), part)
