"""Batched augmentation: equal to a slow per-image reference; draws that are a function of the position."""

import numpy as np
import pytest
import torch

from encoders.augment import PRESETS, Augment, get_preset, resample, resolve_augment
from encoders.augment.apply import augment
from encoders.augment.draw import draw_params
from encoders.augment.presets import byol_views
from encoders.runtime.errors import InputError
from tests.encoders.augment.reference import augment_view
from tests.encoders.augment.turned_on import TURNED_ON

N, SOURCE = 12, (50, 44)

INTENSITY = [
    "stain", "brightness", "contrast", "saturation", "hue", "window", "gamma", "grayscale", "blur", "solarise", "noise", "cutout"
]  # fmt: skip

# One operation at a time, so that a failure names it; then everything together.
SETTINGS = {
    "whole": {},
    "crop": TURNED_ON["crop"],
    "cubic crop": {"crop": (0.1, 1.0), "interpolation": "bicubic"},
    "flips": {"crop": (0.3, 0.9), "flip": 0.5, "flip_vertical": 0.5},
    "turns": {"crop": (0.3, 0.9), "flip": 0.5, "turn": 0.75},
    "rotation": {"crop": (0.3, 0.9), "flip": 0.5, "flip_vertical": 0.5, "turn": 0.5, "rotate": 40, "rotate_p": 0.7},
    "scale": {"scale": (0.95, 1.4)},
    "elastic": {"crop": (0.3, 0.9), "flip": 0.5, "elastic": 0.7, "elastic_px": 8, "rotate": 10, "rotate_p": 0.5},
    **{name: TURNED_ON[name] for name in INTENSITY},
    "all": {
        "crop": (0.2, 1.0), "flip": 0.5, "flip_vertical": 0.5, "turn": 0.5, "rotate": 20, "rotate_p": 0.5, "elastic": 0.3, "stain": 0.5,
        "jitter": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "window": 0.3, "gamma": 0.3, "grayscale": 0.2,
        "blur": 0.5, "solarise": 0.2, "noise": 0.3, "cutout": 0.3,
    },
}  # fmt: skip


def pictures(n=N, source=SOURCE, channels=3, seed=0):
    """Smooth shapes with some noise, so that a shift, a wrong kernel or a wrong border changes the result."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((n, channels, 7, 7), dtype=np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=source, mode="bilinear")
    return (0.85 * smooth + 0.15 * torch.from_numpy(rng.random((n, channels, *source), dtype=np.float32))).clamp(0, 1)


def row(params, i):
    return {name: value[i] for name, value in params.items()}


@pytest.fixture(params=["bands", "dense"])
def path(request, monkeypatch):
    """Both ways to compute: image by image in blocks (CPU), and the whole batch by full matrices (what a CUDA device does)."""
    if request.param == "dense":
        for module in ("resample", "apply"):
            monkeypatch.setattr(f"encoders.augment.{module}.uses_dense_matrices", lambda device: True)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_augment_equals_the_slow_reference(name, channels):
    cfg, batch = Augment(**SETTINGS[name]), pictures(channels=channels)
    params = draw_params(cfg, 3, np.arange(N), 1, SOURCE)
    for size in (40, 37):
        got = augment(batch.clone(), params, size)
        for i in range(N):  # 2e-4: torchvision's luma weights are 0.2989, 0.587, 0.114, which make 0.9999
            want = augment_view(batch[i].permute(1, 2, 0).numpy(), row(params, i), size)
            np.testing.assert_allclose(got[i].permute(1, 2, 0).numpy(), want, atol=2e-4, err_msg=f"row {i} at {size}")


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "whole"])
def test_each_operation_changes_something(name):
    batch = pictures()
    plain = augment(batch, draw_params(Augment(), 3, np.arange(N), 0, SOURCE), 40)
    assert not torch.allclose(augment(batch, draw_params(Augment(**SETTINGS[name]), 3, np.arange(N), 0, SOURCE), 40), plain, atol=1e-3)


def test_reduction_is_antialiased_as_pillow_does_it_in_many_blocks():
    batch = pictures(2, (300, 260), 1)
    params = draw_params(Augment(crop=(0.5, 1.0)), 0, np.arange(2), 0, (300, 260))
    for size in (40, 224, 231):
        got = augment(batch, params, size)
        for i in range(2):
            want = augment_view(batch[i].permute(1, 2, 0).numpy(), row(params, i), size)
            np.testing.assert_allclose(got[i].permute(1, 2, 0), want, atol=1e-5)


def test_a_rotated_view_of_a_large_image_is_reduced_before_it_is_looked_up():
    stripes = torch.zeros(1, 1, 256, 256)
    stripes[..., ::2] = 1.0  # the finest stripes there are: at a quarter of the size nothing of them may be left
    view = augment(stripes, draw_params(Augment(rotate=10), 0, [0], 0, (256, 256)), 64)
    assert view[0, 0, 16:48, 16:48].std() < 0.02
    assert view[0, 0, 16:48, 16:48].mean() == pytest.approx(0.5, abs=0.01)


def test_nothing_turned_on_gives_the_input_back():
    batch = pictures(source=(48, 48))
    torch.testing.assert_close(augment(batch, draw_params(Augment(), 0, np.arange(N), 0, (48, 48)), 48), batch)


def test_identity_parameters_of_every_operation_give_the_input_back():
    cfg = Augment(
        **{name: value for settings in SETTINGS.values() for name, value in settings.items()} | {"crop": None, "interpolation": "bilinear"}
    )
    params = draw_params(cfg, 0, np.arange(N), 0, (48, 48))
    idle = {"stain_factor": 1, "brightness": 1, "contrast": 1, "saturation": 1, "gamma": 1, "zoom": 1, "solarise": 2}
    still = {name: np.full_like(value, idle.get(name, 0)) for name, value in params.items() if name not in ("box", "window", "cubic")}
    still |= {"box": params["box"], "cubic": params["cubic"], "window": np.tile([0.0, 1.0], (N, 1))}
    batch = pictures(source=(48, 48))
    torch.testing.assert_close(augment(batch.clone(), still, 48), batch)


def test_a_flip_twice_is_no_flip():
    batch = pictures(source=(48, 48))
    params = draw_params(Augment(flip=1.0, flip_vertical=1.0), 0, np.arange(N), 0, (48, 48))
    once = augment(batch, params, 48)
    assert torch.equal(once, batch.flip(2, 3))
    assert torch.equal(augment(once, params, 48), batch)


@pytest.mark.parametrize("source", [(48, 48), (51, 37)])
@pytest.mark.parametrize("name", ["moco", "cxr", "histology", "mae"])
def test_a_row_does_not_depend_on_what_else_is_in_the_batch(name, source):
    batch, cfg = pictures(40, source), get_preset(name)
    whole = augment(batch, draw_params(cfg, 0, np.arange(40), 0, source), 37)
    order = np.random.default_rng(1).permutation(40)
    assert torch.equal(augment(batch[order], draw_params(cfg, 0, order, 0, source), 37), whole[order])
    alone = [augment(batch[i : i + 1], draw_params(cfg, 0, [i], 0, source), 37) for i in range(40)]
    assert torch.equal(torch.cat(alone), whole)


@pytest.mark.parametrize("name", PRESETS)
def test_views_stay_in_the_unit_interval_and_leave_the_images_alone(name):
    batch = pictures()
    before = batch.clone()
    view = augment(batch, draw_params(get_preset(name), 0, np.arange(N), 0, SOURCE), 40)
    assert view.shape == (N, 3, 40, 40)
    assert 0 <= view.min() <= view.max() <= 1 + torch.finfo(torch.float32).eps  # sums of weights are rounded
    assert torch.equal(batch, before)


def test_turning_one_operation_on_leaves_the_draws_of_all_others():
    full = draw_params(Augment(**SETTINGS["all"]), 3, np.arange(N), 1, SOURCE)
    for name, settings in SETTINGS.items():
        same = {key: value for key, value in SETTINGS["all"].items() if key in settings or (key == "jitter" and "jitter" in settings)}
        part = draw_params(Augment(**same), 3, np.arange(N), 1, SOURCE)
        names = set(part) - {"box", "angle", "zoom", "flip", "turn"}
        assert all((part[key] == full[key]).all() for key in names), name
    assert (draw_params(Augment(crop=(0.2, 1.0)), 3, np.arange(N), 1, SOURCE)["box"] == full["box"]).all()


def test_draws_differ_by_seed_view_and_position_only():
    cfg = get_preset("moco")
    base = draw_params(cfg, 3, np.arange(N), 0, SOURCE)
    assert all((base[key][[5]] == draw_params(cfg, 3, [5], 0, SOURCE)[key]).all() for key in base)
    for other in (
        draw_params(cfg, 4, np.arange(N), 0, SOURCE),
        draw_params(cfg, 3, np.arange(N), 1, SOURCE),
        draw_params(cfg, 3, np.arange(N) + N, 0, SOURCE),
    ):
        assert all((base[key] != other[key]).any() for key in base if key not in ("cubic", "turn"))


def test_crops_are_distributed_as_torchvisions():
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    many, (height, width), image = 4000, (60, 90), torch.zeros(1, 60, 90)
    ours = draw_params(Augment(crop=(0.2, 1.0)), 0, np.arange(many), 0, (height, width))["box"]
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(many)], dtype=float)
    for ours_of, theirs_of in zip(measures(ours), measures(theirs), strict=True):
        from scipy.stats import ks_2samp

        assert ks_2samp(ours_of, theirs_of).pvalue > 1e-3
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()


def measures(box):
    """Area, ratio, and the middle of each axis."""
    return box[:, 2] * box[:, 3], box[:, 3] / box[:, 2], box[:, 0] + box[:, 2] / 2, box[:, 1] + box[:, 3] / 2


def test_an_image_too_long_for_any_ratio_is_cropped_in_its_middle():
    box = draw_params(Augment(crop=(0.9, 1.0)), 0, np.arange(5), 0, (10, 100))["box"]
    assert (box == [0, 43, 10, 13]).all()


@pytest.mark.parametrize(
    ("name", "share"), [("blur", 0.3), ("grayscale", 0.3), ("solarise", 0.3), ("noise", 0.3), ("cutout", 0.3), ("gamma", 0.3)]
)
def test_an_operation_happens_as_often_as_its_probability_says(name, share):
    params = draw_params(Augment(**{name: share}), 0, np.arange(20_000), 0, SOURCE)
    idle = {"gamma": 1.0, "solarise": 2.0}.get(name, 0)
    value = params[name] if params[name].ndim == 1 else params[name][:, 2]
    assert np.mean(value != idle) == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000))


def test_blurred_channels_keep_their_mean_and_lose_detail():
    batch = pictures(source=(48, 48))
    view = augment(batch, draw_params(Augment(blur=1.0, blur_sigma=(2.0, 2.0)), 0, np.arange(N), 0, (48, 48)), 48)
    assert torch.allclose(view.mean((2, 3)), batch.mean((2, 3)), atol=0.01)
    assert (view.diff(dim=3).std((2, 3)) < 0.6 * batch.diff(dim=3).std((2, 3))).all()


def test_noise_is_normal_with_the_drawn_deviation_and_fresh_for_each_image():
    flat = torch.full((N, 1, 200, 200), 0.5)
    params = draw_params(Augment(noise=1.0, noise_std=(0.05, 0.05)), 0, np.arange(N), 0, (200, 200))
    added = augment(flat, params, 200) - 0.5
    assert torch.allclose(added.std((1, 2, 3)), torch.tensor(0.05), rtol=0.03)
    correlation = np.corrcoef(added.reshape(N, -1).numpy())
    assert abs(correlation[~np.eye(N, dtype=bool)]).max() < 0.03


def test_byol_views_differ_as_published_and_never_solarise_radiographs():
    first, second = byol_views(get_preset("byol"))
    assert (first.blur, second.blur, first.solarise, second.solarise) == (1.0, 0.1, 0.0, 0.2)
    assert all(view.solarise == 0 for view in byol_views(get_preset("cxr")))


@pytest.mark.parametrize("name", [name for name in PRESETS if "cxr" in name])
def test_radiograph_presets_turn_no_hue_and_invert_nothing(name):
    cfg = get_preset(name)
    assert (cfg.hue, cfg.saturation, cfg.solarise, cfg.grayscale, cfg.turn, cfg.flip_vertical) == (0, 0, 0, 0, 0, 0)
    assert cfg.rotate <= 10


@pytest.mark.parametrize("name", ["ct", "finetune_ct", "mr", "finetune_mr"])
def test_slice_presets_keep_the_patient_upright_and_turn_no_hue(name):
    cfg = get_preset(name)
    assert (cfg.hue, cfg.saturation, cfg.solarise, cfg.grayscale, cfg.turn, cfg.flip_vertical) == (0, 0, 0, 0, 0, 0)
    assert cfg.rotate <= 15
    calibrated = "ct" in name
    assert (cfg.window > 0, cfg.gamma > 0, cfg.brightness > 0) == (calibrated, not calibrated, not calibrated)


@pytest.mark.parametrize("name", ["dermoscopy", "finetune_dermoscopy"])
def test_dermoscopy_presets_have_every_orientation_and_keep_colour(name):
    cfg = get_preset(name)
    assert (cfg.flip, cfg.flip_vertical, cfg.turn) == (0.5, 0.5, 0.75)
    assert (cfg.grayscale, cfg.solarise) == (0, 0)
    assert 0 < cfg.hue <= 0.1


def test_single_settings_change_a_preset():
    cfg = resolve_augment({"preset": "moco", "blur": 0, "crop": [0.5, 1]})
    assert cfg == get_preset("moco").model_copy(update={"blur": 0.0, "crop": (0.5, 1.0)})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"preset": "mocco"}, "no augmentation preset called 'mocco'; did you mean moco"),
        ({"blurr": 1}, "blurr: unknown key; did you mean blur"),
        ({"crop": [0, 1]}, "crop: expected 0 < low <= high <= 1"),
        ({"blur_sigma": [2, 1]}, "low <= high"),
        ({"flip": 1.5}, "flip"),
    ],
)
def test_a_wrong_setting_is_an_error(raw, message):
    with pytest.raises(InputError, match=message):
        resolve_augment(raw)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["all", "cubic crop"])
def test_cuda_equals_cpu(name):
    batch, params = pictures(source=(96, 96)), draw_params(Augment(**SETTINGS[name]), 0, np.arange(N), 0, (96, 96))
    torch.testing.assert_close(augment(batch.cuda(), params, 80).cpu(), augment(batch, params, 80), atol=1e-3, rtol=0)


def test_the_blocks_of_a_matrix_make_the_whole_matrix():
    low, extent = np.array([3.0, 0.0]), np.array([100.0, 256.0])
    flip = np.array([True, False])
    band = resample.resize_band(low, extent, flip, True, 256, 224)
    whole = np.zeros((2, band.weight.shape[1] * band.weight.shape[2], 256))
    for b in range(2):
        for n, start in enumerate(band.start[b]):
            size = band.weight.shape[2]
            whole[b, n * size : (n + 1) * size, start : start + band.width[b]] = band.weight[b, n, :, : band.width[b]]
    np.testing.assert_allclose(whole[:, :224].sum(2), 1, atol=1e-5)
    assert not whole[0, :, :3].any()
    assert not whole[0, :, 103:].any()


def test_the_laterality_preset_is_that_of_radiographs_without_flips():
    assert PRESETS["cxr_laterality"].flip == 0
    assert PRESETS["cxr_laterality"].model_copy(update={"flip": PRESETS["cxr"].flip}) == PRESETS["cxr"]
