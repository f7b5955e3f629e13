"""Files as published sources write them, from installed libraries with random weights: the import gives the source's features."""

import argparse
import sys
import types

import pytest
import timm
import torch
import torchvision
from torch import nn

from encoders.importing.family_data import family_book
from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.zoo import zoo
from tests.encoders.importing.sources import VIT, prefixed, randomised, relative_difference, save

X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
NAMESPACE = argparse.Namespace(lr=0.1)
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 64, "patch_size": 16}


def imported(x=X):
    with torch.no_grad():
        return zoo.load_encoder("theirs").model.to(memory_format=torch.contiguous_format)(x)


def features(source, x=X):
    with torch.no_grad():
        return source(x)


def vit(**args):
    return randomised(timm.create_model("vit_tiny_patch16_224", **{**VIT, **args}))


def without_classifier(model):
    for name in ("fc", "classifier"):
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    return model


def run(file, family=None, **settings):
    done = import_encoder(file, ImportSettings(family=family, **settings), "theirs")
    assert not done.report.unexplained
    assert family in (None, done.match.name)
    return done


# transformers: named with --family


def hugging_face(family):
    t = pytest.importorskip("transformers")
    patch14 = {**SMALL, "image_size": 56, "patch_size": 14}
    if family == "phikon":
        return t.ViTModel(t.ViTConfig(**SMALL, intermediate_size=256), add_pooling_layer=False)
    if family == "hibou":
        return t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**patch14, num_register_tokens=4))
    sizes = SMALL if family == "phikon_v2" else patch14
    return t.Dinov2Model(t.Dinov2Config(**sizes, use_swiglu_ffn=family == "midnight"))


@pytest.mark.parametrize("family", ["rad_dino", "phikon", "phikon_v2", "midnight", "hibou"])
@pytest.mark.filterwarnings("ignore")
def test_encoders_saved_by_transformers(tmp_path, family):
    source = randomised(hugging_face(family))
    source.save_pretrained(tmp_path)
    done = run(tmp_path / "model.safetensors", family, model_args={"num_heads": 4})
    x = X[..., : source.config.image_size, : source.config.image_size]
    assert relative_difference(features(source, x).last_hidden_state[:, 0], imported(x)) <= 1e-5
    expected = family_book().families[family].pixels
    assert done.card.preprocess.std == tuple(expected["std"])


@pytest.mark.filterwarnings("ignore")
def test_midnight_gives_the_class_token_and_the_mean_of_the_patches_on_request(tmp_path):
    source = randomised(hugging_face("midnight"))
    source.save_pretrained(tmp_path)
    run(tmp_path / "model.safetensors", "midnight", model_args={"num_heads": 4}, feature="cls+mean")
    x = X[..., :56, :56]
    tokens = features(source, x).last_hidden_state
    assert relative_difference(torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1), imported(x)) <= 1e-5


@pytest.mark.filterwarnings("ignore")
def test_positions_of_rad_dino_at_another_size_are_those_of_transformers(tmp_path):
    source = randomised(hugging_face("rad_dino"))
    source.save_pretrained(tmp_path)
    run(tmp_path / "model.safetensors", "rad_dino", model_args={"num_heads": 4}, size=42)
    x = X[..., :42, :42]
    assert relative_difference(features(source, x).last_hidden_state[:, 0], imported(x)) <= 1e-5


# EVA-X


def eva_names(source, gated):
    """timm's names -> those of pretraining, whose last norm is `norm`."""
    renames = (
        [(".mlp.fc1_g.", ".mlp.w1."), (".mlp.fc1_x.", ".mlp.w2."), (".mlp.fc2.", ".mlp.w3."), (".mlp.norm.", ".mlp.ffn_ln."),
         (".attn.q_proj.bias", ".attn.q_bias"), (".attn.v_proj.bias", ".attn.v_bias")]
        if gated else [(".mlp.fc1.", ".mlp.w12."), (".mlp.fc2.", ".mlp.w3.")]
    )  # fmt: skip
    out = {}
    for key, value in source.state_dict().items():
        for old, new in [*renames, ("fc_norm.", "norm.")]:
            key = key.replace(old, new)
        out[key] = value
    width = source.embed_dim
    out |= {"mask_token": torch.zeros(1, 1, width), "lm_head.weight": torch.zeros(4, width), "lm_head.bias": torch.zeros(4)}
    return out | {"rope.freqs_cos": torch.zeros(16, 64), "blocks.0.attn.rope.freqs_sin": torch.zeros(16, 64)}


@pytest.mark.parametrize("place", ["model_ema", "model", "module", "state_dict", None])
@pytest.mark.parametrize(
    ("args", "gated", "arch"),
    [
        ({"embed_dim": 192, "num_heads": 3}, False, "eva02_tiny_patch14_224"),
        ({"embed_dim": 768, "num_heads": 12, "qkv_fused": False, "scale_mlp": True}, True, "eva02_base_patch14_224"),
    ],
)
def test_eva_x(tmp_path, args, gated, arch, place):
    sizes = {"img_size": 64, "patch_size": 16, "depth": 1, "mlp_ratio": 4 * 2 / 3, "ref_feat_shape": (4, 4), "num_classes": 0}
    source = randomised(timm.models.eva.Eva(**sizes, **args, swiglu_mlp=True, use_rot_pos_emb=True))  # as in eva_x.py, smaller
    state = eva_names(source, gated)
    content = state if place is None else {place: state} if place != "model_ema" else {"model": prefixed("", source, 2), place: state}
    done = run(save(tmp_path, content))
    assert (done.match.name, done.card.arch) == ("evax_averaged" if place == "model_ema" else "evax", arch)
    assert done.card.preprocess.mean == (0.49185243,) * 3
    assert relative_difference(features(source), imported()) <= 1e-5


@pytest.mark.parametrize("place", [None, "model", "module", "model_ema"])
@pytest.mark.parametrize("original", [True, False])
def test_eva02_of_natural_images_is_not_taken_for_eva_x(tmp_path, place, original):
    source = randomised(timm.create_model("eva02_tiny_patch14_224", img_size=56, ref_feat_shape=[4, 4], depth=1, num_classes=0))
    state = eva_names(source, gated=False) if original else source.state_dict()
    file = save(tmp_path, state if place is None else {place: state})
    with pytest.raises(InputError, match="pass --mean and --std"):
        import_encoder(file, ImportSettings())
    run(file, mean=(0.5,), std=(0.25,))
    x = X[..., :56, :56]
    assert relative_difference(features(source, x), imported(x)) <= 1e-5


# Chest radiographs and pathology


@pytest.mark.parametrize(
    ("build", "family"),
    [
        (torchvision.models.resnet18, "moco_cxr"),
        (torchvision.models.densenet121, "moco_cxr"),
        (torchvision.models.resnet18, "moco"),
    ],
)
def test_moco_files(tmp_path, build, family):
    source = randomised(build())
    state = prefixed("module.encoder_q.", source) | prefixed("module.encoder_k.", source, 2) | {"module.queue": torch.zeros(2, 3)}
    content = {"epoch": 1, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}
    done = run(save(tmp_path, content), family)
    assert (done.match.role, done.card.preprocess.size) == ("query encoder", 320 if family == "moco_cxr" else 224)
    assert relative_difference(features(without_classifier(source)), imported()) <= 1e-5


@pytest.mark.parametrize("kind", ["pretrained", "fine-tuned"])
def test_medical_mae(tmp_path, kind):
    source = vit(global_pool="avg" if kind == "fine-tuned" else "token")
    state = source.state_dict() | (
        {"head.weight": torch.zeros(14, 192), "head.bias": torch.zeros(14)}
        if kind == "fine-tuned"
        else {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 192), "decoder_pos_embed": torch.zeros(1, 17, 8)}
    )
    run(save(tmp_path, {"model": state, "optimizer": {}, "scaler": {}, "epoch": 800, "args": NAMESPACE}), "medical_mae")
    assert relative_difference(features(source), imported()) == 0


@pytest.mark.parametrize("patch", [8, 16])
def test_lunit_vision_transformers(tmp_path, patch):
    source = vit(patch_size=patch)
    run(save(tmp_path, source.state_dict()), "lunit_vit")
    assert relative_difference(features(source), imported()) == 0


def test_lunit_resnet50(tmp_path):
    source = randomised(torchvision.models.resnet50())
    state = {key: value for key, value in source.state_dict().items() if not key.startswith("fc.")}
    done = run(save(tmp_path, state), "lunit_resnet50")
    assert done.card.arch == "resnet50"
    assert relative_difference(features(without_classifier(source)), imported()) <= 1e-5


def test_transpath_of_moco_v3_has_twelve_heads(tmp_path):
    source = vit(num_heads=12)
    state = prefixed("module.base_encoder.", source) | prefixed("module.momentum_encoder.", source, 2)
    state |= {"module.base_encoder.head.0.weight": torch.zeros(2, 192), "module.predictor.0.weight": torch.zeros(2, 2)}
    run(save(tmp_path, {"epoch": 1, "arch": "vit_small", "state_dict": state, "scaler": {}}), "transpath_mocov3")
    assert relative_difference(features(source), imported()) == 0


def test_image_tower_of_biomedclip(tmp_path):
    source = vit()
    state = prefixed("visual.trunk.", source) | {"visual.head.proj.weight": torch.zeros(16, 192), "logit_scale": torch.ones(())}
    state |= {"text.transformer.embeddings.word_embeddings.weight": torch.zeros(5, 8), "text.proj.0.weight": torch.zeros(16, 8)}
    run(save(tmp_path, state), "biomedclip")
    assert relative_difference(features(source), imported()) == 0


def test_a_pickled_module_of_torchxrayvision(tmp_path, monkeypatch):
    models = types.ModuleType("torchxrayvision_of_this_test")

    class DenseNet(nn.Module):
        def __init__(self):
            super().__init__()
            inner = torchvision.models.densenet121()
            self.features, self.classifier = inner.features, nn.Linear(1024, 18)
            self.features.conv0 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
            self.register_buffer("op_threshs", torch.zeros(18))

        def features2(self, x):
            return torch.relu(self.features(x)).mean((2, 3))

    DenseNet.__module__, DenseNet.__qualname__, models.DenseNet = models.__name__, "DenseNet", DenseNet
    monkeypatch.setitem(sys.modules, models.__name__, models)
    source = randomised(DenseNet())
    torch.save(source, tmp_path / "model.pt")
    monkeypatch.delitem(sys.modules, models.__name__)  # reading the file must not need its class
    done = run(tmp_path / "model.pt", size=64)
    x = (X[:, :1] * 2 - 1) * 1024
    assert (done.match.name, done.card.preprocess.channels) == ("torchxrayvision", 1)
    with torch.no_grad():
        assert relative_difference(source.features2(x), imported(x)) <= 1e-5
