"""Attributes of CLAM, TRIDENT and STAMP: the side of a tile at level 0 is right or unknown, and coordinates become level-0 pixels."""

import h5py
import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.store.tile_coordinates import read_coordinate_file, read_scale

DIMS = {"level_dim": (1000, 800), "downsampled_level_dim": (1000, 800)}


def write(path, corners=((8, 4), (300, 200)), images=None, coords=None, file=None):
    """A file with coordinates; images: (side, attributes) of `imgs`, as CLAM's older bags have it."""
    with h5py.File(path, "w") as out:
        out["coords"] = np.array(corners)
        out["coords"].attrs.update(coords or {})
        if images:
            out["imgs"] = np.zeros((len(corners), images[0], images[0], 3), np.uint8)
            out["imgs"].attrs.update(images[1])
        out.attrs.update(file or {})
    return path


@pytest.mark.parametrize(("attributes", "side"), [
    ({"patch_size_level0": 512, "patch_size": 256, "target_magnification": 20, "level0_magnification": 40}, (512, 512)),
    ({"patch_size_level0": 507, "patch_size": 256}, (507, 507)),
    ({"patch_size": 256, "target_magnification": 20, "level0_magnification": 40.0}, (512, 512)),
    ({"patch_size": 256, "patch_level": 0, "downsample": (1.0, 1.0), **DIMS}, (256, 256)),
    ({"patch_size": 256, "patch_level": 0}, (256, 256)),
    ({"patch_size": 256, "patch_level": 2, "downsample": (16.004, 16.002)}, (256 * 16.004, 256 * 16.002)),
    ({"patch_size": 256, "patch_level": 1, "downsample": 4.0}, (1024, 1024)),
    ({"patch_size": 256, "patch_level": 1, "downsample": (4.0, 4.0), "patch_size_level0": 1024}, (1024, 1024)),
    ({"patch_size": 256}, None),
    ({"patch_size": 256, "patch_level": 1}, None),
    ({"patch_size": 256, "target_magnification": -1, "level0_magnification": 40}, None),
    ({"patch_size_level0": -1, "patch_size": 256}, None),
    ({}, None),
])  # fmt: skip
def test_the_side_is_what_the_attributes_state(tmp_path, attributes, side):
    corners, scale = read_coordinate_file(write(tmp_path / "a.h5", coords=attributes))
    assert scale.side == (None if side is None else pytest.approx(side))
    np.testing.assert_array_equal(corners, [(8, 4), (300, 200)])


def test_a_level_without_downsample_takes_that_of_the_slide(tmp_path):
    _, scale = read_coordinate_file(write(tmp_path / "a.h5", coords={"patch_size": 256, "patch_level": 1}))
    assert scale.side_on((1.0, 4.0003)) == pytest.approx((1024.0768,) * 2)
    with pytest.raises(InputError, match="patch_level is 1, and the slide has 1 levels"):
        scale.side_on((1.0,))


@pytest.mark.parametrize(("level", "downsample", "reduced", "want"), [(0, 1, 1, 1), (1, 4, 1, 4), (0, 1, 2, 2), (1, 4, 2, 8)])
def test_coordinates_of_older_bags_of_clam_are_pixels_of_the_reduced_level(tmp_path, level, downsample, reduced, want):
    own = {"patch_level": level, "downsample": (float(downsample),) * 2, "level_dim": (1000, 800)}
    own["downsampled_level_dim"] = (1000 // reduced, 800 // reduced)
    corners, scale = read_coordinate_file(write(tmp_path / "a.h5", images=(64, own)))
    np.testing.assert_array_equal(corners, np.array([(8, 4), (300, 200)]) * want)
    assert scale.side == (64 * want, 64 * want)


def test_coordinates_that_exceed_their_level_are_level_0_pixels(tmp_path):
    own = {"patch_level": 1, "downsample": (4.0, 4.0), **DIMS}
    corners, scale = read_coordinate_file(write(tmp_path / "a.h5", [(0, 0), (3600, 80)], images=(64, own)))
    np.testing.assert_array_equal(corners, [(0, 0), (3600, 80)])
    assert scale.side == (256, 256)


def test_images_beside_coordinates_with_attributes_state_the_size(tmp_path):
    coords = {"patch_level": 1, "downsample": (4.0, 4.0)}
    corners, scale = read_coordinate_file(write(tmp_path / "a.h5", images=(64, {}), coords=coords))
    np.testing.assert_array_equal(corners, [(8, 4), (300, 200)])
    assert scale.side == (256, 256)


@pytest.mark.parametrize(("options", "message"), [
    ({"file": {"unit": "um"}}, "not level-0 pixels: micrometres"),
    ({"file": {"tile_size_um": 256.0}}, "not level-0 pixels: micrometres"),
    ({"images": (64, {"patch_level": 1})}, "or of a level without `downsample`"),
    ({"coords": {"patch_size": 256, "patch_level": 1, "downsample": 4.0, "patch_size_level0": 512}}, "contradict each other"),
    ({"corners": [(0.5, 1.0)]}, "expected whole pixels"),
    ({"corners": [(np.nan, 1.0)]}, "expected whole pixels"),
    ({"corners": [1, 2, 3]}, r"has shape \(3,\)"),
])  # fmt: skip
def test_what_is_not_level_0_pixels_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        read_coordinate_file(write(tmp_path / "a.h5", **options))


def test_a_file_without_coordinates_names_what_it_has(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = np.zeros((2, 3))
    with pytest.raises(InputError, match="has no dataset `coords`, but features"):
        read_coordinate_file(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert read_scale(file).side is None
