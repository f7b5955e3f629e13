import pytest
import timm
import torch

from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.card import Preprocess
from encoders.zoo.grayscale_stem import find_foldable_stem, to_one_channel
from encoders.zoo.preprocess import prepare_input

TINY_VIT = {"depth": 2}
NETWORKS = [
    ("resnet10t", {}, 64),
    ("mobilenetv2_050", {"pad_type": "same"}, 64),
    ("mobilenetv3_small_050", {}, 64),  # pooled features are wider than its last map
    ("densenet121", {}, 64),
    ("convnext_atto", {}, 64),
    ("vit_tiny_patch16_224", TINY_VIT, 64),
    ("vit_tiny_patch16_224", {**TINY_VIT, "global_pool": "avg"}, 64),
    ("vit_small_patch14_reg4_dinov2", {"depth": 1}, 56),  # class token and four registers
    ("swin_tiny_patch4_window7_224", {"depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "embed_dim": 24}, 224),  # channels last
]


def images(channels, size, b=3):
    return torch.rand(b, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("arch", "args", "size"), NETWORKS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pooled_and_token_features_of_any_network(arch, args, size, channels):
    model = backbone.build_backbone(arch, args, channels, size, seed=0).eval()
    x = images(channels, size)
    with torch.no_grad():
        pooled, tokens = backbone.pooled_features(model, x), backbone.token_features(model, x)
    assert pooled.shape == (3, backbone.feature_dim(model))
    assert tokens.ndim == 3
    assert tokens.shape[::2] == (3, model.num_features)
    cells = int(tokens.shape[1] ** 0.5)
    assert cells * cells == tokens.shape[1] >= 4


def test_pooled_is_the_networks_own_pooling():
    vit, x = backbone.build_backbone("vit_tiny_patch16_224", TINY_VIT, size=64, seed=0).eval(), images(3, 64)
    mean = backbone.build_backbone("vit_tiny_patch16_224", {**TINY_VIT, "global_pool": "avg"}, size=64, seed=0).eval()
    cnn = backbone.build_backbone("resnet10t", size=64, seed=0).eval()
    with torch.no_grad():
        assert torch.allclose(backbone.pooled_features(vit, x), vit.forward_features(x)[:, 0])  # class token
        assert torch.allclose(backbone.pooled_features(mean, x), mean.fc_norm(backbone.token_features(mean, x).mean(1)), atol=1e-5)
        assert torch.allclose(backbone.pooled_features(cnn, x), backbone.token_features(cnn, x).mean(1), atol=1e-5)


def test_tokens_leave_out_class_and_register_tokens():
    model, x = backbone.build_backbone("vit_small_patch14_reg4_dinov2", {"depth": 1}, size=56, seed=0).eval(), images(3, 56)
    with torch.no_grad():
        tokens = backbone.token_features(model, x)
        patches = model.forward_intermediates(x, indices=1, norm=True, intermediates_only=True)[0]  # (B, D, 4, 4), computed by timm
    assert torch.allclose(tokens, patches.flatten(2).transpose(1, 2), atol=1e-5)


def test_tokens_are_in_row_major_order():
    model = backbone.build_backbone("convnext_atto", size=64, seed=0).eval()
    with torch.no_grad():
        x = images(3, 64)
        assert torch.equal(backbone.token_features(model, x)[:, 1], model.forward_features(x)[:, :, 0, 1])


def test_a_seed_determines_the_weights_and_leaves_the_global_random_state_unchanged():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (backbone.build_backbone("resnet10t", seed=s).state_dict()["conv1.0.weight"] for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize(
    ("arch", "args", "size", "says"),
    [
        ("resnt18", {}, 64, "did you mean resnet18"),
        ("resnet18.a1_in1k", {}, 64, "write resnet18"),
        ("resnet18", {"pad_typ": "same"}, 64, "cannot be built with pad_typ='same'"),
        ("vit_tiny_patch16_224", {}, 70, "choose a size of 64 or 80"),
    ],
)
def test_the_error_for_a_network_that_cannot_be_built_names_the_next_step(arch, args, size, says):
    with pytest.raises(InputError, match=says):
        backbone.build_backbone(arch, args, size=size)


def test_a_network_without_pooling_is_rejected():
    model = backbone.build_backbone("resnet10t", {"global_pool": ""}, size=64, seed=0).eval()
    with pytest.raises(InputError, match="global_pool"):
        backbone.pooled_features(model, images(3, 64))


AUGREG = Preprocess(size=64, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("arch", "args"),
    [("vit_tiny_patch16_224", TINY_VIT), ("convnext_atto", {}), ("vit_small_patch14_reg4_dinov2", {"depth": 1})],
)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.51, 0.25)])
def test_a_folded_stem_is_the_same_function_as_replicated_gray(arch, args, mean, std):
    size = 56 if "patch14" in arch else 64
    colour = AUGREG.model_copy(update={"size": size})
    model = backbone.build_backbone(arch, args, 3, size, seed=0).eval()
    folded, gray = to_one_channel(model, colour, mean, std)
    x = images(1, size)
    with torch.no_grad():
        want, got = (backbone.token_features(m, prepare_input(x, p)) for m, p in ((model, colour), (folded, gray)))
        pooled, again = (backbone.pooled_features(m, prepare_input(x, p)) for m, p in ((model, colour), (folded, gray)))
    assert gray.channels == 1
    assert prepare_input(x, gray).shape[1] == 1
    assert (want - got).abs().max() <= 1e-5
    assert (pooled - again).abs().max() <= 1e-5
    assert want.abs().max() > 0.1  # not equal because both are zero


@pytest.mark.parametrize(("arch", "size"), [("resnet10t", 64), ("mobilenetv2_050", 64)])
def test_a_padded_stem_gets_replicated_gray_and_is_exactly_the_same_function(arch, size):
    model = backbone.build_backbone(arch, {}, 3, size, seed=0).eval()
    same, gray = to_one_channel(model, AUGREG)
    x = images(1, size)
    with torch.no_grad():
        want = model(prepare_input(x.repeat(1, 3, 1, 1), AUGREG))
        got = backbone.pooled_features(same, prepare_input(x, gray))
    assert torch.equal(want, got)


def test_only_unpadded_stems_with_a_bias_can_be_folded():
    assert find_foldable_stem(backbone.build_backbone("vit_tiny_patch16_224", TINY_VIT)) == "patch_embed.proj"
    assert find_foldable_stem(backbone.build_backbone("resnet10t")) is None  # zero padding
    assert find_foldable_stem(timm.create_model("vit_base_patch32_clip_224", depth=1)) is None  # no bias to absorb the means


def test_a_folded_network_keeps_timms_tensor_names():
    model = backbone.build_backbone("vit_tiny_patch16_224", TINY_VIT, 3, 64, seed=0)
    folded, _ = to_one_channel(model, AUGREG)
    assert set(folded.state_dict()) == set(backbone.build_backbone("vit_tiny_patch16_224", TINY_VIT, 1, 64).state_dict())
