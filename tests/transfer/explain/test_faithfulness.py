"""The measures of faithfulness: closed forms, libraries, and maps of which it is known what they are worth."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

from encoders.zoo.card import Preprocess
from tests.transfer.explain.networks import random_images, timm_network
from transfer.explain.deletion import (
    BLUR,
    DELETION_STEPS,
    area_under_curve,
    blur_images,
    measure_deletion,
    probability_curve,
    rank_pixels,
)
from transfer.explain.evaluate import draw_random_maps
from transfer.explain.localization import resize_mask, score_area, score_centre, score_energy, score_pointing
from transfer.explain.patient_means import mean_over_patients
from transfer.explain.randomised_weights import iterate_randomised, rank_correlation, structural_similarity

SIDE = 16
LABEL = np.zeros(3, np.int64)


class MeanOfMask:
    """A model whose probability is the mean of the pixels in a mask: what each pixel is worth is known."""

    def __init__(self, mask):
        self.mask = mask

    def probabilities(self, x):
        return np.asarray(x[:, 0, self.mask].mean(1))[:, None]


@pytest.fixture
def square():
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[4:8, 6:10] = True
    return mask


def test_deletion_and_insertion_have_the_areas_of_a_network_whose_pixels_are_known(square):
    """16 of 256 pixels count, which is 2 of 32 steps: the curve falls from 1 to 0 in two steps of a straight line."""
    model, x = MeanOfMask(square), torch.ones(3, 1, SIDE, SIDE)
    best, worst = square.float().expand(3, -1, -1), 1 - square.float().expand(3, -1, -1)
    curve = probability_curve(model, x, torch.zeros_like(x), LABEL, rank_pixels(best))
    assert curve[:, 0].tolist() == [1, 1, 1]
    assert curve[:, 2].tolist() == [0, 0, 0]
    assert curve.shape == (3, DELETION_STEPS + 1)
    area = area_under_curve(curve)
    np.testing.assert_allclose(area, np.trapezoid(curve, dx=1 / DELETION_STEPS, axis=1))
    worst_area = area_under_curve(probability_curve(model, x, torch.zeros_like(x), LABEL, rank_pixels(worst)))
    np.testing.assert_allclose(worst_area, 1 - 1 / DELETION_STEPS, atol=1 / DELETION_STEPS)
    assert (area < 2 / DELETION_STEPS).all()
    rises = area_under_curve(probability_curve(model, torch.zeros_like(x), x, LABEL, rank_pixels(best)))
    np.testing.assert_allclose(rises, 1 - area)
    deletion, insertion = measure_deletion(model, x, LABEL, best)
    np.testing.assert_allclose(deletion, area)
    assert (insertion > 0.99).all()  # blurred ones are ones


def test_equal_values_come_in_random_order_and_the_same_at_every_call():
    maps = torch.zeros(1, SIDE, SIDE)
    ranks = rank_pixels(maps)[0].numpy()
    assert sorted(ranks) == list(range(SIDE**2))
    assert abs(np.corrcoef(ranks, np.arange(SIDE**2))[0, 1]) < 0.3
    assert torch.equal(rank_pixels(maps), rank_pixels(maps))
    maps[0, 3, 5], maps[0, 9, 2] = 2.0, 3.0
    ranks = rank_pixels(maps)[0].reshape(SIDE, SIDE)
    assert (int(ranks[9, 2]), int(ranks[3, 5])) == (0, 1)


def test_the_blur_is_that_of_scipy():
    x = torch.rand(2, 3, 24, 24, dtype=torch.float64)
    want = scipy.ndimage.gaussian_filter(x.numpy(), (0, 0, BLUR * 24, BLUR * 24), mode="nearest", truncate=3.0)
    np.testing.assert_allclose(blur_images(x).numpy(), want, atol=1e-9)


def test_pointing_and_energy(square):
    masks = np.stack([square.numpy()] * 3)
    maps = torch.zeros(3, SIDE, SIDE)
    maps[0, 5, 7], maps[0, 0, 0] = 3.0, 1.0
    maps[1, 0, 0] = 1.0
    assert score_pointing(maps, masks).tolist() == [1, 0, 0]
    assert score_energy(maps, masks).tolist() == [0.75, 0, 0]
    assert score_area(masks).tolist() == [1 / 16] * 3
    np.testing.assert_allclose(score_energy(torch.ones(3, SIDE, SIDE), masks), 1 / 16)
    assert score_centre(masks).tolist() == [0, 0, 0]
    masks[0, 8, 8] = True
    assert score_centre(masks).tolist() == [1, 0, 0]


def test_a_mask_is_where_the_network_sees_it():
    mask = np.zeros((40, 20), bool)
    mask[:20] = True
    seen = resize_mask(mask, Preprocess(size=16, resize="pad", channels=1, mean=(0.5,), std=(0.25,)))
    assert seen[:8, 4:12].all()
    assert not seen[8:].any()
    assert not seen[:, :4].any()
    seen = resize_mask(mask, Preprocess(size=20, resize="crop", channels=1, mean=(0.5,), std=(0.25,)))
    assert seen[:10].all()
    assert not seen[10:].any()


def test_the_measures_of_likeness_are_those_of_the_papers():
    draw = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, SIDE, SIDE, generator=draw), torch.rand(2, SIDE, SIDE, generator=draw)
    a[0, :3] = 0.5  # ties
    want = [scipy.stats.spearmanr(a[i].flatten(), b[i].flatten()).statistic for i in range(2)]
    np.testing.assert_allclose(rank_correlation(a, b), want, atol=1e-12)
    np.testing.assert_allclose(rank_correlation(a, a), 1)
    assert rank_correlation(a, torch.zeros_like(a)).tolist() == [0, 0]
    np.testing.assert_allclose(structural_similarity(a, a), 1)
    x, y = (m[1].double().numpy() / float(m[1].max()) for m in (a, b))
    total = []
    for i in range(SIDE - 6):
        for j in range(SIDE - 6):
            u, v = x[i : i + 7, j : j + 7].ravel(), y[i : i + 7, j : j + 7].ravel()
            (vx, vxy), (_, vy) = np.cov(u, v)
            top = (2 * u.mean() * v.mean() + 1e-4) * (2 * vxy + 9e-4)
            total.append(top / ((u.mean() ** 2 + v.mean() ** 2 + 1e-4) * (vx + vy + 9e-4)))
    np.testing.assert_allclose(structural_similarity(a, b)[1], np.mean(total), rtol=1e-6)


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_convnext"])
def test_weights_are_randomised_from_the_top_until_none_is_left(arch):
    network = timm_network(arch, **({"img_size": 64} if arch == "test_vit" else {}))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    changed, titles = [], []
    for title, broken in iterate_randomised(network):
        titles.append(title)
        state = broken.state_dict()
        changed.append({name for name, value in state.items() if not torch.equal(value, before[name])})
        for name, value in state.items():  # a permutation: nothing but the order changes
            assert torch.equal(value.flatten().sort().values, before[name].flatten().sort().values)
    assert titles == ["head", *(f"{i + 1} of {len(titles) - 1} units" for i in range(len(titles) - 1))]
    assert changed[0] == {"head.weight"}  # the bias is 0 everywhere
    assert all(a < b for a, b in itertools.pairwise(changed))
    varied = {name for name, value in before.items() if value.numel() > 8 and len(value.unique()) > 4}
    assert varied <= changed[-1]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    stem = "stem" if arch != "test_vit" else "patch_embed"
    assert not any(name.startswith(f"backbone.{stem}") or name.startswith("backbone.conv1") for name in changed[1])


def test_random_maps_belong_to_an_image_and_are_as_coarse_as_asked():
    maps = draw_random_maps(4, 0, 4, 32, 0)
    assert torch.equal(maps[2:], draw_random_maps(2, 2, 4, 32, 0))  # whatever the batch
    assert not torch.equal(maps, draw_random_maps(4, 0, 4, 32, 1))
    fine = draw_random_maps(4, 0, 32, 32, 0)
    assert maps.diff(dim=2).abs().mean() < fine.diff(dim=2).abs().mean() / 3


def test_the_interval_is_over_patients():
    draw = np.random.default_rng(0)
    patient = np.repeat(np.arange(40), 5).astype(str)
    value = np.repeat(draw.normal(1, 1, 40), 5)  # images of a patient are all alike
    found = mean_over_patients(value, patient)
    each = value[::5]
    assert found.value == pytest.approx(each.mean())
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * each.std() / np.sqrt(40), rel=0.15)
    assert np.isnan(mean_over_patients(value[:5], patient[:5]).low)
    assert mean_over_patients(np.ones(200), patient).low < 1


def test_a_method_that_ignores_the_weights_is_flagged():
    from transfer.explain.contract import EvidenceMaps, Method
    from transfer.explain.evaluate import check_randomised
    from transfer.explain.gradcam import GRADCAM
    from transfer.trained.predict import TrainedModel

    network = timm_network("test_resnet")
    x, label = random_images(4), np.zeros(4, np.int64)
    edges = Method("edges", "edges", "", "outputs", lambda network, x, label: EvidenceMaps(x[:, 0].abs(), 64))
    model = TrainedModel("m", SimpleNamespace(), SimpleNamespace(), network, frozenset())
    rows = check_randomised(model, x, label, [edges, GRADCAM])
    last = {row.method: row for row in rows if row.changes is not None}
    assert (last["edges"].rank, last["edges"].similarity, last["edges"].changes) == (pytest.approx(1), pytest.approx(1), False)
    assert last["gradcam"].rank < 0.5
    assert last["gradcam"].changes
