"""Files of published sources, with random weights and small networks: what is imported gives the features of the source's own module."""

import argparse

import pytest
import timm
import torch
import torchvision
from torch import nn

from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.zoo import zoo
from tests.encoders.importing.sources import IMAGENET, VIT, prefixed, randomised, relative_difference, save

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def imported(x, name="theirs"):
    with torch.no_grad():
        return zoo.load_encoder(name).model.to(memory_format=torch.contiguous_format)(x)


def transformers_model(name):
    transformers = pytest.importorskip("transformers")
    wide = {**SMALL, "intermediate_size": 256}
    dinov3 = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "num_register_tokens": 4}
    build = {
        "dinov2": lambda t: t.Dinov2Model(t.Dinov2Config(**SMALL)),
        "dinov2 SwiGLU": lambda t: t.Dinov2Model(t.Dinov2Config(**SMALL, use_swiglu_ffn=True)),
        "dinov2 registers": lambda t: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3)),
        "dinov2 classifier": lambda t: t.Dinov2ForImageClassification(t.Dinov2Config(**SMALL)),
        "vit": lambda t: t.ViTModel(t.ViTConfig(**wide)),
        "vit classifier": lambda t: t.ViTForImageClassification(t.ViTConfig(**wide)),
        "mae": lambda t: t.ViTMAEModel(t.ViTMAEConfig(**wide, mask_ratio=0.0)),
        "mae pretraining": lambda t: t.ViTMAEForPreTraining(
            t.ViTMAEConfig(**wide, mask_ratio=0.0, decoder_hidden_size=32, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
        ),
        "dinov3": lambda t: t.DINOv3ViTModel(t.DINOv3ViTConfig(**{**SMALL, **dinov3})),
    }
    return randomised(build[name](transformers))


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("dinov2", "hf_dinov2"),
        ("dinov2 SwiGLU", "hf_dinov2"),
        ("dinov2 registers", "hf_dinov2"),
        ("dinov2 classifier", "hf_dinov2"),
        ("vit", "hf_vit"),
        ("vit classifier", "hf_vit"),
        ("mae", "hf_vit"),
        ("mae pretraining", "hf_vit"),
        ("dinov3", "hf_dinov3"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_transformers(tmp_path, source, family):
    model = transformers_model(source)
    model.save_pretrained(tmp_path)
    heads = {} if source == "dinov3" else {"num_heads": 4}
    done = import_encoder(tmp_path / "model.safetensors", ImportSettings(**IMAGENET, model_args=heads), "theirs")
    inner = next((getattr(model, name) for name in ("vit", "dinov2") if hasattr(model, name)), model)
    with torch.no_grad():
        want = inner(X).last_hidden_state[:, 0]
    assert done.match.name == family
    assert not done.report.unexplained
    assert relative_difference(want, imported(X)) <= 1e-5


@pytest.mark.filterwarnings("ignore")
def test_positions_of_transformers_are_resampled_by_its_rule_once_and_again(tmp_path):
    model = transformers_model("dinov2")
    model.save_pretrained(tmp_path)
    settings = ImportSettings(**IMAGENET, model_args={"num_heads": 4})
    done = import_encoder(tmp_path / "model.safetensors", settings.or_else(ImportSettings(size=96)), "theirs")
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        want = model(x).pooler_output
    assert done.report.resampled["pos_embed"][1] == "4x4 -> 6x6, bicubic, not antialiased (transformers)"
    assert relative_difference(want, imported(x)) <= 1e-6
    import_encoder(tmp_path / "model.safetensors", settings, "native")
    assert relative_difference(want, imported(x, "native:size=96")) <= 1e-6  # the rule is on the card
    timm_rule = settings.or_else(ImportSettings(size=32, position_resampling="timm"))
    import_encoder(tmp_path / "model.safetensors", timm_rule, "shrunk")
    with torch.no_grad():
        assert relative_difference(model(X[..., :32, :32]).pooler_output, imported(X[..., :32, :32], "shrunk")) > 1e-4


def cut(attribute, keep):
    """Leaves the first `keep` layers of the classifier, those that are part of the pooled feature in timm."""

    def change(model):
        layers = list(getattr(model, attribute).children())[:keep]
        setattr(model, attribute, nn.Sequential(*layers))
        return model.eval()

    return change


@pytest.mark.parametrize(
    ("build", "features", "arch"),
    [
        ("mobilenet_v2", cut("classifier", 0), "mobilenetv2_100"),
        ("mobilenet_v3_small", cut("classifier", 2), "mobilenetv3_small_100"),
        ("efficientnet_b0", cut("classifier", 0), "efficientnet_b0"),
        ("convnext_tiny", cut("classifier", 2), "convnext_tiny"),
    ],
)
def test_torchvision_networks_whose_tensors_have_other_names(tmp_path, build, features, arch):
    source = randomised(getattr(torchvision.models, build)())
    done = import_encoder(save(tmp_path, source.state_dict()), ImportSettings(**IMAGENET, size=64), "theirs")
    with torch.no_grad():
        want = features(source)(X)
    assert done.card.arch == arch
    assert relative_difference(want, imported(X)) <= 1e-5


def vit(**args):
    return randomised(timm.create_model("vit_tiny_patch16_224", **{**VIT, **args}))


def resnet(head="fc"):
    model = randomised(torchvision.models.resnet18())
    if head != "fc":
        setattr(model, head, nn.Linear(512, 4))
    return model


NAMESPACE = argparse.Namespace(lr=0.1)
DECODER = {"decoder_embed.weight": torch.zeros(2, 192), "decoder_pos_embed": torch.zeros(1, 17, 2), "mask_token": torch.zeros(1, 1, 2)}
FILES = {
    "mae": (vit, lambda m: {"model": {**m.state_dict(), **DECODER}, "optimizer": {"state": {}}, "epoch": 1, "args": NAMESPACE}, "mae"),
    "mae fine-tuned": (lambda: vit(global_pool="avg"), lambda m: {"model": {**m.state_dict(), "head.weight": torch.zeros(2, 192)}}, "mae"),
    "dino backbone": (vit, lambda m: m.state_dict(), "plain"),
    "ibot": (vit, lambda m: {"teacher": {**prefixed("backbone.", m), "head.mlp.0.weight": torch.zeros(2, 192)}, "args": NAMESPACE}, "dino"),
    "dinov2 blocks": (
        lambda: randomised(timm.create_model("vit_tiny_patch16_224", init_values=1e-5, **VIT)),
        lambda m: {"teacher": {
            **{f"backbone.{k}".replace("blocks.", "blocks.0."): v for k, v in m.state_dict().items()},
            "backbone.mask_token": torch.zeros(1, 192), "dino_head.mlp.0.weight": torch.zeros(2, 192)}},
        "dinov2_training",
    ),
    "swav": (resnet, lambda m: prefixed("module.", nn.ModuleDict({"prototypes": nn.Linear(4, 4)})) | {
        f"module.{k}": v for k, v in m.state_dict().items() if not k.startswith("fc")}, "swav"),
    "barlow": (resnet,
      lambda m: {"model": prefixed("module.backbone.", m) | {"module.projector.0.weight": torch.zeros(2, 512)}}, "barlow_vicreg"),
    "moco": (resnet, lambda m: {"state_dict": prefixed("module.encoder_q.", m)}, "moco"),
    "mocov3 resnet": (resnet,
      lambda m: {"state_dict": prefixed("module.base_encoder.", m) | prefixed("module.momentum_encoder.", m, 2)}, "mocov3"),
    "lightly": (vit, lambda m: {"state_dict": prefixed("backbone.vit.", m) | {"projection_head.0.weight": torch.zeros(2)}}, "lightly"),
    "lightly teacher": (resnet,
      lambda m: {"state_dict": prefixed("student_backbone.", m, 2) | prefixed("teacher_backbone.", m)}, "lightly"),
    "lightly both": (resnet, lambda m: {"state_dict": prefixed("student_backbone.", m, 2) | prefixed("backbone.", m)}, "lightly"),
    "stable-pretraining": (vit,
      lambda m: {"state_dict": prefixed("backbone.student.", m, 2) | prefixed("backbone.teacher.", m)}, "lightly"),
    "solo-learn": (resnet, lambda m: {"state_dict": prefixed("backbone.", m) | prefixed("momentum_backbone.", m, 2)}, "lightly"),
    "open_clip": (vit,
      lambda m: prefixed("visual.trunk.", m) | {"visual.head.proj.weight": torch.zeros(3, 192), "logit_scale": torch.ones(1)}, "open_clip"),
    "compiled": (resnet, lambda m: {"model": prefixed("_orig_mod.module.", m)}, "plain"),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_as_their_sources_write_them(tmp_path, name):
    build, write, family = FILES[name]
    source = build()
    done = import_encoder(save(tmp_path, write(source)), ImportSettings(**IMAGENET, size=64), "theirs")
    if hasattr(source, "fc"):
        source.fc = nn.Identity()
    with torch.no_grad():
        want = source.eval()(X)
    assert done.match.name == family
    assert relative_difference(want, imported(X)) == 0


def test_torchxrayvision_has_its_range_and_one_channel(tmp_path):
    source = torchvision.models.densenet121()
    source.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    source = randomised(source)
    file = save(tmp_path, {**source.state_dict(), "op_threshs": torch.zeros(18)})
    done = import_encoder(file, ImportSettings(size=64), "theirs")
    assert done.match.name == "torchxrayvision"
    source.classifier = nn.Identity()
    pixels = torch.randint(0, 256, (2, 64, 64, 1)).numpy()
    prepared = torch.from_numpy((2 * (pixels / 255.0) - 1.0) * 1024).float().permute(0, 3, 1, 2)  # torchxrayvision.utils.normalize
    with torch.no_grad():
        want = source(prepared)
    encoder = zoo.load_encoder("theirs")
    assert torch.allclose(encoder.prepare(pixels / 255.0), prepared, atol=1e-3)
    assert relative_difference(want, encoder.encode(pixels.astype("uint8"))) <= 1e-5
