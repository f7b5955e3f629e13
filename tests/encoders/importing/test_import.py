"""Importing files: the network meant for evaluation is taken, every tensor is accounted for, and what does not fit is refused."""

import argparse

import pytest
import timm
import torch
import torchvision

from encoders.importing.checkpoint import read_checkpoint
from encoders.importing.families import list_paths
from encoders.importing.import_file import import_encoder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import backbone, zoo
from tests.encoders.importing.sources import IMAGENET, VIT, prefixed, randomised, relative_difference, save

HALF = {"mean": (0.5,), "std": (0.25,)}
X = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def vit(**args):
    return randomised(timm.create_model("vit_tiny_patch16_224", **{**VIT, **args}))


def run(tmp_path, content, name="theirs", **settings):
    file = save(tmp_path, content)
    done = import_encoder(file, ImportSettings(**{**HALF, **settings}), name)
    assert done.report.file_tensors() == len(list_paths(read_checkpoint(file)))  # every tensor is accounted for
    return done


def features(name="theirs", x=X):
    """The network's features of prepared images, computed as the source does, without a channels-last layout."""
    with torch.no_grad():
        return zoo.load_encoder(name).model.to(memory_format=torch.contiguous_format)(x)


def assert_is(source, name="theirs", x=X, limit=0.0):
    with torch.no_grad():
        assert relative_difference(source(x), features(name, x)) <= limit


# Each of these was silent before: another network, or another function, was imported.


@pytest.mark.parametrize(
    ("content", "takes"),
    [
        (
            lambda m: {"encoder": prefixed("module.", m, 2), "predictor": {"a": torch.zeros(1)}, "target_encoder": prefixed("module.", m)},
            "target",
        ),
        (lambda m: {"state_dict": prefixed("", m, 2), "state_dict_ema": prefixed("", m), "args": argparse.Namespace(lr=1)}, "EMA"),
        (lambda m: {"student": prefixed("module.backbone.", m, 2), "teacher": prefixed("backbone.", m)}, "teacher"),
        (lambda m: {"model": prefixed("", m, 2), "model_ema": prefixed("module.", m)}, "EMA"),
        (lambda m: {"state_dict": prefixed("", m, 2), "ema_state_dict": prefixed("", m)}, "ema_state_dict"),
        (lambda m: {"state_dict": {**prefixed("model.", m, 2), **prefixed("ema_model.module.", m)}}, "ema_model"),
        (lambda m: {"net": prefixed("_orig_mod.", m, 2), "averaged": prefixed("module._orig_mod.", m)}, "averaged"),
    ],
)
@pytest.mark.parametrize("build", ["vit", "resnet10t"])
def test_the_network_meant_for_evaluation_is_taken_and_said(tmp_path, content, takes, build):
    known = build == "vit"
    source = vit() if known else randomised(timm.create_model("resnet10t", num_classes=0))
    if takes == "target" and not known:
        pytest.skip("I-JEPA has no ResNet")
    state = content(source)
    if takes == "target":
        source = vit(class_token=False, global_pool="avg", fc_norm=False)
        state = content(source)
    done = run(tmp_path, state, **({} if known else {"arch": "resnet10t", "size": 64}))
    assert takes in done.match.role
    assert len(done.match.roles) > 1
    assert done.card.lineage["network"] == done.match.role
    assert_is(source)


def test_ark_gives_its_teacher(tmp_path):
    args = {"embed_dim": 24, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2], "num_classes": 0}
    source = randomised(timm.create_model("swin_tiny_patch4_window7_224", **args))
    student, teacher = prefixed("module.", source, 2), prefixed("module.", source) | {"module.omni_heads.0.weight": torch.zeros(2, 192)}
    done = run(tmp_path, {"state_dict": student, "teacher": teacher})
    assert (done.match.name, done.match.role, done.match.roles) == ("ark", "teacher", ("teacher", "student"))
    assert_is(source, x=torch.rand(1, 3, 224, 224), limit=1e-6)


def dinov3(arch="vit_small_patch16_dinov3_qkvb"):
    source = randomised(timm.create_model(arch, depth=1, num_classes=0, global_pool="token"))
    drop = ("q_bias", "v_bias", "gamma_1", "gamma_2")
    state = {key: value for key, value in source.state_dict().items() if not key.endswith(drop)}
    state["storage_tokens"], state["mask_token"] = state.pop("reg_token"), torch.zeros(1, 384)
    block = source.blocks[0]
    q, v = block.attn.q_bias.detach(), block.attn.v_bias.detach()
    state["blocks.0.attn.qkv.bias"] = torch.cat([q, torch.zeros_like(q), v])
    state["blocks.0.attn.qkv.bias_mask"] = torch.cat([torch.ones_like(q), torch.full_like(q, torch.nan), torch.ones_like(q)])
    state["blocks.0.ls1.gamma"], state["blocks.0.ls2.gamma"] = block.gamma_1.detach(), block.gamma_2.detach()
    return source, state


def test_dinov3_has_the_biases_of_queries_and_values_and_the_class_token(tmp_path):
    source, state = dinov3()
    done = run(tmp_path, state, size=64)
    assert done.card.arch == "vit_small_patch16_dinov3_qkvb"
    assert done.card.model_args["global_pool"] == "token"
    assert_is(source)
    with pytest.raises(InputError, match=r"blocks\.0\.attn\.qkv\.bias.*--arch vit_small_patch16_dinov3_qkvb"):
        run(tmp_path, state, "other", size=64, arch="vit_small_patch16_dinov3", model_args={"depth": 1})


@pytest.mark.parametrize(
    ("patch", "arch", "args"),
    [
        (8, "vit_tiny_patch16_224", {"depth": 2}),
        (32, "vit_tiny_patch16_224", {"depth": 2}),
        (16, "vit_base_patch8_224", {"depth": 2, "embed_dim": 192, "num_heads": 3}),
    ],
)
def test_another_patch_size_is_refused_without_resample(tmp_path, patch, arch, args):
    state = vit(patch_size=patch).state_dict()
    with pytest.raises(InputError, match=rf"another shape, first: patch_embed\.proj\.weight.*patch{patch}_|patch_size={patch}") as caught:
        run(tmp_path, state, arch=arch, model_args=args, size=64)
    assert "--resample" in str(caught.value)
    done = run(tmp_path, state, arch=arch, model_args=args, size=64, resample=True)
    assert f"{patch}x{patch} -> " in done.report.resampled["patch_embed.proj.weight"][1]


def test_evax_of_patch_16_is_not_resampled_to_patch_14(tmp_path):
    source = randomised(
        timm.create_model("eva02_tiny_patch14_224", patch_size=16, ref_feat_shape=[4, 4], depth=1, img_size=64, num_classes=0)
    )
    with pytest.raises(InputError, match=r"patch_embed\.proj\.weight.*eva02_tiny_patch14_224.*patch_size=16"):
        run(tmp_path, source.state_dict(), arch="eva02_tiny_patch14_224", model_args={"depth": 1}, size=56)
    done = run(tmp_path, source.state_dict(), family="evax")
    assert done.card.model_args["patch_size"] == 16
    assert_is(source, limit=1e-6)


def test_registers_are_not_dropped(tmp_path):
    source = randomised(timm.create_model("vit_small_patch14_reg4_dinov2", depth=1, img_size=56, num_classes=0))
    with pytest.raises(InputError, match=r"no place in the network, first reg_token.*--arch vit_small_patch14_reg4_dinov2"):
        run(tmp_path, source.state_dict(), arch="vit_small_patch14_dinov2", model_args={"depth": 1}, size=56)
    run(tmp_path, source.state_dict())
    assert_is(source, x=torch.rand(1, 3, 56, 56))


@pytest.mark.parametrize("arch", [None, "vit_tiny_patch16_224"])
@pytest.mark.parametrize("layout", ["moco_v3", "solo_mocov3"])
def test_heads_are_those_of_the_family(tmp_path, arch, layout):
    source = vit(num_heads=12)
    if layout == "moco_v3":
        state, family = {"state_dict": prefixed("module.base_encoder.", source)}, None
    else:
        state, family = {"state_dict": prefixed("backbone.", source)}, "solo_mocov3"
    done = run(tmp_path, state, family=family, arch=arch, size=64, model_args={"depth": 2} if arch else {})
    assert zoo.load_encoder("theirs").model.blocks[0].attn.num_heads == 12
    assert any("num_heads=12" in note for note in done.notes)
    assert_is(source)
    run(tmp_path, state, "other", family=family, model_args={"num_heads": 3})
    assert zoo.load_encoder("other").model.blocks[0].attn.num_heads == 3


def test_quick_gelu_and_eps_of_openai_clip(tmp_path):
    source = randomised(timm.create_model("vit_base_patch32_clip_quickgelu_224", depth=1, embed_dim=128, num_heads=2, num_classes=0))
    done = run(tmp_path, prefixed("visual.", _openai_names(source)), model_args={"num_heads": 2})
    assert done.match.name == "chexzero"
    assert_is(source, x=torch.rand(1, 3, 224, 224), limit=1e-6)


class _openai_names:
    """A state dict under OpenAI's names."""

    def __init__(self, source):
        self.source = source

    def state_dict(self):
        out = {"proj": torch.zeros(128, 16)}
        names = {"cls_token": "class_embedding", "pos_embed": "positional_embedding", "patch_embed.proj.weight": "conv1.weight"}
        for key, value in self.source.state_dict().items():
            if key in names:
                out[names[key]] = value if value.ndim == 4 else value.squeeze(0).squeeze(0) if key == "cls_token" else value[0]
                continue
            for old, new in (("norm_pre.", "ln_pre."), ("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj.")):
                key = key.replace(old, new)
            key = (
                key.replace("mlp.fc1.", "mlp.c_fc.")
                .replace("mlp.fc2.", "mlp.c_proj.")
                .replace(".norm1.", ".ln_1.")
                .replace(".norm2.", ".ln_2.")
            )
            key = (
                key.replace("blocks.", "transformer.resblocks.").replace("norm.", "ln_post.")
                if key.startswith(("blocks", "norm."))
                else key
            )
            out[key] = value
        return out


@pytest.mark.parametrize(
    ("args", "change"),
    [
        ({"stem_stride": 1}, lambda m: setattr(m.conv1, "stride", (1, 1))),
        ({"caffe_strides": True}, lambda m: _caffe(m)),
        ({"batch_norm_eps": 0.1}, lambda m: [setattr(x, "eps", 0.1) for x in m.modules() if isinstance(x, torch.nn.BatchNorm2d)]),
    ],
)
def test_strides_and_eps_that_tensors_do_not_show_are_on_the_card(tmp_path, args, change):
    source = randomised(torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1]))
    state, layers = source.state_dict(), {"layers": [1, 1, 1, 1]}
    source.fc = torch.nn.Identity()
    run(tmp_path, state, "plain", size=64, arch="resnet50", model_args=layers)
    change(source)
    done = run(tmp_path, state, size=64, arch="resnet50", model_args=args | layers)
    assert done.card.model_args == args | layers
    assert_is(source, limit=1e-5)
    with torch.no_grad():
        assert relative_difference(source(X), features("plain")) > 1e-3
    assert done.card.canary != zoo.find_encoder("plain").card.canary


def _caffe(model):
    for block in model.modules():
        if isinstance(block, torchvision.models.resnet.Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)


def test_resize_256_crop_224_is_expressible(tmp_path):
    file = save(tmp_path, randomised(torchvision.models.resnet18()).state_dict())
    done = import_encoder(file, ImportSettings(**IMAGENET, crop_pct=0.875, interpolation="bilinear"), "cropped")
    whole = import_encoder(file, ImportSettings(**IMAGENET, interpolation="bilinear"), "whole")
    assert done.card.preprocess.crop_pct == 0.875
    assert done.card.canary != whole.card.canary
    image = (torch.rand(300, 280, 3, generator=torch.Generator().manual_seed(2)) * 255).byte()
    transform = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.transforms()
    want = transform(image.permute(2, 0, 1))
    got = zoo.load_encoder("cropped").prepare(image.float()[None].numpy() / 255)[0]
    assert got.shape == want.shape
    assert (got - want).abs().max() < 0.02  # torchvision resizes bytes: half a gray level of 255, divided by std


# What was refused or crashed, and what is still refused.


def test_positions_of_another_size_are_resampled_and_reported(tmp_path):
    done = run(tmp_path, vit(img_size=96).state_dict(), size=64)
    assert done.report.resampled["pos_embed"][1] == "6x6 -> 4x4, bicubic, antialiased (timm)"
    assert zoo.load_encoder("theirs").encode(X, "tokens").shape == (2, 16, 192)
    assert run(tmp_path, vit(img_size=96).state_dict(), "native").card.preprocess.size == 96


def test_heads_are_dropped_and_reported_and_wrappers_and_prefixes_removed(tmp_path):
    whole = timm.create_model("resnet10t", num_classes=5)
    state = {**prefixed("module.encoder_q.", whole), "module.queue": torch.zeros(3)}
    done = run(tmp_path, {"state_dict": state, "epoch": 3}, arch="resnet10t", size=64)
    assert done.report.dropped == {"fc.weight": "classifier", "fc.bias": "classifier"}
    assert list(done.report.outside) == ["state_dict:module.queue"]
    assert "nothing proves" in done.warnings[0]
    whole.reset_classifier(0)
    assert_is(whole.eval())


def test_a_file_with_two_networks_needs_a_choice(tmp_path):
    state = randomised(timm.create_model("resnet10t", num_classes=0)).state_dict()
    both = {f"{side}.{k}": v for side in ("first", "second") for k, v in state.items()}
    with pytest.raises(InputError, match=r"several matching networks.*':first\.', ':second\.'; choose one with --prefix"):
        run(tmp_path, both, arch="resnet10t", size=64)
    assert run(tmp_path, both, arch="resnet10t", size=64, prefix="second.").report.loaded == len(state)


def test_places_with_the_same_prefix_are_told_apart(tmp_path):
    source = vit()
    content = {"one": prefixed("net.", source, 2), "two": prefixed("net.", source)}
    with pytest.raises(InputError, match=r"write one of --prefix one:net\., --prefix two:net\."):
        run(tmp_path, content, prefix="net.")
    run(tmp_path, content, prefix="two:net.")
    assert_is(source)


@pytest.mark.parametrize(
    ("arch", "args", "says"),
    [
        ("resnet18", {}, "another shape"),
        ("resnet50", {}, "tensors are not in the file"),
        ("vit_tiny_patch16_224", {}, "tensors are not in the file"),
        ("convnext_atto", {}, "tensors are not in the file"),
        ("resnt", {}, "no network .*called 'resnt'"),
    ],
)
def test_an_arch_that_contradicts_the_file_is_refused(tmp_path, arch, args, says):
    with pytest.raises(InputError, match=says):
        run(tmp_path, timm.create_model("resnet10t", num_classes=0).state_dict(), arch=arch, model_args=args)
    assert not (zoo_dir() / "theirs").exists()


@pytest.mark.parametrize("args", [{"depth": 2}, {"depth": 4}, {"depth": 3, "embed_dim": 384, "num_heads": 6}, {"depth": 3, "mlp_ratio": 2}])
def test_a_vit_of_other_shapes_is_refused_and_the_right_one_named(tmp_path, args):
    with pytest.raises(InputError, match=r"By its shapes the file is --arch vit_.*depth=3"):
        run(tmp_path, vit(depth=3).state_dict(), arch="vit_tiny_patch16_224", model_args=args, size=64)


def test_an_unexplained_tensor_is_refused_until_it_is_dropped_by_name(tmp_path):
    state = {**vit().state_dict(), "adapter.weight": torch.zeros(3), "blocks.0.lora.weight": torch.zeros(3)}
    with pytest.raises(InputError, match=r"2 of the file have no place in the network, first adapter\.weight, blocks\.0\.lora\.weight"):
        run(tmp_path, state)
    with pytest.raises(InputError, match=r"1 of the file have no place in the network, first blocks\.0"):
        run(tmp_path, state, drop=("^adapter",))
    done = run(tmp_path, state, drop=("^adapter", "lora"))
    assert sorted(done.report.dropped) == ["adapter.weight", "blocks.0.lora.weight"]


def test_unknown_pixels_are_asked_for(tmp_path):
    file = save(tmp_path, vit().state_dict())
    with pytest.raises(InputError, match="pass --mean and --std"):
        import_encoder(file, ImportSettings())


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        torch.zeros(3),
        {"epoch": 1},
        {"state_dict": {}},
        {"state_dict": {"a": torch.zeros(2)}},
        {1: torch.zeros(2)},
        {"pos_embed": torch.zeros(1, 5, 192), "patch_embed.proj.weight": torch.zeros(192, 3, 16, 16)},
        {"pos_embed": torch.zeros(5), "patch_embed.proj.weight": torch.zeros(3), "blocks.0.attn.qkv.weight": torch.zeros(3)},
        {"pos_embed": torch.zeros(1, 8, 9), "patch_embed.proj.weight": torch.zeros(9, 3, 2, 2), "blocks.0.attn.qkv.weight": torch.zeros(3)},
        {"encoder": {"w": 3}, "args": argparse.Namespace(a=1)},
        {"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(3), "layer4.0.conv1.weight": torch.zeros(3)},
        {"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(3), "layers.1.downsample.reduction.weight": torch.zeros(3)},
        {"storage_tokens": torch.zeros(3), "blocks.0.attn.qkv.bias": torch.zeros(4)},
        {"class_embedding": torch.zeros(3), "transformer.resblocks.0.ln_1.weight": torch.zeros(3)},
        {"blocks.0.mlp.w1.weight": torch.zeros(3), "pos_embed": torch.zeros(3)},
        {"embeddings.patch_embeddings.weight": torch.zeros(3), "encoder.layer.0.attention.query.weight": torch.zeros(3, 3),
         "encoder.layer.0.layernorm_before.weight": torch.zeros(3)},
    ],
)  # fmt: skip
@pytest.mark.parametrize("arch", [None, "vit_tiny_patch16_224"])
def test_files_that_are_no_network_are_input_errors_without_advice_to_trust_them(tmp_path, content, arch):
    with pytest.raises(InputError) as caught:
        run(tmp_path, content, arch=arch)
    assert not {"trust", "trusted", "weights_only"} & set(str(caught.value).replace("`", " ").split())


def test_a_checkpoint_with_objects_is_read_without_running_them(tmp_path):
    source = vit()
    run(tmp_path, {"model": source.state_dict(), "args": argparse.Namespace(lr=0.1), "optimizer": {"state": {0: {}}}})
    assert_is(source)
    torch.save(source, tmp_path / "module.pth")
    import_encoder(tmp_path / "module.pth", ImportSettings(**HALF), "module")
    assert_is(source, "module")


def test_our_own_files_keep_their_canary(tmp_path):
    from encoders.zoo import register
    from tests.encoders.zoo.small import COLOUR, tiny_card, tiny_network

    folder = zoo.publish_encoder("own", tiny_network(preprocess=COLOUR), tiny_card("own", COLOUR))
    register.export_encoder("own", tmp_path / "own.safetensors")
    card = zoo.Card.read(tmp_path / "own.yaml")
    done = import_encoder(tmp_path / "own.safetensors", ImportSettings(), "again", card)
    assert done.card.canary == zoo.Card.read(folder / "card.yaml").canary
    assert done.card.sha256 == zoo.Card.read(folder / "card.yaml").sha256
    assert done.warnings == ()
    wrong = card.replace(preprocess=COLOUR.model_copy(update={"std": (0.5, 0.5, 0.5)}).model_dump())
    with pytest.raises(InputError, match="its canary differs from that of card"):
        import_encoder(tmp_path / "own.safetensors", ImportSettings(), "other", wrong)


def test_the_tensors_of_any_timm_network_can_be_named_by_arch(tmp_path):
    for arch, size in (
        ("convnextv2_atto", 64),
        ("deit_tiny_distilled_patch16_224", 224),
        ("regnetx_002", 64),
        ("beit_base_patch16_224", 224),
    ):
        args = {"depth": 1} if "patch16" in arch else {}
        source = randomised(timm.create_model(arch, num_classes=3, **args))
        run(tmp_path, source.state_dict(), arch.replace(".", "_"), arch=arch, model_args=args, size=size)
        source.reset_classifier(0)
        assert_is(source.eval(), arch, torch.rand(1, 3, size, size), limit=1e-6)


def test_patches_must_tile_the_image(tmp_path):
    with pytest.raises(InputError, match="choose a size of 64 or 80"):
        run(tmp_path, vit().state_dict(), size=70)


def test_a_built_network_is_what_the_card_says(tmp_path):
    done = run(tmp_path, vit(num_heads=6).state_dict(), model_args={"num_heads": 6})
    again = backbone.build_backbone(done.card.arch, done.card.model_args, 3, done.card.preprocess.size)
    assert again.blocks[0].attn.num_heads == 6
