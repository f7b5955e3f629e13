"""DINOv2 against its paper, besides what `forward` returns (test_forward_losses.py)."""

import numpy as np
import pytest
import torch

from encoders.augment.presets import get_preset
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.backbone import pooled_features
from pretrain.loop.continuation import build_groups
from pretrain.methods.dinov2 import masked_patch_loss
from pretrain.methods.sinkhorn import sinkhorn
from pretrain.recipe.config import load_recipe
from pretrain.watch import spectrum
from pretrain.watch.probe import Probe
from tests import reference
from tests.pretrain.methods.forward_losses import SETTINGS, dinov2
from tests.pretrain.runs import store
from tests.pretrain.tiny import batch, cnn, small_method, step, vit
from tests.pretrain.watch.test_watch import PIXELS
from tests.ranks import run_on_two_ranks


def network(**more):
    return vit(dynamic_img_size=True, reg_tokens=4, no_embed_class=True, **more)


def test_the_loss_of_hidden_patches_is_the_mean_over_a_crop_and_then_over_all_crops():
    g = torch.Generator().manual_seed(0)
    student = torch.randn(3, 4, 6, dtype=torch.float64, generator=g)
    hidden = torch.tensor([[1, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.bool)
    targets = torch.rand(4, 6, dtype=torch.float64, generator=g)
    number = torch.tensor([3, 3, 3, 1])
    want = reference.ibot(student.numpy(), targets.numpy(), hidden.numpy(), 0.1)
    assert masked_patch_loss(student[hidden], targets, number, 0.1, 3).item() == pytest.approx(want, rel=1e-12)
    nothing = masked_patch_loss(student[hidden][:0], targets[:0], number[:0], 0.1, 3)
    assert nothing.item() == 0


@pytest.mark.parametrize("settings", SETTINGS["dinov2"], ids=str)
def test_forward_returns_the_loss_of_the_paper_where_images_differ(settings):
    """After small steps: after the large ones of test_forward_losses.py the teacher says almost the same of all images."""
    m = small_method("dinov2", **settings).double()
    for i in range(2):
        views, masks = batch(m, i)
        step(m, [view.double() for view in views], masks, progress=0.05, lr=1e-5)
    views, masks = batch(m, 2)
    views = [view.double() for view in views]
    outputs = m(views, masks, 0.1)
    assert outputs["loss"].item() == pytest.approx(dinov2(m, views, masks, 0.1, None), rel=1e-9)
    assert outputs["teacher_entropy"] < np.log(24) - 0.05


def test_the_student_sees_mask_tokens_and_the_teacher_sees_every_patch():
    m = small_method("dinov2", network(), n_local=2, local_size=16)
    views, masks = batch(m)
    seen = {}
    m.teacher[0].blocks.register_forward_pre_hook(lambda _, given: seen.setdefault("teacher", given[0]))
    m.backbone.blocks.register_forward_pre_hook(lambda _, given: seen.setdefault(f"student {given[0].shape[1]}", given[0]))
    with torch.no_grad():
        m.mask_token.fill_(7.0)
        m.backbone.pos_embed.zero_()
    m(views, masks, 0.0)
    hidden = torch.cat([masks[0].hidden, masks[1].hidden])
    assert hidden.any()
    patches = seen["student 21"][:, 5:]  # class token and four registers first
    assert ((patches == 7).all(dim=-1) == hidden).all()
    assert not (seen["teacher"] == 7).all(dim=-1).any()
    assert "student 9" in seen  # local crops, 2 x 2 patches
    assert not (seen["student 9"] == 7).all(dim=-1).any()


def test_hidden_patches_do_not_reach_the_student():
    """Pixels under a mask token change the teacher's targets, not what the student says."""
    m = small_method("dinov2", network()).double()
    views, masks = batch(m)
    views = [view.double() for view in views]
    i, n = torch.nonzero(masks[0].hidden)[0].tolist()
    changed = views[0].clone()
    changed[i, :, 8 * (n // 4) : 8 * (n // 4) + 8, 8 * (n % 4) : 8 * (n % 4) + 8] += 1
    hidden = torch.cat([masks[0].hidden, masks[1].hidden])
    with torch.no_grad():
        before, after = (m.encode(torch.cat([first, views[1]]), hidden) for first in (views[0], changed))
        teacher = [m.teacher[0](first) for first in (views[0], changed)]
    assert torch.equal(before, after)
    assert not torch.equal(*teacher)


def test_without_masks_and_koleo_the_loss_is_that_of_dino():
    m = small_method("dinov2", network(), balance="centre", koleo=0.0, mask_probability=0.0).double()
    views, masks = batch(m)
    views = [view.double() for view in views]
    student, teacher = (
        [part.detach().numpy() for part in out.chunk(2)] for out in (m.head(m.backbone(torch.cat(views))), m.teacher(torch.cat(views)))
    )
    want = reference.dino(student, teacher, np.zeros(24), 0.1, 0.04)
    assert m(views, masks, 0.0)["loss"].item() == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize("separate", [True, False])
def test_heads_are_separate_or_shared(separate):
    m = small_method("dinov2", network(), separate_heads=separate)
    heads = {name.split(".")[0] for name, p in m.named_parameters() if name.endswith("prototypes") and p.requires_grad}
    assert heads == ({"head", "patch_head"} if separate else {"head"})
    before = m.head.prototypes.clone()
    m(*batch(m), 0.0)["ibot"].backward()
    assert (m.head.prototypes.grad is None) == separate
    assert torch.equal(before, m.head.prototypes)


@pytest.mark.parametrize("separate", [True, False])
def test_prototypes_of_both_heads_stay_fixed_at_first_and_both_teachers_follow(separate):
    m = small_method("dinov2", network(), separate_heads=separate, freeze=0.1)
    heads = [m.head, m.patch_head] if separate else [m.head]
    teachers = [m.teacher[1], m.patch_teacher] if separate else [m.teacher[1]]
    before = [head.prototypes.clone() for head in heads]
    mlp = [head.mlp[0].weight.clone() for head in heads]
    step(m, *batch(m), progress=0.05)
    assert all(torch.equal(a, head.prototypes) for a, head in zip(before, heads, strict=True))
    momentum = m.momentum(0.05)
    for old, head, teacher in zip(mlp, heads, teachers, strict=True):
        assert not torch.equal(old, head.mlp[0].weight)
        torch.testing.assert_close(teacher.mlp[0].weight, momentum * old + (1 - momentum) * head.mlp[0].weight)
    step(m, *batch(m, 1), progress=0.1)
    assert not any(torch.equal(a, head.prototypes) for a, head in zip(before, heads, strict=True))


def test_centres_are_slow_means_over_the_micro_batches_and_hidden_patches():
    m = small_method("dinov2", network(), balance="centre", centre_momentum=0.75)
    whole, patches = [], []
    m.teacher[1].register_forward_hook(lambda *a: whole.append(a[-1].clone()))
    m.patch_teacher.register_forward_hook(lambda *a: patches.append(a[-1].clone()))
    for i in (0, 2):
        m(*batch(m, i), 0.0)["loss"].backward()
    assert not m.centre.any()
    assert len(patches[0]) != len(patches[1])  # their mean is not that of the two means
    m.after_backward(0.0)
    m.after_step(0.0)
    torch.testing.assert_close(m.centre, 0.25 * torch.cat(whole).mean(0))
    torch.testing.assert_close(m.patch_centre, 0.25 * torch.cat(patches).mean(0))


def move_centres(rank, path, ranks=2):
    """One step on this rank's share of 16 images; saves both centres. The weights that they depend on are those before the step."""
    m = small_method("dinov2", network(), balance="centre", centre_momentum=0.5).double()
    positions = np.arange(16).reshape(ranks, -1)[rank]
    views = [view[positions].double() for view in batch(m)[0]]
    m(views, [m.mask_spec().draw(0, positions, i) for i in range(2)], 0.0)["loss"].backward()
    m.after_backward(0.0)
    m.after_step(0.0)
    torch.save([m.centre, m.patch_centre], path / f"{rank} of {ranks}.pt")


@pytest.mark.slow
def test_centres_are_means_over_all_ranks(tmp_path):
    run_on_two_ranks(move_centres, tmp_path)
    move_centres(0, tmp_path, ranks=1)
    want = torch.load(tmp_path / "0 of 1.pt")
    for rank in range(2):
        for own, one in zip(torch.load(tmp_path / f"{rank} of 2.pt"), want, strict=True):
            assert own.any()
            torch.testing.assert_close(own, one, rtol=1e-12, atol=1e-14)


def test_the_centre_of_patches_stays_where_nothing_is_hidden():
    m = small_method("dinov2", network(), balance="centre", mask_probability=0.0)
    m.patch_centre.fill_(0.3)
    step(m, *batch(m))
    assert (m.patch_centre == 0.3).all()
    assert m.centre.any()


def test_the_patch_embedding_learns_slowly_and_layers_below_learn_slower():
    m = small_method("dinov2", network(), patch_embed_lr=0.2)
    recipe = load_recipe("cxr_dinov2", ["data.store=x"])
    assert recipe.layer_decay == 0.9
    scale = {id(p): group.get("lr_scale", 1.0) for group in build_groups(recipe, m, m.backbone) for p in group["params"]}
    got = {name: scale[id(p)] for name, p in m.named_parameters() if p.requires_grad}
    assert len(scale) == len(got)
    assert got["backbone.patch_embed.proj.weight"] == pytest.approx(0.2 * 0.9**3)  # two blocks and the heads are above it
    assert got["backbone.patch_embed.proj.bias"] == pytest.approx(0.2 * 0.9**3)
    assert got["backbone.pos_embed"] == got["backbone.reg_token"] == pytest.approx(0.9**3)
    assert got["backbone.blocks.0.attn.qkv.weight"] == pytest.approx(0.9**2)
    assert got["backbone.blocks.1.attn.qkv.weight"] == pytest.approx(0.9)
    assert got["head.mlp.0.weight"] == got["patch_head.prototypes"] == got["mask_token"] == 1.0
    decay = {id(p): group.get("weight_decay") for group in m.param_groups() for p in group["params"]}
    undecayed = {name for name, p in m.named_parameters() if p.requires_grad and decay[id(p)] == 0.0}
    assert {"mask_token", "backbone.patch_embed.proj.bias", "backbone.pos_embed", "backbone.reg_token", "patch_head.length"} <= undecayed
    assert "backbone.patch_embed.proj.weight" not in undecayed


def test_drop_path_is_of_the_student_only():
    torch.manual_seed(0)
    m = small_method("dinov2", network(drop_path_rate=0.5, depth=3))
    rates = [
        [block.drop_path1.drop_prob for block in net.blocks if hasattr(block.drop_path1, "drop_prob")] for net in (m.backbone, m.teacher[0])
    ]
    assert rates[0][-1] == 0.5
    assert not any(rates[1])
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(m(*batch(m), 0.0)["loss"].item())
    assert outputs[0] == outputs[1] != outputs[2]


def test_the_watchdog_sees_the_head_of_the_class_token_and_a_balanced_teacher(tmp_path):
    m = small_method("dinov2", network(), n_images=80)
    probe = Probe(Store.open(store(tmp_path)), np.arange(80), 80, PIXELS, torch.device("cpu"))
    metrics = probe.measure(m, 0.5)
    m.eval()
    with torch.no_grad():
        z = m.head(pooled_features(m.backbone, probe.images))
        p = torch.cat([sinkhorn(m.teacher(part), 0.07) for part in probe.images.split(64)])
    assert metrics["watch/head_rank"] == pytest.approx(spectrum.rankme(z), rel=1e-4)
    assert (metrics["watch/teacher_entropy"], metrics["watch/teacher_marginal"]) == pytest.approx(spectrum.teacher_entropies(p), rel=1e-4)
    assert m.loss_head is m.head
    assert m.slow_network is m.teacher
    assert m.encoder() is m.teacher[0]


def test_a_teacher_that_says_the_same_of_all_images_is_seen_as_uniform():
    m = small_method("dinov2", network())
    p = m.teacher_probs(torch.randn(1, 48).expand(16, 48), 0.5)
    assert spectrum.teacher_entropies(p.detach())[0] == pytest.approx(1.0, abs=1e-5)


def test_views_are_two_large_and_some_small_and_only_the_large_ones_are_masked():
    m = small_method("dinov2", network(), n_local=2)
    specs = m.views(get_preset("byol"))
    assert [s.crop for s in specs] == [(0.32, 1.0)] * 2 + [(0.05, 0.32)] * 2
    assert [s.solarise for s in specs] == [0.0, 0.2, 0.0, 0.0]
    spec = m.mask_spec()
    assert (spec.rows, spec.columns, spec.probability, spec.ratio) == (4, 4, 0.5, (0.1, 0.5))
    assert [bool(list(spec.draw(0, np.arange(4), view))) for view in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("backbone", "settings", "message"),
    [
        (cnn, {}, "needs a timm VisionTransformer, got ResNet"),
        (vit, {"n_local": 2}, "method dinov2 gives a ViT crops of two sizes"),
        (lambda: vit(patch_drop_rate=0.5), {}, "leave out model_args.patch_drop_rate"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(backbone, settings, message):
    with pytest.raises(InputError, match=message):
        small_method("dinov2", backbone(), **settings)


def test_notes_name_the_scaled_momentum_and_micro_batches():
    m = small_method("dinov2", network(), scale_momentum=True, momentum=0.992)
    assert any("0.992 -> 0.999937 at batch 16: the lag in images of batch 2048" in note for note in m.notes(m.data))
    m.data = m.data.__class__(64, 32, 1, 16, accumulate=4)
    assert any("micro-batch of 4 images" in note for note in m.notes(m.data))
    assert not any("temperature" in note for note in m.notes(m.data))


@pytest.mark.slow
def test_under_torch_compile_the_number_of_hidden_patches_may_change():
    m = small_method("dinov2", network(depth=1))
    traced = torch.compile(m, backend="eager", fullgraph=True)  # raises at a graph break
    for i in (0, 2):  # the number of hidden patches changes
        views, masks = batch(m, i)
        torch.testing.assert_close(traced(views, masks, 0.1)["loss"], m(views, masks, 0.1)["loss"])
