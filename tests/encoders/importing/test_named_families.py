"""Sources whose files have the same names as others: named with --family, they give their network, feature and pixels."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from encoders.importing.family_data import family_book
from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.zoo import zoo
from encoders.zoo.card import Preprocess
from tests.encoders.importing.sources import VIT, prefixed, randomised, relative_difference, save

GATED = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU, "init_values": 1e-5}
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def vit(**args):
    return randomised(timm.create_model("vit_tiny_patch16_224", **{**VIT, **args}))


@pytest.mark.parametrize(
    ("family", "args", "feature"),
    [
        ("uni", {"init_values": 1e-5}, "cls"),
        ("uni", {**GATED, "mlp_ratio": 5.33334, "reg_tokens": 8, "no_embed_class": True}, "cls"),
        ("virchow", {**GATED, "mlp_ratio": 5.3375, "global_pool": ""}, "cls+mean"),
        ("virchow2", {**GATED, "mlp_ratio": 5.3375, "reg_tokens": 4, "global_pool": ""}, "cls+mean"),
        ("gigapath", {**GATED, "mlp_ratio": 5.33334}, "cls"),
        ("h_optimus", {"init_values": 1e-5, "reg_tokens": 4, "no_embed_class": True}, "cls"),
        ("kaiko", {}, "cls"),
        ("lunit_vit", {}, "cls"),
        ("medical_mae", {}, "cls"),
    ],
)
def test_vision_transformers(tmp_path, family, args, feature):
    source = vit(**args)
    state = {"model": source.state_dict()} if family == "medical_mae" else source.state_dict()
    done = import_encoder(save(tmp_path, state), ImportSettings(family=family), "theirs")
    with torch.no_grad():
        tokens = source.forward_features(X)
        want = tokens[:, 0]
        if feature == "cls+mean":
            want = torch.cat([want, tokens[:, 1 + args.get("reg_tokens", 0) :].mean(1)], dim=1)
        got = zoo.load_encoder("theirs").model(X)
    assert relative_difference(want, got) <= 1e-6
    pixels = family_book().families[family].pixels
    assert done.card.preprocess.mean == tuple(pixels["mean"])
    assert done.card.modality == family_book().families[family].modality


def monai_names(source):
    """timm's names -> those of MONAI's ViT, monai/networks/nets/vit.py; its class token has no position."""
    names = (("patch_embed.proj.", "patch_embedding.patch_embeddings."), ("pos_embed", "patch_embedding.position_embeddings"))
    names += ((".mlp.fc1.", ".mlp.linear1."), (".mlp.fc2.", ".mlp.linear2."), (".attn.proj.", ".attn.out_proj."))
    out = {}
    for key, value in source.state_dict().items():
        for old, new in names:
            key = key.replace(old, new)
        out[key] = value[:, 1:] if key.endswith("position_embeddings") else value
    return out | {"blocks.0.norm_cross_attn.weight": torch.zeros(192), "blocks.0.cross_attn.out_proj.weight": torch.zeros(192, 192)}


def test_monai_vit_has_its_eps_and_no_position_of_the_class_token(tmp_path):
    source = vit(qkv_bias=False, norm_layer=nn.LayerNorm)  # eps 1e-5
    source.pos_embed.data[:, 0] = 0
    settings = ImportSettings(mean=(0.5,), std=(0.25,))
    done = import_encoder(save(tmp_path, monai_names(source)), settings, "theirs")
    with torch.no_grad():
        assert relative_difference(source(X), zoo.load_encoder("theirs").model(X)) <= 1e-6
    assert done.match.name == "monai"
    assert done.card.model_args["layer_norm_eps"] == 1e-5
    assert "pos_embed of the class token: zeros, the source has none" in done.report.filled


def test_monai_resnet_has_stride_1_in_its_stem(tmp_path):
    source = randomised(torchvision.models.resnet18())
    file = save(tmp_path, source.state_dict())
    done = import_encoder(file, ImportSettings(family="monai_resnet", mean=(0.5,), std=(0.25,), size=64), "theirs")
    source.conv1.stride, source.fc = (1, 1), nn.Identity()
    with torch.no_grad():
        assert relative_difference(source(X), zoo.load_encoder("theirs").model(X)) <= 1e-5
    assert done.card.model_args == {"stem_stride": 1}


@pytest.mark.parametrize(("family", "mean"), [("moco_cxr", 0.502), ("lunit_resnet50", 0.70322989)])
def test_residual_networks(tmp_path, family, mean):
    source = randomised(torchvision.models.resnet18())
    state = {"state_dict": prefixed("module.encoder_q.", source)} if family == "moco_cxr" else source.state_dict()
    done = import_encoder(save(tmp_path, state), ImportSettings(family=family), "theirs")
    source.fc = nn.Identity()
    with torch.no_grad():
        assert relative_difference(source(X), zoo.load_encoder("theirs").model(X)) <= 1e-5
    assert done.card.preprocess.mean[0] == mean


def test_the_pixels_of_every_family_are_a_preprocessing():
    for name, family in family_book().families.items():
        pixels = dict(family.pixels)
        assert not set(pixels) - set(Preprocess.model_fields), name
        if pixels:
            Preprocess(**pixels)
