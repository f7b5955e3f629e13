"""What a card says about the function of a network and about its pixels: each option is on the card and changes its canary."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import zoo
from encoders.zoo.card import Card
from encoders.zoo.position_grid import resample_positions
from tests.encoders.importing.sources import VIT, randomised, save


def vit(**args):
    return randomised(timm.create_model("vit_tiny_patch16_224", **{**VIT, **args}))


def command_line(*words):
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == 0, f"{result.output} {result.exception}"
    return result.output


def card_of(name):
    return Card.read(zoo_dir() / name / "card.yaml")


@pytest.mark.parametrize(
    ("option", "value", "where", "stored"),
    [
        ("--pool", "mean", "global_pool", "avg"),
        ("--pool", "cls+mean", "global_pool", "cls+mean"),
        ("--layer-norm-eps", "0.01", "layer_norm_eps", 0.01),
        ("--heads", "6", "num_heads", 6),
        ("--activation", "quick_gelu", "act_layer", "quick_gelu"),
        ("--crop-pct", "0.875", "crop_pct", 0.875),
        ("--interpolation", "bilinear", "interpolation", "bilinear"),
        ("--resize", "squash", "resize", "squash"),
        ("--value-range", "-1024,1024", "value_range", (-1024.0, 1024.0)),
        ("--mean", "0.4", "mean", (0.4, 0.4, 0.4)),
        ("--size", "32", "size", 32),
    ],
)
def test_an_option_is_on_the_card_and_changes_the_canary(tmp_path, option, value, where, stored):
    file = save(tmp_path, vit().state_dict())
    options = {"--mean": "0.5", "--std": "0.25"}
    for name, more in (("plain", {}), ("changed", {option: value})):
        command_line("import", file, "--name", name, *(word for pair in (options | more).items() for word in pair))
    plain, changed = card_of("plain"), card_of("changed")
    assert {**changed.model_args, **changed.preprocess.model_dump()}[where] == stored
    assert is_another(plain.canary, changed.canary) or is_another(plain.network_canary, changed.network_canary)


def is_another(before, after):
    return max(abs(a - b) for a, b in zip(before, after, strict=True)) > 1e-3 * max(map(abs, before))


def test_batch_norm_eps_is_on_the_card_and_changes_the_canary(tmp_path):
    file = save(tmp_path, randomised(timm.create_model("resnet10t", num_classes=0)).state_dict())
    words = ["import", file, "--arch", "resnet10t", "--size", "64", "--mean", "0.5", "--std", "0.25"]
    command_line(*words, "--name", "plain")
    command_line(*words, "--name", "changed", "--batch-norm-eps", "0.1")
    assert card_of("changed").model_args == {"batch_norm_eps": 0.1}
    assert card_of("changed").canary != card_of("plain").canary


@pytest.mark.parametrize("rule", ["hf", "dino"])
def test_the_rule_of_positions_is_on_the_card_and_changes_the_canary_at_another_size(tmp_path, rule):
    file = save(tmp_path, vit(img_size=96).state_dict())
    words = ["import", file, "--mean", "0.5", "--std", "0.25", "--size", "64"]
    command_line(*words, "--name", "plain")
    output = command_line(*words, "--name", "changed", "--position-resampling", rule)
    assert "resampled pos_embed: 6x6 -> 4x4, bicubic, not antialiased" in output
    assert card_of("changed").position_resampling == rule
    assert card_of("plain").position_resampling is None
    assert card_of("changed").canary != card_of("plain").canary


def test_positions_follow_the_formula_of_each_source():
    stored = torch.randn(1, 1 + 36, 8, generator=torch.Generator().manual_seed(0))
    grid = stored[:, 1:].reshape(1, 6, 6, 8).permute(0, 3, 1, 2)
    # DINO, vision_transformer.py, interpolate_pos_encoding: w0 = w // patch + 0.1, scale_factor = w0 / sqrt(N)
    dino = F.interpolate(grid, scale_factor=((4 + 0.1) / math.sqrt(36), (4 + 0.1) / math.sqrt(36)), mode="bicubic")
    hf = F.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False)
    for rule, want in (("dino", dino), ("hf", hf)):
        got = resample_positions(stored, (4, 4), 1, rule)
        assert torch.equal(got[:, 1:], want.permute(0, 2, 3, 1).reshape(1, 16, 8))
        assert torch.equal(got[:, :1], stored[:, :1])
    theirs = timm.layers.resample_abs_pos_embed(stored, [4, 4], num_prefix_tokens=1)
    assert torch.allclose(resample_positions(stored, (4, 4), 1, "timm"), theirs, atol=1e-6)


def test_cls_and_mean_are_side_by_side_and_mean_is_of_normalised_patches(tmp_path):
    source = vit()
    file = save(tmp_path, source.state_dict())
    for pool in ("cls", "mean", "cls+mean"):
        import_encoder(file, ImportSettings(mean=(0.5,), std=(0.25,), feature=pool), pool.replace("+", "_"))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = source.forward_features(x)
        cls, mean = tokens[:, 0], tokens[:, 1:].mean(1)
        for pool, want in (("cls", cls), ("mean", mean), ("cls+mean", torch.cat([cls, mean], 1))):
            assert torch.allclose(zoo.load_encoder(pool.replace("+", "_")).model(x), want, atol=1e-5)


def test_attention_pooling(tmp_path):
    source = vit(global_pool="map", class_token=False, fc_norm=False)
    file = save(tmp_path, source.state_dict())
    done = import_encoder(file, ImportSettings(mean=(0.5,), std=(0.25,)), "map")
    assert import_encoder(file, ImportSettings(mean=(0.5,), std=(0.25,), feature="map"), "map").folder == done.folder
    x = torch.rand(2, 3, 64, 64)
    assert done.card.model_args["global_pool"] == "map"
    with torch.no_grad():
        assert torch.allclose(zoo.load_encoder("map").model(x), source(x), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"feature": "map"}, "no tensors of attention pooling"),
        ({"value_range": (1.0, 0.0)}, "value_range"),
        ({"crop_pct": 1.5}, "crop_pct"),
        ({"model_args": {"layer_norm_eps": 0}}, "layer_norm_eps is 0"),
        ({"model_args": {"batch_norm_eps": 1e-3}}, "batch_norm_eps has no effect"),
        ({"model_args": {"num_heads": 5}}, "cannot be built with"),
        ({"model_args": {"stem_stride": 1}}, "belong to a ResNet"),
    ],
)
def test_a_feature_or_value_that_the_network_cannot_have_is_refused(tmp_path, settings, says):
    file = save(tmp_path, vit().state_dict())
    with pytest.raises(InputError, match=says):
        import_encoder(file, ImportSettings(**{"mean": (0.5,), "std": (0.25,), **settings}), "x")


def test_families_lists_licence_access_and_evidence():
    output = command_line("families")
    assert "DINOv3 License" in output
    assert "--family lunit_vit" in output
    assert "CTransPath" in output
    assert '"evidence": "V"' in command_line("families", "--json")
