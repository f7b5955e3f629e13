"""Files written as their sources write them, with random weights: the right network is taken and gives the source's features."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from encoders.importing.checkpoint import read_checkpoint
from encoders.importing.families import FamilyMatch, recognise
from encoders.importing.network_shapes import infer_network
from encoders.runtime.errors import InputError
from encoders.zoo import backbone

VIT = {"depth": 2, "img_size": 64, "num_classes": 0}


def randomised(model):
    """`model` with every parameter and running statistic changed, so that no two tensors are equal."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.02)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.add_(torch.rand_like(buffer))
    return model.eval()


def read(tmp_path, content, **choice) -> FamilyMatch:
    torch.save(content, tmp_path / "w.pth")
    return recognise(read_checkpoint(tmp_path / "w.pth"), **choice)


def assert_same_features(match, source, size, **more):
    """The network of `match` has exactly the tensors of the file, and the features of `source`."""
    rule = match.rule.network
    args = {**match.rule.args, **(match.family.args.get(rule, {}) if isinstance(rule, str) else {})}
    shape = infer_network(rule, match.renamed.tensors, args, 3)
    network = backbone.build_backbone(shape.arch, {**shape.model_args, **more}, 3, size).eval()
    network.load_state_dict(match.renamed.tensors, strict=True)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want, got = source(x), network(x)
    assert want.std() > 0
    assert float((want - got).abs().max() / want.abs().max()) <= 1e-5


def prefixed(prefix, model, factor=1):
    return {f"{prefix}{key}": value * factor for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("build", "head", "size"),
    [
        (torchvision.models.resnet18, "fc", 64),
        (torchvision.models.densenet121, "classifier", 64),
        (lambda: torchvision.models.VisionTransformer(32, 16, 2, 3, 192, 768), "heads", 32),
        (lambda: torchvision.models.swin_t(), "head", 224),
    ],
)
def test_torchvision(tmp_path, build, head, size):
    source = randomised(build())
    match = read(tmp_path, source.state_dict())
    assert match.name == "plain"
    assert match.renamed.dropped
    setattr(source, head, nn.Identity())
    assert_same_features(match, source, size)


def test_query_encoder_of_moco_and_the_families_with_the_same_keys(tmp_path):
    source = randomised(torchvision.models.resnet18())
    content = {**prefixed("module.encoder_q.", source), **prefixed("module.encoder_k.", source, 2), "module.queue": torch.zeros(2, 3)}
    match = read(tmp_path, {"epoch": 1, "state_dict": content})
    assert (match.name, match.role, match.roles) == ("moco", "query encoder", ("query encoder", "key encoder"))
    assert match.alike == ("moco_cxr",)
    assert match.outside["state_dict:module.queue"] == "outside the network"
    source.fc = nn.Identity()
    assert_same_features(match, source, 64)


def test_lightly_sequential(tmp_path):
    source = randomised(torchvision.models.resnet18())
    match = read(tmp_path, {"state_dict": prefixed("backbone.", nn.Sequential(*list(source.children())[:-1]))})
    source.fc = nn.Identity()
    assert_same_features(match, source, 64)


def test_teacher_of_dino_not_the_student(tmp_path):
    source = randomised(timm.create_model("vit_tiny_patch16_224", **VIT))
    match = read(tmp_path, {"student": prefixed("module.backbone.", source, 2), "teacher": prefixed("backbone.", source)})
    assert (match.name, match.role) == ("dino", "teacher")
    assert_same_features(match, source, 64)
    student = read(
        tmp_path, {"student": prefixed("module.backbone.", source), "teacher": prefixed("backbone.", source, 2)}, network="student"
    )
    assert_same_features(student, source, 64)


def test_heads_of_moco_v3(tmp_path):
    source = randomised(timm.create_model("vit_tiny_patch16_224", num_heads=12, **VIT))
    assert_same_features(read(tmp_path, {"state_dict": prefixed("module.base_encoder.", source)}), source, 64)


def test_target_encoder_of_ijepa_and_mean_of_normalised_patches(tmp_path):
    source = randomised(timm.create_model("vit_tiny_patch16_224", class_token=False, global_pool="avg", fc_norm=False, **VIT))
    content = {"encoder": prefixed("module.", source, 2), "predictor": {"a": torch.zeros(1)}, "target_encoder": prefixed("module.", source)}
    match = read(tmp_path, content)
    assert (match.name, match.role) == ("ijepa", "target encoder")
    assert_same_features(match, source, 64)


def test_dinov3_keeps_the_biases_of_queries_and_values(tmp_path):
    source = randomised(timm.create_model("vit_small_patch16_dinov3_qkvb", depth=2, num_classes=0, global_pool="token"))
    state = {key: value for key, value in source.state_dict().items() if not key.endswith(("q_bias", "v_bias", "gamma_1", "gamma_2"))}
    state["storage_tokens"], state["mask_token"] = state.pop("reg_token"), torch.zeros(1, 384)
    for i in range(2):
        block = source.blocks[i]
        q, v = block.attn.q_bias, block.attn.v_bias
        state[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v]).detach()
        state[f"blocks.{i}.ls1.gamma"], state[f"blocks.{i}.ls2.gamma"] = block.gamma_1.detach(), block.gamma_2.detach()
    match = read(tmp_path, state)
    assert match.family.feature == "cls"
    assert_same_features(match, source, 64, global_pool="token")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"model": {"patch_embed.proj.6.weight": torch.zeros(3)}}, "CTransPath, which cannot be imported"),
        ({"patch_embed.proj.3.weight": torch.zeros(3)}, "convolutional stem"),
        ({"state_dict": {"backbone.conv1.weight": torch.zeros(64, 3, 3, 3)}}, "3x3 first convolution"),
        ({"a.b": torch.zeros(3)}, "not a file of any family"),
    ],
)
def test_what_timm_has_no_network_for_is_refused_by_name(tmp_path, state, says):
    with pytest.raises(InputError, match=says):
        read(tmp_path, state)
