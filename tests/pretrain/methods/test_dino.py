"""DINO against its paper."""

import numpy as np
import pytest
import torch

from encoders.augment.presets import get_preset
from encoders.runtime.errors import InputError
from pretrain.methods.dino import distillation_loss, teacher_temperature
from tests import reference
from tests.pretrain.tiny import images, method, step, vit

SMALL = {"prototypes": 24, "hidden": 32, "bottleneck": 16}


def outputs(n, seed):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 7, dtype=torch.float64, generator=g) for _ in range(n)]


@pytest.mark.parametrize("n_local", [0, 3])
def test_the_loss_equals_its_definition(n_local):
    student, teacher, centre = outputs(2 + n_local, 1), outputs(2, 2), outputs(1, 3)[0][0]
    want = reference.dino([s.numpy() for s in student], [t.numpy() for t in teacher], centre.numpy(), 0.1, 0.04)
    assert distillation_loss(student, teacher, centre, 0.1, 0.04).item() == pytest.approx(want, rel=1e-10)
    half = [s.float() for s in student], [t.float() for t in teacher], centre.float()
    assert distillation_loss(*half, 0.1, 0.04).item() == pytest.approx(want, rel=1e-5)


def test_the_gradient_goes_to_the_student_only():
    student, teacher = outputs(3, 1), outputs(2, 2)
    for x in (*student, *teacher):
        x.requires_grad_()
    centre = torch.zeros(7, dtype=torch.float64)
    distillation_loss(student, teacher, centre, 0.1, 0.04).backward()
    assert all(s.grad is not None for s in student)
    assert all(t.grad is None for t in teacher)
    assert torch.autograd.gradcheck(lambda s: distillation_loss([s, *student[1:]], teacher, centre, 0.5, 0.4), student[0])


def views(n=8, seed=0, local=16, n_local=2):
    return [images(n, seed=seed), images(n, seed=seed + 1), *(images(n, size=local, seed=seed + 2 + i) for i in range(n_local))]


def test_the_teacher_sees_global_views_and_the_student_all():
    m = method("dino", n_local=2, **SMALL)
    seen = {"teacher": [], "student": []}
    m.teacher[0].register_forward_pre_hook(lambda _, args: seen["teacher"].append(tuple(args[0].shape[::3])))
    m.backbone.register_forward_pre_hook(lambda _, args: seen["student"].append(tuple(args[0].shape[::3])))
    m(views(), None, 0.0)
    assert seen == {"teacher": [(16, 32)], "student": [(16, 32), (16, 16)]}


def test_the_centre_is_the_slow_mean_of_the_teachers_outputs_over_micro_batches():
    m = method("dino", n_local=0, centre_momentum=0.75, **SMALL)
    seen = []
    m.teacher.register_forward_hook(lambda *a: seen.append(a[-1].clone()))
    for micro in range(2):
        m(views(seed=10 * micro, n_local=0), None, 0.0)["loss"].backward()
    assert not m.centre.any()
    m.after_backward(0.0)
    m.after_step(0.0)
    torch.testing.assert_close(m.centre, 0.25 * torch.cat(seen).mean(0))


def test_a_rejected_step_does_not_move_the_centre():
    m = method("dino", n_local=0, **SMALL)
    m(views(n_local=0), None, 0.0)["loss"].backward()
    m.after_backward(0.0)
    m(views(seed=5, n_local=0), None, 0.0)["loss"].backward()
    assert len(m.step_outputs.tensors) == 1


def test_prototypes_stay_fixed_at_first_and_keep_their_length():
    m = method("dino", n_local=0, freeze=0.1, **SMALL)
    before = m.head.prototypes.clone()
    step(m, views(n_local=0), progress=0.05)
    assert torch.equal(before, m.head.prototypes)
    step(m, views(n_local=0), progress=0.1)
    assert not torch.equal(before, m.head.prototypes)
    out = m.head(torch.randn(5, 96))
    assert out.abs().max() <= 1 + 1e-6  # cosines
    assert not m.head.length.requires_grad
    assert method("dino", n_local=0, fixed_norm=False, **SMALL).head.length.requires_grad


def test_the_teachers_temperature_rises_in_a_straight_line():
    cfg = method("dino", teacher_temperature=0.07, temperature_warmup=0.3, **SMALL).cfg
    got = [teacher_temperature(cfg, p) for p in (0.0, 0.15, 0.3, 0.9)]
    assert got == pytest.approx([0.04, 0.055, 0.07, 0.07])


def test_the_exported_encoder_is_the_slow_one():
    m = method("dino", n_local=0, momentum=0.5, scale_momentum=False, freeze=0.0, **SMALL)
    start = [p.clone() for p in m.backbone.parameters()]
    step(m, views(n_local=0))
    assert m.encoder() is m.teacher[0]
    for old, fast, slow in zip(start, m.backbone.parameters(), m.encoder().parameters(), strict=True):
        torch.testing.assert_close(slow, 0.5 * old + 0.5 * fast)


def test_views_are_two_large_and_some_small_of_whole_patches():
    m = method("dino", vit(dynamic_img_size=True), size=64, n_local=3, **SMALL)
    specs = m.views(get_preset("byol"))
    assert [s.crop for s in specs] == [(0.4, 1.0)] * 2 + [(0.05, 0.4)] * 3
    assert [s.size for s in specs] == [None, None, 24, 24, 24]  # 64 * 96 / 224 = 27.4 -> three patches of 8
    assert [s.blur for s in specs] == [1.0, 0.1, 0.5, 0.5, 0.5]
    assert [s.solarise for s in specs] == [0.0, 0.2, 0.0, 0.0, 0.0]


def test_a_vit_takes_crops_of_two_sizes_or_the_error_names_the_setting():
    m = method("dino", vit(dynamic_img_size=True), n_local=2, **SMALL)
    assert torch.isfinite(m(views(), None, 0.0)["loss"])
    with pytest.raises(InputError, match="dynamic_img_size"):
        method("dino", vit(), n_local=2, **SMALL)
    method("dino", vit(), n_local=0, **SMALL)


def test_the_teachers_entropy_is_reported_in_nats():
    m = method("dino", n_local=0, **SMALL)
    with torch.no_grad():
        m.teacher[1].prototypes.copy_(m.teacher[1].prototypes[:1].expand(24, -1))  # all outputs alike
    entropy = m(views(n_local=0), None, 0.0)["teacher_entropy"].item()
    assert entropy == pytest.approx(np.log(24), rel=1e-5)


def test_a_teacher_that_warms_up_is_noted_and_the_published_one_is_not():
    warm = method("dino", n_local=0, teacher_temperature=0.07, **SMALL)
    assert any("method.teacher_temperature=0.04" in note for note in warm.notes(warm.data))
    published = method("dino", n_local=0, **SMALL)
    assert not any("temperature" in note for note in published.notes(published.data))
