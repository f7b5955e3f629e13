"""Rollout and gradient-weighted attention equal NumPy written from the papers, and leave the network as it was."""

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from tests.transfer.explain.networks import random_images, timm_network
from transfer.explain.attention import record_attention, recording
from transfer.explain.contract import chosen_logits
from transfer.explain.gradient_rollout import explain_gradient_rollout
from transfer.explain.rollout import explain_rollout, roll_out

LABEL = torch.tensor([1, 0])


def vit(arch="test_vit", **more):
    return timm_network(arch, img_size=64, **more)


def attention_by_hand(network, x):
    """The weights of every block, from the input of its attention: softmax(q k / sqrt(d)), with gradients of the logits of LABEL."""
    given = []
    hooks = [block.attn.register_forward_pre_hook(lambda module, args: given.append(args[0])) for block in network.backbone.blocks]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    weights = []
    for block, tokens in zip(network.backbone.blocks, given, strict=True):
        b, n, _ = tokens.shape
        q, k, _ = block.attn.qkv(tokens).reshape(b, n, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        weights.append((q @ k.transpose(-2, -1) * block.attn.head_dim**-0.5).softmax(-1).detach().numpy())
    return weights


@pytest.mark.parametrize(("arch", "pool"), [("test_vit", "token"), ("test_vit2", "avg")])
def test_rollout_equals_the_paper_in_numpy(arch, pool):
    network, x = vit(arch), random_images()
    flow = [np.eye(17) for _ in range(2)]
    for layer in attention_by_hand(network, x):
        for i in range(2):
            mixed = 0.5 * layer[i].mean(axis=0) + 0.5 * np.eye(17)
            flow[i] = (mixed / mixed.sum(axis=1, keepdims=True)) @ flow[i]
    attention = record_attention(network, x)
    found = roll_out(attention.weights, attention.read).detach().numpy()
    want = np.stack([f[0] if pool == "token" else f[1:].mean(axis=0) for f in flow])
    np.testing.assert_allclose(found, want, rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)  # a distribution over the tokens
    assert explain_rollout(network, x, LABEL).cells == 4


@pytest.mark.parametrize(("arch", "pool"), [("test_vit", "token"), ("test_vit2", "avg")])
def test_gradient_weighted_attention_equals_the_paper_in_numpy(arch, pool):
    network, x = vit(arch), random_images()
    attention = record_attention(network, x)
    gradients = torch.autograd.grad(chosen_logits(attention.logits, LABEL).sum(), attention.weights)
    relevance = [np.eye(17) for _ in range(2)]
    for layer, gradient in zip(attention_by_hand(network, x), gradients, strict=True):
        for i in range(2):
            own = np.mean([np.maximum(gradient[i, h].numpy() * layer[i, h], 0) for h in range(layer.shape[1])], axis=0)
            relevance[i] = relevance[i] + own @ relevance[i]
    want = np.stack([(r - np.eye(17))[0] if pool == "token" else (r - np.eye(17))[1:].mean(axis=0) for r in relevance])[:, 1:]
    found = explain_gradient_rollout(network, x, LABEL)
    cells = torch.nn.functional.interpolate(torch.from_numpy(want).reshape(2, 1, 4, 4), (64, 64), mode="bilinear")[:, 0]
    torch.testing.assert_close(found.maps.double(), cells, rtol=1e-3, atol=1e-6 * float(cells.max()))
    assert not torch.allclose(found.maps, explain_gradient_rollout(network, x, 1 - LABEL).maps)


def test_the_gradient_of_the_weights_is_that_of_a_finite_difference():
    network, x = vit().double(), random_images(1, dtype=torch.float64)
    attention = record_attention(network, x)
    (gradient,) = torch.autograd.grad(attention.logits[0, 1], attention.weights[-1:])
    change = torch.zeros_like(attention.weights[-1])
    change[0, 1, 0, 5] = 1e-5
    block = network.backbone.blocks[-1].attn
    block.fused_attn = False
    hook = block.attn_drop.register_forward_hook(lambda module, given, output: output + change)
    with torch.no_grad():
        moved = network(x)[0, 1]
    hook.remove()
    assert float((moved - attention.logits[0, 1].detach()) / 1e-5) == pytest.approx(float(gradient[0, 1, 0, 5]), rel=1e-3, abs=1e-9)


def test_recording_changes_no_output_and_puts_fused_attention_back():
    network, x = vit(), random_images()
    with torch.no_grad():
        before = network(x)
        with recording(network.backbone) as weights:
            torch.testing.assert_close(network(x), before)
            assert len(weights) == len(network.backbone.blocks)
            assert not any(block.attn.fused_attn for block in network.backbone.blocks)
        assert all(block.attn.fused_attn for block in network.backbone.blocks)
        assert torch.equal(network(x), before)
    assert len(weights) == len(network.backbone.blocks)  # nothing is recorded any more
    with pytest.raises(RuntimeError, match="stop"), recording(network.backbone):
        raise RuntimeError("stop")
    assert all(block.attn.fused_attn for block in network.backbone.blocks)
    assert not any(block.attn.attn_drop._forward_hooks for block in network.backbone.blocks)


@pytest.mark.parametrize(
    ("arch", "reason"),
    [
        ("test_resnet", "has no attention whose weights can be read"),
        ("test_vit3", "pools its tokens by 'map'|not between all tokens"),
        ("swin_tiny_patch4_window7_224", "is not between all tokens of an image in every layer"),
    ],
)
def test_other_networks_are_refused(arch, reason):
    more = {} if arch == "test_resnet" else {"img_size": 64}
    if arch.startswith("swin"):
        more |= {"depths": (1, 1), "embed_dim": 24, "num_heads": (1, 2), "window_size": 4}
    with pytest.raises(InputError, match=reason):
        explain_rollout(timm_network(arch, **more), random_images(), LABEL)


@pytest.mark.parametrize(("arch", "prefix"), [("test_vit", 1), ("deit_tiny_distilled_patch16_224", 2)])
def test_the_tokens_that_are_read_are_those_of_which_the_pooled_features_are_made(arch, prefix):
    network = vit(arch, depth=1)
    attention = record_attention(network, random_images())
    tokens = torch.zeros(1, 16 + prefix, network.head.in_features, requires_grad=True)
    network.backbone.forward_head(tokens, pre_logits=True).sum().backward()
    torch.testing.assert_close(attention.read, tokens.grad[0, :, 0])
