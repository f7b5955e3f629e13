"""The path of a CUDA device: equal to that of a CPU, in a number of operations that does not depend on the batch, without a wait."""

import numpy as np
import pytest
import torch

from encoders.augment import PRESETS
from encoders.augment.config import AUGMENTATIONS, Augment
from encoders.augment.device_params import unpack_params
from encoders.loading.views import make_views, read_raw_batch
from encoders.zoo.card import Preprocess
from tests.device_counts import OperationCount, fake_device
from tests.encoders.augment.test_augment import pictures
from tests.encoders.augment.test_operations import AugmentWithInvert, Invert
from tests.encoders.augment.turned_on import TURNED_ON

MOST_OPERATIONS = 150  # a view
MOST_OF_MANY = 240  # with all operations, of which RandAugment uses each for some images

# Every operation for every row: probabilities are 1.
PROBABILITIES = ("flip", "flip_vertical", "turn", "rotate_p", "elastic", "stain_mix", "stain", "jitter", "window", "gamma", "clahe",
                 "grayscale", "blur", "solarise", "noise", "cutout")  # fmt: skip
ALWAYS = {name: Augment(**settings | {key: 1.0 for key in PROBABILITIES if key in settings}) for name, settings in TURNED_ON.items()}
ALL = Augment(**{key: value for cfg in ALWAYS.values() for key, value in cfg.model_dump(exclude_defaults=True).items()})
CASES = {
    **{f"preset {name}": cfg for name, cfg in PRESETS.items()},
    **{f"always {name}": cfg for name, cfg in ALWAYS.items()},
    **{f"some {name}": Augment(**settings) for name, settings in TURNED_ON.items()},
    "scale": Augment(scale=(0.6, 1.6), interpolation="bicubic"),
    "bicubic": Augment(crop=(0.3, 0.9), rotate=180, rotate_p=0.5, elastic=0.3, interpolation="bicubic", flip=0.5, turn=0.75),
    "all at once": ALL,
}  # fmt: skip


class Corpus:
    """Images in memory, (N, H, W, C) in [0, 1]."""

    def __init__(self, n, source, channels):
        self.pixels = pictures(n, source, channels).permute(0, 2, 3, 1).contiguous().numpy()

    def __len__(self):
        return len(self.pixels)

    def unit_images(self, index):
        return self.pixels[np.asarray(index)]


def raw_batch(cfgs, n, source, channels):
    return read_raw_batch(Corpus(n, source, channels), np.arange(n), np.arange(n), cfgs, None, seed=3)


def preprocess(size, channels):
    return Preprocess(size=size, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)


@pytest.fixture
def on_device(monkeypatch):
    """Called, it lets a CPU take the path of a CUDA device."""

    def force() -> None:
        for module in ("augment.apply", "loading.views"):
            monkeypatch.setattr(f"encoders.{module}.uses_dense_matrices", lambda device: True)

    return force


@pytest.mark.parametrize("name", CASES)
def test_the_device_makes_the_views_of_the_cpu(name, on_device):
    shapes = [((37, 29), 31, 5, channels) for channels in (1, 3)] + [((64, 90), 19, 1, 1), ((18, 20), 23, 6, 3)]
    cases = [(raw_batch([CASES[name]] * 2, n, source, channels), preprocess(size, channels)) for source, size, n, channels in shapes]
    want = [make_views(raw.images, raw, [CASES[name]] * 2, prep) for raw, prep in cases]
    on_device()
    for (raw, prep), views in zip(cases, want, strict=True):
        before = raw.images.clone()
        for got, view in zip(make_views(raw.images, raw, [CASES[name]] * 2, prep), views, strict=True):
            torch.testing.assert_close(got, view, atol=1e-4, rtol=0)
        assert torch.equal(raw.images, before)


def count_views(cfgs, n, channels, source=(40, 36), size=32):
    """The counts of `make_views`, after a first call that made the constants."""
    raw = raw_batch(cfgs, n, source, channels)
    with fake_device() as device:
        images = torch.empty(raw.images.shape, device=device)
        make_views(images, raw, cfgs, preprocess(size, channels))
        with OperationCount() as count:
            views = make_views(images, raw, cfgs, preprocess(size, channels))
    assert all(view.device == device for view in views)
    return count


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("some", "bicubic"))])
def test_the_number_of_operations_does_not_depend_on_the_batch_and_the_host_waits_for_nothing(name):
    for channels in (1, 3):
        few, many = (count_views([CASES[name]], n, channels) for n in (4, 64))
        assert not few.blocking
        assert not many.blocking
        assert few.by_name == many.by_name
        assert many.launches <= (MOST_OF_MANY if name.startswith(("preset randaugment", "all")) else MOST_OPERATIONS)


def test_the_images_of_a_radiograph_reduced_before_they_are_rotated_cost_a_few_operations_more():
    few, many = (count_views([CASES["preset cxr"]], n, 1, source=(90, 80)) for n in (4, 64))
    assert few.by_name == many.by_name
    assert many.launches <= MOST_OPERATIONS
    assert "bmm" in many.by_name


def test_the_parameters_of_all_views_travel_in_one_copy():
    assert count_views([CASES["preset moco"], *[CASES["preset histology"]] * 9], 4, 3).uploads == 1


def test_a_parameter_on_the_device_is_what_was_drawn():
    from encoders.augment.apply_together import pack_views

    raw = raw_batch([ALL, CASES["some blur"]], 6, (20, 20), 3)
    packed = pack_views(raw.params)
    for drawn, params in zip(raw.params, unpack_params(packed, raw.params, torch.device("cpu")), strict=True):
        for name, values in drawn.items():
            flat = values.reshape(6, -1).astype(np.float64)
            np.testing.assert_array_equal(params.exact(name), flat)
            np.testing.assert_array_equal(params.single(name)[..., 0, 0], flat.astype(np.float32))
        rows = np.flatnonzero(drawn["blur"] > 0)
        np.testing.assert_array_equal(params.rows("blur"), rows)
        np.testing.assert_array_equal(params.select("blur").exact("blur")[:, 0], drawn["blur"][rows])
        np.testing.assert_array_equal(params.select("blur").host["box"], drawn["box"][rows])


def test_an_operation_without_a_path_of_its_own_is_applied_as_on_a_cpu(on_device, monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "invert", Invert())
    cfg = AugmentWithInvert(invert=0.5, crop=(0.3, 1.0))
    raw = raw_batch([cfg], 6, (20, 20), 1)
    want = make_views(raw.images, raw, [cfg], preprocess(16, 1))
    on_device()
    torch.testing.assert_close(make_views(raw.images, raw, [cfg], preprocess(16, 1)), want)
