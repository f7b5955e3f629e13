"""MoCo v2 against its paper: the loss, the queue, the slow key encoder, and that BatchNorm leaks no key."""

import math

import numpy as np
import pytest
import torch

from pretrain.methods.moco import count_bn_groups, encode_in_groups
from pretrain.methods.moco import info_nce as loss_and_top1
from tests import reference
from tests.pretrain.tiny import cnn, images, method, rows, same_state, snapshot, step, vit


def info_nce(*given):
    return loss_and_top1(*given)[0]


@pytest.mark.parametrize("t", [0.07, 0.2, 1.0])
def test_info_nce_equals_its_definition(t):
    q, k, negatives = rows(4, 8, 1), rows(4, 8, 2), rows(16, 8, 3)
    want = reference.info_nce(q.numpy(), k.numpy(), negatives.numpy(), t)
    assert info_nce(q, k, negatives, t).item() == pytest.approx(want, rel=1e-10)
    assert info_nce(q.float(), k.float(), negatives.float(), t).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("n", [1, 7, 64])
def test_collinear_embeddings_cost_log_of_one_plus_the_queue(n):
    same_row = rows(1, 8, 0)
    loss = info_nce(same_row.expand(3, -1), same_row.expand(3, -1), same_row.expand(n, -1), 0.2)
    assert loss.item() == pytest.approx(math.log(n + 1), abs=1e-12)


def test_the_gradient_equals_the_one_worked_out_by_hand():
    q, k, negatives = rows(4, 8, 1).requires_grad_(), rows(4, 8, 2), rows(16, 8, 3)
    info_nce(q, k, negatives, 0.2).backward()
    want = reference.info_nce_gradient(q.detach().numpy(), k.numpy(), negatives.numpy(), 0.2)
    np.testing.assert_allclose(q.grad.numpy(), want, atol=1e-12)


def test_the_gradient_passes_a_numerical_check():
    q, k, negatives = rows(3, 4, 1).requires_grad_(), rows(3, 4, 2), rows(5, 4, 3)
    assert torch.autograd.gradcheck(lambda x: info_nce(x, k, negatives, 0.2), q)


def test_permuting_the_batch_or_the_queue_keeps_the_loss():
    q, k, negatives, order = rows(4, 8, 1), rows(4, 8, 2), rows(16, 8, 3), torch.tensor([2, 0, 3, 1])
    loss = info_nce(q, k, negatives, 0.2).item()
    assert info_nce(q[order], k[order], negatives.flip(0), 0.2).item() == pytest.approx(loss, rel=1e-12)


def test_the_loss_is_float32_under_autocast():
    q, k, negatives = (rows(n, 8, n).float() for n in (4, 4, 16))
    k = k[torch.arange(4)]
    with torch.autocast("cpu", torch.bfloat16):
        inside, top1 = loss_and_top1(q, k, negatives, 0.2)
    assert inside.dtype == top1.dtype == torch.float32
    assert inside.item() == info_nce(q, k, negatives, 0.2).item()
    m = method("moco")
    with torch.autocast("cpu", torch.bfloat16):
        assert m([images(16), images(16, seed=1)], None, 0.0)["loss"].dtype == torch.float32


def test_only_the_query_side_gets_gradients():
    m = method("moco")
    m([images(16), images(16, seed=1)], None, 0.0)["loss"].backward()
    assert all(p.grad is not None for p in [*m.backbone.parameters(), *m.head.parameters()])
    assert m.backbone.conv1[0].weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in m.key.parameters())
    trained = {id(p) for g in m.param_groups() for p in g["params"]}
    assert trained == {id(p) for p in m.parameters() if p.requires_grad}
    assert all("weight_decay" not in g for g in m.param_groups())  # the recipe's, on everything, as published


def test_the_key_encoder_begins_equal_and_follows_by_the_published_rule():
    m = method("moco", batch=16, momentum=0.9, scale_momentum=False)
    before = [p.clone() for p in m.key.parameters()]
    query = [*m.backbone.parameters(), *m.head.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, query, strict=True))
    step(m, [images(16), images(16, seed=1)])
    for old, fast, slow in zip(before, query, m.key.parameters(), strict=True):
        torch.testing.assert_close(slow, 0.9 * old + 0.1 * fast)


def test_momentum_scaled_to_the_batch_keeps_the_lag_in_images():
    m = method("moco", batch=16)
    assert m.momentum ** (256 / 16) == pytest.approx(0.999, rel=1e-12)
    assert method("moco", batch=16, scale_momentum=False).momentum == 0.999


def test_the_key_encoder_keeps_batch_statistics_of_its_own():
    m = method("moco")
    start = m.key[0].bn1.running_mean.clone()
    m([images(16), 3 + images(16, seed=1)], None, 0.0)
    assert not torch.equal(m.key[0].bn1.running_mean, start)
    assert not torch.allclose(m.key[0].bn1.running_mean, m.backbone.bn1.running_mean, atol=1e-3)


def test_the_queue_is_first_in_first_out_over_micro_batches():
    m = method("moco", n_images=96, batch=16)  # 48 keys: three batches
    seen, before = [], m.queue.clone()
    for s in range(4):
        keys = []
        for micro in range(2):
            m([images(8, seed=10 * s + micro), images(8, seed=99 + 10 * s + micro)], None, 0.0)["loss"].backward()
            keys.append(m.step_keys.tensors[-1])
        assert torch.equal(m.queue, before)  # nothing enters before the step
        m.after_backward(0.0)
        m.after_step(0.0)
        before = m.queue.clone()
        seen.append(torch.cat(keys))
    assert torch.equal(m.queue, torch.cat([seen[3], seen[1], seen[2]]))
    assert int(m.pointer) == 16


def test_keys_of_a_rejected_step_do_not_enter_the_queue():
    m = method("moco", n_images=96)
    views = [images(16), images(16, seed=1)]
    m(views, None, 0.0)["loss"].backward()
    m.after_backward(0.0)  # then the loop rejects the step: no after_step
    queue = m.queue.clone()
    step(m, [images(16, seed=2), images(16, seed=3)])
    assert (m.queue != queue).any(dim=1).sum() == 16


def test_a_forward_pass_without_gradients_leaves_the_state():
    m = method("moco")
    before = snapshot(m)
    with torch.no_grad():
        m.eval()([images(16), images(16, seed=1)], None, 0.0)
    assert same_state(before, snapshot(m))
    assert not m.step_keys.tensors


@pytest.mark.parametrize(("n_images", "batch", "size"), [(1000, 32, 480), (10**6, 256, 65536), (100, 64, 64), (10**6, 96, 65472)])
def test_the_queue_is_whole_batches_and_at_most_half_the_images(n_images, batch, size):
    assert len(method("moco", n_images=n_images, batch=batch).queue) == size


def test_adjustments_to_the_data_are_noted():
    m = method("moco", n_images=1000, batch=32)
    notes = " ".join(m.notes(m.data))
    assert "65536 -> 480" in notes
    assert "0.999 -> 0.999875" in notes
    big = method("moco", n_images=10**6, batch=256)
    assert big.notes(big.data) == []
    tiny = method("moco", n_images=20, batch=16)
    assert any("negative" in line for line in tiny.notes(tiny.data))
    small = method("moco", n_images=1000, batch=8)
    assert any("too small to split" in line for line in small.notes(small.data))


def test_groups_have_their_own_statistics_and_rows_keep_their_places():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(4, affine=False)).train()
    x = torch.arange(64.0).reshape(16, 1, 2, 2) ** 1.5
    plain = encode_in_groups(net, x, 2, shuffle=False)
    for half in (slice(0, 8), slice(8, 16)):
        part = x[half].flatten(1)
        torch.testing.assert_close(plain[half], (part - part.mean(0)) / (part.var(0, unbiased=False) + 1e-5).sqrt())
    torch.manual_seed(7)
    order = torch.randperm(16)
    torch.manual_seed(7)
    mixed = encode_in_groups(net, x, 2, shuffle=True)
    part = x[order[:8]].flatten(1)
    torch.testing.assert_close(mixed[order[:8]], (part - part.mean(0)) / (part.var(0, unbiased=False) + 1e-5).sqrt())


def test_shuffled_groups_reduce_what_batch_statistics_leak_about_the_partner():
    """For an encoder that outputs the mean of its batch: how much of the query's value does its key share?"""

    class Leak(torch.nn.Module):
        def forward(self, x):
            return x.mean(dim=0, keepdim=True).expand(len(x), -1)

    x = torch.randn(2000, 256, 1, generator=torch.Generator().manual_seed(0))  # 2000 batches of 256 images with one number each
    torch.manual_seed(0)

    def correlation(n, shuffle):
        pairs = [(encode_in_groups(Leak(), b, n, False)[0].item(), encode_in_groups(Leak(), b, n, shuffle)[0].item()) for b in x]
        return np.corrcoef(np.array(pairs).T)[0, 1]

    assert correlation(1, False) == pytest.approx(1.0)  # one process, whole batch: the key is leaked
    assert correlation(8, False) == pytest.approx(1.0)
    assert correlation(8, True) == pytest.approx(1 / 8, abs=0.07)  # as on 8 GPUs with shuffling; +-3 standard errors of 2000 pairs


@pytest.mark.parametrize("together", [True, False])
def test_query_and_key_of_an_image_are_in_different_groups(together):
    m = method("moco", batch=64)
    m.one_pass_devices = {"cpu"} if together else set()
    shared = []
    for part, record in ((m.backbone, "q"), (m.key, "k")):
        part.register_forward_pre_hook(lambda _, args, record=record: shared.append((record, args[0][:, 0, 0, 0].tolist())))
    x = images(64)
    x[:, 0, 0, 0] = torch.arange(64.0)  # each image carries its number
    m([x, x], None, 0.0)
    if together:  # one pass of each network, in which every other image belongs to the same group
        assert [who for who, _ in shared] == ["q", "k"]
        shared = [(who, numbers[group::2]) for who, numbers in shared for group in range(2)]
    q = [set(group) for who, group in shared if who == "q"]
    k = [set(group) for who, group in shared if who == "k"]
    assert len(q) == len(k) == 2
    assert set.union(*q) == set.union(*k) == set(range(64))
    assert q == [set(range(32)), set(range(32, 64))]
    assert all(8 < len(a & b) < 24 for a in q for b in k)


def test_all_groups_pass_the_network_at_once():
    m = method("moco", batch=64)
    slow = method("moco", batch=64)
    m.one_pass_devices = {"cpu"}
    losses = []
    for each in (m, slow):
        torch.manual_seed(3)
        losses.append(step(each.double(), [images(64).double(), images(64, seed=1).double()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    for (name, got), want in zip(m.state_dict().items(), slow.state_dict().values(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12, msg=name)


def test_a_cpu_takes_one_group_after_the_other():
    m, passes = method("moco", batch=64), []
    m.backbone.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))
    m([images(64), images(64)], None, 0.0)
    assert passes == [32, 32]


@pytest.mark.parametrize(("batch", "groups"), [(8, 1), (16, 2), (64, 2), (256, 8), (1024, 32)])
def test_groups_follow_the_batch(batch, groups):
    assert count_bn_groups(method("moco").cfg, batch) == groups


def test_an_encoder_without_batchnorm_is_not_split():
    m = method("moco", vit())
    calls = []
    m.backbone.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    m([images(16), images(16, seed=1)], None, 0.0)
    assert calls == [16]


def test_all_state_is_saved_so_that_a_resumed_method_gives_the_same_losses():
    batches = [[images(16, seed=2 * i), images(16, seed=2 * i + 1)] for i in range(4)]

    def steps(m, some):
        losses = []
        for i in some:
            torch.manual_seed(100 + i)  # as the loop seeds each micro-batch
            losses.append(step(m, batches[i]))
        return losses

    uninterrupted = method("moco", n_images=96)
    want = steps(uninterrupted, range(4))
    first = method("moco", n_images=96)
    steps(first, range(2))
    second = method("moco", cnn(), n_images=96, seed=5)
    second.load_state_dict(first.state_dict())
    assert steps(second, range(2, 4)) == want[2:]
    assert same_state(uninterrupted.state_dict(), second.state_dict())


def test_the_loss_falls_on_a_few_images():
    m = method("moco", n_images=64, batch=16, queue=32)
    x = images(16, size=32)
    losses = []
    for i in range(25):
        torch.manual_seed(i)
        losses.append(step(m, [x + 0.05 * torch.randn_like(x), x + 0.05 * torch.randn_like(x)], lr=0.1))
    assert np.mean(losses[-5:]) < np.mean(losses[2:7]) - 0.1


def test_the_encoder_is_the_timm_module():
    backbone = cnn()
    m = method("moco", backbone)
    assert m.encoder() is backbone
    assert set(m.encoder().state_dict()) == set(cnn().state_dict())


def test_top1_is_the_share_of_queries_that_are_nearest_to_their_own_key():
    q, k, negatives = rows(40, 4, 1), rows(40, 4, 2), rows(8, 4, 3)
    k[:20] = q[:20]
    cosines = np.column_stack([(q * k).sum(1), q @ negatives.T])
    assert loss_and_top1(q, k, negatives, 0.2)[1].item() == pytest.approx(np.mean(cosines.argmax(axis=1) == 0))


def test_negatives_of_the_same_patient_are_left_out():
    q, k, negatives = rows(6, 8, 1), rows(6, 8, 2), rows(5, 8, 3)
    patients, queue_patients = torch.tensor([0, 1, 0, 2, 1, 0]), torch.tensor([1, -1, 0, 2, 0])
    want = reference.info_nce(q.numpy(), k.numpy(), negatives.numpy(), 0.2, patients.numpy(), queue_patients.numpy())
    assert info_nce(q, k, negatives, 0.2, patients, queue_patients).item() == pytest.approx(want, rel=1e-10)
    assert want < info_nce(q, k, negatives, 0.2).item()


def test_a_checkpoint_that_calls_the_patients_of_the_queue_whose_still_loads():
    m = method("moco", n_images=64, exclude_same_patient=True)
    step(m, [images(16), images(16, seed=1)], patient_ids=torch.arange(16))
    old = {("whose" if name == "patient_ids" else name): value for name, value in m.state_dict().items()}
    other = method("moco", cnn(), n_images=64, exclude_same_patient=True, seed=5)
    other.load_state_dict(old, strict=True)
    assert same_state(m.state_dict(), other.state_dict())
    assert "whose" in old, "the caller's dict is left alone"
    with pytest.raises(RuntimeError, match="patient_ids"):
        method("moco", n_images=64).load_state_dict(old, strict=True)  # a queue without patients
