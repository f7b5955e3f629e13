"""Features of several stages against hooks on the network."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.runtime.errors import InputError
from encoders.zoo import backbone, register, zoo
from encoders.zoo.card import Preprocess
from encoders.zoo.stages import StageFeatures, stage_width
from tests.encoders.zoo.small import tiny_card, tiny_network

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
FAMILIES = ["resnet10t", "mobilenetv2_050", "mobilenetv3_small_050", "convnext_atto", "regnety_002", "efficientnet_b0"]


def hooked(model: torch.nn.Module, x: torch.Tensor, *modules: str) -> list[torch.Tensor]:
    """The outputs of submodules."""
    outputs = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda m, i, out, name=name: outputs.__setitem__(name, out)) for name in modules
    ]
    with torch.inference_mode():
        model(x)
    for handle in handles:
        handle.remove()
    return [outputs[name] for name in modules]


def test_the_stages_of_a_resnet_are_the_means_of_its_layers():
    model = backbone.build_backbone("resnet10t", size=64, seed=0).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        got = StageFeatures(model, (2, 4, "pooled"))(x)
        whole = model(x)
    layer2, layer4 = hooked(model, x, "layer2", "layer4")
    want = [layer2.mean((2, 3)), layer4.mean((2, 3)), whole]
    assert torch.allclose(got, torch.cat([v / v.norm(dim=1, keepdim=True) for v in want], dim=1), atol=1e-6)


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_the_stages_of_a_vit_are_its_blocks_after_the_final_norm(pool):
    args = {"depth": 3, "global_pool": pool, "embed_dim": 48, "num_heads": 3}
    model = backbone.build_backbone("vit_tiny_patch16_224", args, size=64, seed=0).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        got = StageFeatures(model, (0, 1))(x)
        blocks = hooked(model, x, "blocks.0", "blocks.1")
        normed = [model.norm(tokens) for tokens in blocks]
    want = [tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(1) for tokens in normed]
    assert torch.allclose(got, torch.cat([F.normalize(v, dim=1) for v in want], dim=1), atol=1e-6)


@pytest.mark.parametrize("arch", [*FAMILIES, "swin_tiny_patch4_window7_224", "vit_small_patch16_224", "beit_base_patch16_224"])
def test_width_and_pooled_stage_agree_with_the_network_in_every_family(arch):
    size = 224 if "swin" in arch else 64
    args = {"depth": 2} if arch.startswith(("vit", "beit")) else {}
    model = backbone.build_backbone(arch, args, size=size, seed=0).eval()
    last = len(model.feature_info) - 1
    stages = (0, last, "pooled")
    card = tiny_card(preprocess=Preprocess(size=size)).replace(arch=arch, model_args=args)
    x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        got, whole = StageFeatures(model, stages)(x), model(x)
    assert got.shape[1] == stage_width(card, stages)
    assert torch.allclose(got[:, -whole.shape[1] :], F.normalize(whole, dim=1), atol=1e-5)


def test_stages_work_for_entries_runs_and_cards_and_have_their_own_hash():
    folder = zoo.publish_encoder("mine", tiny_network(seed=3), tiny_card())
    plain = zoo.load_encoder("mine")
    for name in ("mine:stages=2/pooled", f"{folder / 'card.yaml'}:stages=2/pooled"):
        encoder = zoo.load_encoder(name)
        features = encoder.encode(IMAGES).numpy()
        assert encoder.sha256 != plain.sha256
        assert features.shape == (3, encoder.card.dim)
        assert np.allclose(np.square(features).sum(axis=1), 2)
        own = plain.encode(IMAGES).numpy()
        assert np.allclose(features[:, -own.shape[1] :], own / np.linalg.norm(own, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(InputError, match="no tokens; leave stages out"):
        zoo.load_encoder("mine:stages=2").encode(IMAGES, "tokens")


def test_stages_of_a_card_survive_publishing_verifying_and_export(tmp_path):
    zoo.publish_encoder("mine", tiny_network(seed=3), tiny_card(stages=(1, "pooled")))
    encoder = zoo.load_encoder("mine")
    assert encoder.card.dim == 32 + 96
    assert encoder.card.stages == (1, "pooled")
    assert all(check.passed for check in register.verify_encoder("mine"))
    register.export_encoder("mine", tmp_path / "out.safetensors")
    assert zoo.load_encoder(str(tmp_path / "out.yaml")).sha256 == encoder.sha256
    with pytest.raises(InputError, match="leave stages out"):
        zoo.find_encoder("mine:stages=2")


def test_baselines_have_the_stages_of_the_encoder():
    card = zoo.find_encoder("random_resnet18:size=64,stages=2/3").card
    assert zoo.baseline_name("random", card) == "random_resnet18:size=64,stages=2/3"
    assert zoo.find_encoder(zoo.baseline_name("imagenet", card)).card.stages == (2, 3)
