"""The CAM methods equal NumPy written from the papers, with the gradient of a network differentiated by hand."""

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from tests.transfer.explain.networks import hand_made, random_images, timm_network
from transfer.explain.feature_map import differentiate_map
from transfer.explain.gradcam import explain_gradcam, weigh_by_mean_gradient
from transfer.explain.gradcam_plus_plus import explain_gradcam_plus_plus, weigh_by_positive_gradient
from transfer.explain.hirescam import explain_hirescam, multiply_by_gradient

LABEL = torch.tensor([1, 0])


def by_hand(network, x, label):
    """(A, G) of each image, (D, h, w): the pooling is the mean of weight * a^2, so dlogit/da = head * 2 a weight / cells."""
    with torch.no_grad():
        a = network.backbone.conv(x).relu().numpy()
    head = network.head.weight.detach().numpy()
    rows = np.linspace(0.5, 1.5, a.shape[2])[None, :, None].astype(np.float32)
    cells = a.shape[2] * a.shape[3]
    each = [(a[i], head[int(label[i])][:, None, None] * 2 * a[i] * rows.astype(float) ** 2 / cells) for i in range(len(a))]
    return each


def numpy_gradcam(a, g):
    return sum(g[k].mean() * a[k] for k in range(len(a)))


def numpy_hirescam(a, g):
    return sum(g[k] * a[k] for k in range(len(a)))


def numpy_gradcam_plus_plus(a, g):
    """Eq. 9 and 19 with loops; derivatives of exp(S) are g, g^2, g^3 times exp(S)."""
    total = np.zeros(a.shape[1:])
    for k in range(len(a)):
        weight = 0.0
        for i in range(a.shape[1]):
            for j in range(a.shape[2]):
                below = 2 * g[k, i, j] ** 2 + a[k].sum() * g[k, i, j] ** 3
                alpha = g[k, i, j] ** 2 / below if below != 0 else 0.0
                weight += alpha * max(g[k, i, j], 0)
        total += weight * a[k]
    return total


@pytest.mark.parametrize("nhwc", [False, True])
@pytest.mark.parametrize(
    ("ours", "reference"),
    [
        (weigh_by_mean_gradient, numpy_gradcam),
        (weigh_by_positive_gradient, numpy_gradcam_plus_plus),
        (multiply_by_gradient, numpy_hirescam),
    ],
)
def test_a_cam_equals_the_paper_in_numpy(nhwc, ours, reference):
    network, x = hand_made(nhwc), random_images(side=12, dtype=torch.float64)
    found = ours(differentiate_map(network, x, LABEL)).numpy()
    want = np.stack([reference(a, g) for a, g in by_hand(network, x, LABEL)])
    assert np.abs(want).max() > 1e-6
    np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-12)


def test_maps_in_both_layouts_are_equal():
    x = random_images(side=12, dtype=torch.float64)
    for explain in (explain_gradcam, explain_gradcam_plus_plus, explain_hirescam):
        first, last = explain(hand_made(False), x, LABEL), explain(hand_made(True), x, LABEL)
        assert torch.equal(first.maps, last.maps)
        assert first.cells == last.cells == 6


@pytest.mark.parametrize("arch", ["test_resnet", "test_efficientnet", "test_convnext", "test_mambaout"])
def test_every_cnn_has_a_map_that_depends_on_the_label_and_not_on_the_batch(arch):
    network, x = timm_network(arch), random_images()
    for explain in (explain_gradcam, explain_gradcam_plus_plus, explain_hirescam):
        both = explain(network, x, LABEL).maps
        assert both.shape == (2, 64, 64)
        assert both.min() >= 0
        alone = explain(network, x[1:], LABEL[1:]).maps[0]
        torch.testing.assert_close(both[1], alone, rtol=1e-3, atol=1e-5 * float(both.max()))
        assert not torch.allclose(both, explain(network, x, 1 - LABEL).maps)
        assert torch.equal(both, explain(network, x, LABEL).maps)


def test_the_gradient_is_that_of_the_whole_network():
    """`forward_head(forward_features(x))` is what the network computes, for one that stores maps as (B, h, w, D) too."""
    for arch in ("test_resnet", "test_convnext", "test_mambaout"):
        network, x = timm_network(arch), random_images()
        seen = []
        real = network.backbone.forward_features
        network.backbone.forward_features = lambda x, real=real, seen=seen: seen.append(real(x)) or seen[-1]
        (want,) = torch.autograd.grad(network(x)[:, 1].sum(), seen[0])
        network.backbone.forward_features = real
        found = differentiate_map(network, x, torch.tensor([1, 1])).gradient
        want = want.permute(0, 3, 1, 2) if arch == "test_mambaout" else want
        torch.testing.assert_close(found, want)


def test_hirescam_is_gradcam_where_the_mean_and_one_layer_follow_the_map():
    network, x = timm_network("test_resnet"), random_images()
    a, b = explain_gradcam(network, x, LABEL).maps, explain_hirescam(network, x, LABEL).maps
    assert a.max() > 0
    torch.testing.assert_close(a, b)


def test_a_vit_has_no_cam():
    with pytest.raises(InputError, match="ends with features of 17x64, not with a map; the CAM methods are for CNNs: use gradient_rollout"):
        explain_gradcam(timm_network("test_vit", img_size=64), random_images(), LABEL)
