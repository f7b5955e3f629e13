"""Occlusion equals a loop over squares in NumPy, and settles what it cannot do."""

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.zoo.card import Preprocess
from tests.transfer.explain.networks import hand_made, random_images, timm_network
from transfer.explain.occlusion import OcclusionSettings, explain_occlusion, list_starts
from transfer.explain.registry import choose_methods, prepare_fill

LABEL = torch.tensor([1, 0])
NO_SETTINGS = OcclusionSettings()


@pytest.mark.parametrize(("patch", "stride", "fill"), [(4, 2, 0.0), (5, 3, 1.5), (3, 3, 0.0)])
def test_a_pixel_has_the_mean_fall_of_the_squares_that_cover_it(patch, stride, fill):
    network, x = hand_made(), random_images(side=12, dtype=torch.float64)
    settings = OcclusionSettings(patch=patch, stride=stride)
    found = explain_occlusion(settings, torch.full((1, 1, 1), fill), network, x, LABEL).maps
    fall, count = np.zeros((2, 12, 12)), np.zeros((12, 12))
    starts = sorted({*range(0, 13 - patch, stride), 12 - patch})
    for top in starts:
        for left in starts:
            covered = x.numpy().copy()
            covered[:, :, top : top + patch, left : left + patch] = fill
            with torch.no_grad():
                drop = (network(x) - network(torch.from_numpy(covered))).numpy()[[0, 1], LABEL.numpy()]
            fall[:, top : top + patch, left : left + patch] += drop[:, None, None]
            count[top : top + patch, left : left + patch] += 1
    np.testing.assert_allclose(found.numpy(), np.maximum(fall / count, 0), rtol=1e-5, atol=1e-7)


def test_squares_cover_the_whole_side_and_a_square_of_the_image_is_the_largest():
    assert list_starts(10, 4, 4) == [0, 4, 6]
    assert list_starts(8, 4, 4) == [0, 4]
    with pytest.raises(InputError, match="the occluding square has 65 pixels and the input 64; choose a smaller --occlusion-patch"):
        explain_occlusion(OcclusionSettings(patch=65), torch.zeros(1, 1, 1), timm_network("test_resnet"), random_images(), LABEL)


def test_a_pixel_that_the_network_does_not_read_has_no_evidence():
    network, x = hand_made(), random_images(side=12, dtype=torch.float64)
    real = network.backbone.forward_features
    network.backbone.forward_features = lambda x: real(x[:, :, :6])  # the upper half
    maps = explain_occlusion(OcclusionSettings(patch=2, stride=1), torch.zeros(1, 1, 1), network, x, LABEL).maps
    assert maps[:, :5].sum() > 0
    assert maps[:, 7:].abs().max() == 0


def test_the_fill_is_prepared_as_an_image_is():
    card = Preprocess(size=64, channels=1, mean=(0.4,), std=(0.2,))
    assert prepare_fill(card, None).item() == 0
    assert prepare_fill(card, 0.4).item() == pytest.approx(0, abs=1e-6)
    assert prepare_fill(card, 1.0).item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("arch", "default", "fitting"),
    [
        ("test_resnet", "gradcam", ["gradcam", "gradcam++", "hirescam", "occlusion"]),
        ("test_vit", "gradient_rollout", ["rollout", "gradient_rollout", "occlusion"]),
        ("test_vit3", "occlusion", ["occlusion"]),
    ],
)
def test_each_network_has_a_default_and_a_clear_refusal(arch, default, fitting):
    network = timm_network(arch, **({} if arch == "test_resnet" else {"img_size": 64}))
    card = Preprocess(size=64, channels=1, mean=(0.5,), std=(0.25,))
    assert [m.name for m in choose_methods([], network, card, NO_SETTINGS, None)] == [default]
    assert [m.name for m in choose_methods(["all"], network, card, NO_SETTINGS, None)] == fitting
    other = "rollout" if arch == "test_resnet" else "gradcam"
    with pytest.raises(InputError, match=f"^{other}: .*use "):
        choose_methods([other], network, card, NO_SETTINGS, None)
    with pytest.raises(InputError, match="no method of explanation called 'gradcam2'; did you mean gradcam"):
        choose_methods(["gradcam2"], network, card, NO_SETTINGS, None)
