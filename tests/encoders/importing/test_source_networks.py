"""Files of sources whose networks are computed here independently of timm, with random weights: the import gives their features."""

import datetime

import pytest
import torch
import torchvision
from torch import nn

from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.zoo import zoo
from tests.encoders.importing.source_networks import (
    MMPRETRAIN,
    OFFICIAL_SWIN,
    OPENAI_CLIP,
    SimMimVit,
    SourceVit,
    quick_gelu,
    renamed,
)
from tests.encoders.importing.sources import IMAGENET, prefixed, randomised, relative_difference, save

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def imported(x):
    with torch.no_grad():
        return zoo.load_encoder("theirs").model.to(memory_format=torch.contiguous_format)(x)


def run(tmp_path, content, **settings):
    done = import_encoder(save(tmp_path, content), ImportSettings(**{**IMAGENET, **settings}), "theirs")
    assert not done.report.unexplained
    return done


def tokens_of(source, x):
    with torch.no_grad():
        return source(x)


@pytest.mark.parametrize(
    ("args", "arch"),
    [
        ({}, "vit_base_patch14_dinov2"),
        ({"registers": 4}, "vit_base_patch14_reg4_dinov2"),
        ({"gated": True}, "vit_base_patch14_dinov2"),
        ({"gated": True, "registers": 4}, "vit_base_patch14_reg4_dinov2"),
    ],
)
def test_dinov2_of_meta(tmp_path, args, arch):
    source = randomised(SourceVit(width=768, heads=12, depth=1, patch=14, size=56, scaled=True, **args))
    done = run(tmp_path, {**source.state_dict(), "mask_token": torch.zeros(1, 768)})
    x = X[..., :56, :56]
    assert (done.match.name, done.card.arch) == ("dinov2", arch)
    assert relative_difference(tokens_of(source, x)[:, 0], imported(x)) <= 1e-5


def test_positions_of_dinov2_at_another_size_are_those_of_its_code(tmp_path):
    source = randomised(SourceVit(width=192, heads=3, depth=1, patch=14, size=98, scaled=True))
    done = run(tmp_path, {**source.state_dict(), "mask_token": torch.zeros(1, 192)}, size=56)
    x = X[..., :56, :56]
    assert done.report.resampled["pos_embed"][1].startswith("7x7 -> 4x4")
    assert relative_difference(tokens_of(source, x)[:, 0], imported(x)) <= 1e-5


def test_dinov2_training_checkpoint_with_block_chunks(tmp_path):
    source = randomised(SourceVit(width=192, heads=3, depth=3, patch=14, size=56, scaled=True))
    chunks = [(r"^blocks\.([01])\.", r"blocks.0.\1."), (r"^blocks\.2\.", "blocks.1.2.")]  # the second number counts over all chunks
    teacher = renamed(source.state_dict(), chunks, "backbone.") | {"dino_head.last_layer.weight": torch.zeros(2, 3)}
    done = run(tmp_path, {"teacher": teacher | {"backbone.mask_token": torch.zeros(1, 192)}})
    x = X[..., :56, :56]
    assert (done.match.name, done.match.role) == ("dinov2_training", "teacher")
    assert relative_difference(tokens_of(source, x)[:, 0], imported(x)) <= 1e-5


@pytest.mark.parametrize("heads", ["mlp", "none"])
def test_ibot_and_dino_vision_transformers(tmp_path, heads):
    source = randomised(SourceVit())
    teacher = prefixed("backbone.", source) | ({"head.mlp.0.weight": torch.zeros(2, 192)} if heads == "mlp" else {})
    done = run(tmp_path, {"teacher": teacher | {"backbone.masked_embed": torch.zeros(1, 192)}, "student": prefixed("module.", source, 2)})
    assert done.match.name == "dino"
    assert relative_difference(tokens_of(source, X)[:, 0], imported(X)) <= 1e-5


def test_ibot_with_mean_pooling_has_its_norm_after_the_mean(tmp_path):
    source = randomised(SourceVit())
    norm, source.norm = source.norm, nn.Identity()
    state = prefixed("backbone.", source) | {f"backbone.fc_norm.{key}": value for key, value in norm.state_dict().items()}
    run(tmp_path, {"teacher": state})
    with torch.no_grad():
        want = norm(source(X)[:, 1:].mean(1))
    assert relative_difference(want, imported(X)) <= 1e-5


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("kind", ["pretrained", "fine-tuned"])
def test_simmim_vit(tmp_path, scaled, kind):
    source = randomised(SimMimVit(scaled=scaled))
    norm, source.norm = source.norm, nn.Identity()
    state = source.state_dict()
    if kind == "pretrained":
        content = renamed(state | {f"norm.{key}": value for key, value in norm.state_dict().items()}, (), "encoder.")
        content["decoder.0.weight"] = torch.zeros(2, 192, 1, 1)
    else:
        table = state.pop("rel_pos_bias.relative_position_bias_table")
        del state["rel_pos_bias.relative_position_index"], state["mask_token"]
        content = state | {f"fc_norm.{key}": value for key, value in norm.state_dict().items()} | {"head.weight": torch.zeros(2, 192)}
        content |= {f"blocks.{i}.attn.relative_position_bias_table": table for i in range(2)}
    done = run(tmp_path, {"model": content, "optimizer": {"state": {}}, "max_accuracy": 0.0, "epoch": 1, "config": {"AMP": "O0"}})
    assert done.match.name == ("simmim" if kind == "pretrained" else "plain")
    with torch.no_grad():
        want = norm(source(X)[:, 1:].mean(1))
    assert relative_difference(want, imported(X)) <= 1e-5


@pytest.mark.parametrize(("size", "window"), [(224, 7), (192, 6)])
def test_simmim_swin(tmp_path, size, window):
    source = torchvision.models.SwinTransformer([4, 4], 24, [1, 2, 1, 1], [1, 2, 4, 8], [window, window], num_classes=2)
    source = randomised(source)
    state = {key: value for key, value in source.state_dict().items() if not key.startswith("head.")}
    content = renamed(state, OFFICIAL_SWIN, "encoder.") | {"encoder.mask_token": torch.zeros(1, 1, 24)}
    content["encoder.layers.1.blocks.1.attn_mask"] = torch.zeros(16, window**2, window**2)
    content["decoder.0.weight"] = torch.zeros(3072, 192, 1, 1)
    done = run(tmp_path, {"model": content, "epoch": 1})
    source.head = nn.Identity()
    x = torch.rand(1, 3, size, size)
    assert (done.match.name, done.card.preprocess.size) == ("simmim", size)
    assert relative_difference(tokens_of(source, x), imported(x)) <= 1e-5


@pytest.mark.parametrize("kind", ["OpenAI", "CheXzero"])
def test_image_tower_of_clip(tmp_path, kind):
    source = randomised(SourceVit(width=128, heads=2, depth=2, patch=32, size=64, eps=1e-5, act=quick_gelu, pre_norm=True))
    state = renamed(source.state_dict(), OPENAI_CLIP, "visual.")
    state["visual.class_embedding"], state["visual.positional_embedding"] = source.cls_token[0, 0].detach(), source.pos_embed[0].detach()
    state |= {"visual.proj": torch.zeros(128, 16), "logit_scale": torch.ones(()), "token_embedding.weight": torch.zeros(5, 8)}
    state |= {
        "transformer.resblocks.0.ln_1.weight": torch.zeros(8),
        "ln_final.weight": torch.zeros(8),
        "text_projection": torch.zeros(8, 16),
    }
    done = run(tmp_path, state if kind == "CheXzero" else {"state_dict": state}, model_args={"num_heads": 2})
    assert done.match.name == "chexzero"
    assert relative_difference(tokens_of(source, X)[:, 0], imported(X)) <= 1e-5


MMENGINE = {"meta": {"epoch": 300, "time": datetime.datetime(2023, 1, 1)}, "message_hub": {"log_scalars": {}, "runtime_info": {}}}


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("pooled", ["cls_token", "avg_featmap"])
def test_vision_transformer_of_mmpretrain(tmp_path, averaged, pooled):
    source = randomised(SourceVit())
    norm, source.norm = source.norm, nn.Identity()
    names = MMPRETRAIN if pooled == "cls_token" else (*MMPRETRAIN, (r"^ln1\.", "ln2."))
    whole = source.state_dict() | {f"norm.{key}": value for key, value in norm.state_dict().items()}
    content = {"state_dict": renamed(whole, names, "backbone.") | {"head.fc.weight": torch.zeros(2, 192)}, **MMENGINE}
    if averaged:  # EMAHook exchanges the two on saving: `state_dict` is the averaged one
        content["ema_state_dict"] = {f"module.{key}": value * 2 for key, value in content["state_dict"].items()} | {"steps": torch.ones(())}
    done = run(tmp_path, content)
    assert done.match.name == ("mmpretrain_averaged" if averaged else "mmpretrain")
    with torch.no_grad():
        want = norm(source(X))[:, 0] if pooled == "cls_token" else norm(source(X)[:, 1:].mean(1))
    assert relative_difference(want, imported(X)) <= 1e-5


@pytest.mark.parametrize(("averaged", "args"), [(True, {}), (False, {"caffe_strides": True})])
def test_resnet_of_mmpretrain(tmp_path, averaged, args):
    source = randomised(torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1]))
    state = {key: value for key, value in prefixed("backbone.", source).items() if ".fc." not in key}
    content = {"state_dict": state | {"head.fc.weight": torch.zeros(2, 2048)}, **MMENGINE}
    if averaged:
        content["ema_state_dict"] = {f"module.{key}": value * 2 for key, value in content["state_dict"].items()} | {"steps": torch.ones(())}
    done = run(tmp_path, content, arch="resnet50", size=64, model_args={"layers": [1, 1, 1, 1], **args})
    source.fc = nn.Identity()
    for block in source.modules() if args else ():
        if isinstance(block, torchvision.models.resnet.Bottleneck):  # style="caffe"
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
    assert done.match.name == ("mmpretrain_averaged" if averaged else "mmpretrain")
    assert relative_difference(tokens_of(source, X), imported(X)) <= 1e-5


def test_an_average_that_mmengine_did_not_exchange_is_taken_where_it_stands(tmp_path):
    source = randomised(torchvision.models.resnet18())
    content = {"state_dict": prefixed("backbone.", source, 2) | {"head.weight": torch.zeros(2, 512)}}
    content["ema_state_dict"] = prefixed("module.backbone.", source) | {"n_averaged": torch.ones(())}  # torch.optim.swa_utils.AveragedModel
    done = run(tmp_path, content, size=64)
    source.fc = nn.Identity()
    assert "EMA" in done.match.role
    assert relative_difference(tokens_of(source, X), imported(X)) <= 1e-5
