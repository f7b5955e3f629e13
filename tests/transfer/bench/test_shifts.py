"""Acquisition shifts against SciPy and Pillow, and the bench on shifted test images."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, uniform
from encoders.store.store import Store
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, add, run
from transfer.bench.shifted_store import ShiftedStore, apply_shift
from transfer.bench.shifts import SHIFTS, expand_shifts
from transfer.records import record
from transfer.records.ledger import read_ledger
from transfer.tables import build as table
from transfer.tables import shift_curves

ROWS = np.arange(3)


def smooth(channels=1, h=48, w=40, seed=0):
    """(3, H, W, C) in [0, 1], without sharp edges, so that interpolation rules hardly matter."""
    draw = np.random.default_rng(seed).random((3, h, w, channels))
    x = ndimage.gaussian_filter(draw, (0, 4, 4, 0))
    return ((x - x.min()) / (x.max() - x.min())).astype(np.float32)


@pytest.mark.parametrize("name", SHIFTS)
@pytest.mark.parametrize("modality", ["cxr", "histology"])
def test_a_shift_is_the_identity_at_strength_0_moves_images_further_at_each_strength_and_keeps_shape_and_range(name, modality):
    x = smooth(3)
    shifted = [apply_shift(x.copy(), ROWS, name, strength, modality) for strength in range(len(SHIFTS[name].values) + 1)]
    np.testing.assert_array_equal(shifted[0], x)
    distance = [np.abs(out - x).mean() for out in shifted]
    assert (np.diff(distance) > 0).all()
    for out in shifted:
        assert (out.shape, out.dtype) == (x.shape, x.dtype)
        assert 0 <= out.min() <= out.max() <= 1
    assert SHIFTS[name].title
    assert SHIFTS[name].unit


@pytest.mark.parametrize("name", SHIFTS)
def test_the_shift_of_an_image_does_not_depend_on_its_batch(name):
    x = smooth(3)
    together = apply_shift(x.copy(), ROWS, name, 3, "histology")
    alone = apply_shift(x[1:2].copy(), ROWS[1:2], name, 3, "histology")
    np.testing.assert_allclose(together[1], alone[0], atol=1e-6)


def test_gamma_is_a_power():
    x = smooth()
    np.testing.assert_allclose(apply_shift(x.copy(), ROWS, "gamma", 3, "cxr"), x**2.0, atol=1e-6)


def test_noise_has_its_standard_deviation_and_differs_between_images():
    x = np.full((3, 200, 200, 1), 0.5, np.float32)
    out = apply_shift(x, ROWS, "noise", 3, "cxr") - 0.5
    assert out.std(axis=(1, 2, 3)) == pytest.approx([0.07 * 200 / 224] * 3, rel=0.05)
    assert abs(np.corrcoef(out[0].ravel(), out[1].ravel())[0, 1]) < 0.05


def test_blur_equals_scipys_and_scales_with_the_image():
    x = smooth(h=224, w=224)
    want = ndimage.gaussian_filter(x, (0, 1.5, 1.5, 0), mode="mirror", truncate=3.5)
    np.testing.assert_allclose(apply_shift(x.copy(), ROWS, "blur", 3, "cxr"), want, atol=1e-3)
    point = np.zeros((1, 448, 448, 1), np.float32)
    point[0, 224, 224] = 1
    spread = apply_shift(point, ROWS[:1], "blur", 3, "cxr")[0, :, 224, 0]
    place = np.arange(448) - 224
    assert np.sqrt((spread * place**2).sum() / spread.sum()) == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_pillows(channels):
    x = smooth(channels)
    byte = np.rint(x[0] * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(byte.squeeze(-1) if channels == 1 else byte).save(file, "JPEG", quality=20)
    want = np.asarray(Image.open(file)).reshape(byte.shape) / 255
    np.testing.assert_allclose(apply_shift(x.copy(), ROWS, "jpeg", 3, "cxr")[0], want, atol=1e-6)


def test_rotation_equals_scipys_on_images_that_are_not_square_too():
    x = smooth(h=60, w=40)
    out = apply_shift(x.copy(), np.arange(3), "rotate", 3, "cxr")
    rotated = {sign: ndimage.rotate(x[0, :, :, 0], sign * 10, reshape=False, order=1, mode="constant") for sign in (-1, 1)}
    gaps = sorted(np.abs(out[0, 8:-8, 8:-8, 0] - t[8:-8, 8:-8]).max() for t in rotated.values())
    assert gaps[0] < 0.02 < gaps[1]
    assert out[0, 0, 0, 0] == 0
    assert apply_shift(x.copy(), np.arange(3), "rotate", 3, "histology")[0, 0, 0, 0] > 0


def test_a_crop_enlarges_the_middle():
    x = smooth(h=100, w=100)
    want = ndimage.zoom(x[0, 10:90, 10:90, 0], 100 / 80, order=1, grid_mode=True, mode="nearest")
    np.testing.assert_allclose(apply_shift(x.copy(), ROWS, "crop", 3, "cxr")[0, :, :, 0], want, atol=2e-3)


def test_stain_jitter_scales_and_shifts_the_densities_of_the_three_stains():
    """Ruifrok and Johnston's vectors, optical densities of haematoxylin, eosin and DAB."""
    hed = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    density = np.array([0.4, 0.3, 0.1])
    tile = np.tile(np.exp(-density @ hed).astype(np.float32), (3, 4, 4, 1))
    out = apply_shift(tile, ROWS, "stain", 5, "histology")[:, 0, 0]
    u = uniform(0, Purpose.ACQUISITION, ROWS, list(SHIFTS).index("stain"), 6)
    factor, move = 1 + 0.3 * (2 * u[:, :3] - 1), 0.3 * (2 * u[:, 3:] - 1)
    np.testing.assert_allclose(out, np.clip(np.exp(-(density * factor + move) @ hed), 0, 1), atol=1e-5)


def test_a_shifted_store_has_its_own_fingerprint_and_pixels(tmp_path):
    store = Store.open(toys.store(tmp_path / "a.h5", patients=3))
    shifted = [ShiftedStore(store, "gamma", s) for s in (1, 2)]
    assert len({store.fingerprint, *(s.fingerprint for s in shifted)}) == 3
    np.testing.assert_allclose(shifted[1].unit_images([4, 1]), store.unit_images([4, 1]) ** 1.5, atol=1e-6)


def test_selection_is_made_once_on_unshifted_images_and_every_strength_is_a_use_of_the_test_split(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=40))
    shifts = expand_shifts(["noise"], [1, 5])
    clean = run(NET, protocols=["linear"])
    both = run(NET, protocols=["linear"], shifts=shifts)
    assert (both.computed, both.reused) == (2, 1)
    assert toys.times_scored(clean.records) == [(3, 3)]
    assert [line.get("shift") for line in read_ledger()] == [None, "noise", "noise"]
    first, *others = both.records
    for r in others:
        assert r.meta.selection == first.meta.selection
        np.testing.assert_array_equal(r.arrays["val_scores"], first.arrays["val_scores"])
        np.testing.assert_array_equal(r.arrays["test_key"], first.arrays["test_key"])
        assert not np.array_equal(r.arrays["test_scores"], first.arrays["test_scores"])
        assert r.identity.amount == SHIFTS["noise"].values[r.identity.strength - 1]
        assert r.identity.model_copy(update={"shift": None, "strength": 0, "amount": None, "shift_version": None}) == first.identity
    assert run(NET, protocols=["linear"], shifts=shifts).computed == 0
    assert [len(s.rows[0].records) for s in table.build_sections(both.records)] == [1]


def test_curves_have_every_strength_with_its_paired_difference(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=60))
    curves = shift_curves.build_shift_curves(run(NET, protocols=["knn"], shifts=expand_shifts(["noise", "gamma"], [1, 5])).records)
    assert [c.shift for c in curves] == ["gamma", "noise"]
    for c in curves:
        assert [p.strength for p in c.points] == [0, 1, 5]
        clean, *rest = c.points
        for p in rest:
            assert p.loss.value == pytest.approx(p.auroc.value - clean.auroc.value, abs=1e-12)
    rows = list(csv.DictReader(io.StringIO(shift_curves.shift_curves_to_csv(curves))))
    assert len(rows) == 6
    assert {r["unit"] for r in rows} == {"exponent", "standard deviation at 224"}
    assert shift_curves.build_shift_tables(curves)[0][1][2] == "1 (1.25)"
    assert "change at highest strength" in shift_curves.build_shift_tables(curves)[0][1]


def test_fine_tuned_networks_are_scored_on_shifted_images_too(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=20))
    quick = ["finetune.min_steps=2", "finetune.max_steps=2", "finetune.evaluations=1", "finetune.batch=8"]
    clean, noisy = run(NET, protocols=["finetune"], overrides=quick, shifts=[("noise", 5)]).records
    assert noisy.meta.status == "ok", noisy.meta.error
    assert not np.array_equal(clean.arrays["test_scores"], noisy.arrays["test_scores"])


def test_an_impossible_shift_is_refused(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=20))
    with pytest.raises(InputError, match="did you mean gamma"):
        expand_shifts(["gama"], [1])
    with pytest.raises(InputError, match="1 .slight. to 5"):
        expand_shifts(["gamma"], [0, 9])
    with pytest.raises(InputError, match="`stain` needs RGB images"):
        run(NET, shifts=[("stain", 1)])
    assert record.find_records() == []


def test_another_version_of_the_shifts_is_scored_again_and_has_its_own_curve(tmp_path, monkeypatch):
    from transfer.bench import bench, shifted_store, shifts

    add(toys.store(tmp_path / "toy.h5", patients=20))
    shift = [("gamma", 2)]
    records = run(NET, protocols=["knn"], shifts=shift).records
    for module in (bench, shifted_store):
        monkeypatch.setattr(module, "VERSION", shifts.VERSION + 1)
    again = run(NET, protocols=["knn"], shifts=shift)
    assert (again.computed, again.reused) == (1, 1)
    assert len(shift_curves.build_shift_curves(records + again.records[1:])) == 2
