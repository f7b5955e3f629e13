"""Two ranks and one process take the same steps: gradients and parameters after three steps of the real loop, in float64, for each method.

Once with norms over each row, where ranks cannot differ; once with BatchNorm over the images of all ranks, in network and head; once with
frozen statistics in the network.
"""

import pytest
import torch
import torch.distributed as td
from timm.layers import BatchNormAct2d
from timm.models.convnext import ConvNeXt
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

from encoders.loading.batches import Batches
from encoders.runtime import dist, optim
from encoders.runtime.stop import REQUEUE_EXIT_STATUS, StopRequest
from encoders.store.store import Store
from encoders.zoo.batchnorm import freeze_statistics
from encoders.zoo.preprocess import Preprocess
from pretrain.loop.batchnorm import SyncBatchNorm, convert_sync_batchnorm
from pretrain.loop.train import TrainState, fit
from pretrain.methods import METHODS, DataShape
from pretrain.recipe.config import augmentation, load_recipe
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain import tiny
from tests.pretrain.runs import METHODS as METHODS_OF_RUNS
from tests.pretrain.runs import recipe, sigterm_at_step, store
from tests.ranks import run_on_two_ranks

BATCH, SIZE, STEPS = 8, 32, 3
SMALL = {
    "moco": {"dim": 8, "hidden": 16, "queue": 16, "scale_momentum": False, "momentum": 0.9},
    "mocov3": {"dim": 8, "hidden": 16, "scale_momentum": False, "momentum": 0.9},
    "simclr": {"dim": 8, "hidden": 16},
    "byol": {"dim": 8, "hidden": 16, "scale_momentum": False, "momentum": 0.9},
    "simsiam": {"dim": 8, "bottleneck": 4},
    "barlowtwins": {"dim": 8},
    "vicreg": {"dim": 8},
    "dino": {"prototypes": 8, "hidden": 16, "bottleneck": 8, "n_local": 2, "local_size": 16, "scale_momentum": False, "momentum": 0.9},
    "dinov2": {"prototypes": 8, "hidden": 16, "bottleneck": 8, "n_local": 0, "scale_momentum": False, "momentum": 0.9},
    "lejepa": {"dim": 8, "hidden": 16, "slices": 8},
    "supcon": {"dim": 8, "hidden": 16},
    "simmim": {"mask_size": 16},
    "spark": {"decoder_width": 16},
    "ijepa": {"predictor_width": 16, "predictor_depth": 1, "predictor_heads": 2, "min_keep": 4, "momentum": 0.9, "scale_momentum": False},
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
}
WITH_BATCHNORM = [name for name, kind in METHODS.items() if kind.sync_batchnorm_by_default and not kind.plain_vit_only]
WITH_FROZEN = [*WITH_BATCHNORM, "moco"]  # which splits no batch if statistics are frozen
CASES = [(name, "rows") for name in SMALL] + [(name, "batch") for name in WITH_BATCHNORM] + [(name, "frozen") for name in WITH_FROZEN]
VIT_WITH_ROW_NORMS = {name for name, kind in METHODS.items() if kind.plain_vit_only} | {"mocov3"}  # MoCo v3 has a branch for ViTs


class Rowwise(nn.GroupNorm):
    """One group: each row of (B, D) or image of (B, D, H, W) is normalised alone, so that ranks cannot differ."""

    def __init__(self, width):
        super().__init__(1, width)


def rowwise(module):
    """`module` with every BatchNorm replaced."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            learns = any(p.requires_grad for p in child.parameters())  # not those of a teacher or key encoder
            setattr(module, name, Rowwise(child.num_features).requires_grad_(learns))
        else:
            rowwise(child)
    return module


def net(name, norm):
    if name in tiny.CNN_ONLY:
        return masked_net(norm)
    if norm == "rows" and name in VIT_WITH_ROW_NORMS:
        return tiny.vit()
    torch.manual_seed(0)
    normed = [nn.GELU()] if norm == "rows" else [nn.BatchNorm2d(8), nn.GELU(), nn.Conv2d(8, 8, 1), BatchNormAct2d(8)]
    plain = nn.Sequential(nn.Conv2d(1, 8, 5, 4), *normed, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12))
    plain.num_features = 12
    if norm == "frozen":
        plain[1].running_mean.normal_()
        plain[4].running_var.uniform_(0.5, 2)
        freeze_statistics(plain)
    return plain


def masked_net(norm):
    """A CNN of 4 x 4 patches whose layers a masked method knows: norms over each position (`rows`), or BatchNorm."""
    torch.manual_seed(0)
    if norm == "rows":
        return ConvNeXt(1, 0, output_stride=8, depths=(1, 1, 1, 1), dims=(4, 4, 4, 8))
    network = ResNet(BasicBlock, [1, 1, 1, 1], 0, 1, output_stride=8, channels=(4, 4, 4, 8))
    if norm == "frozen":
        network.bn1.running_mean.normal_()
        network.layer4[0].bn2.running_var.uniform_(0.5, 2)
        freeze_statistics(network)
    return network


def trained(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def train_steps(name, norm, path, rank=0, world=1):
    """Gradients of each step of the real loop, and the state after the last one."""
    torch.manual_seed(5)
    kind = METHODS[name]
    method = kind(kind.Config(**SMALL[name]), net(name, norm), DataShape(80, SIZE, 1, BATCH, False))
    if norm == "rows":
        method = rowwise(method)
    elif world > 1:
        convert_sync_batchnorm(method)
    method = method.double()
    cfg = load_recipe(
        "cxr_moco_tiny", ["data.store=x", "precision=fp32", f"batch={BATCH}", "optim.kind=sgd", "optim.lr_rule=none", "optim.lr=0.1"]
    )
    prep = Preprocess(size=SIZE, resize="crop", channels=1, mean=(0.5,), std=(0.25,))
    batches = Batches(
        Store.open(path), method.views(augmentation(cfg)), prep, seed=0, batch=BATCH, rank=rank, world=world, mask=method.mask_spec()
    )
    method.register_forward_pre_hook(lambda m, args: ([v.double() for v in args[0]], *args[1:]))
    optimizer = optim.build_optimizer(method.param_groups(), cfg.optim, BATCH)
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append([None if p.grad is None else p.grad.clone() for p in trained(o)]))
    fit(
        method, batches, optimizer, torch.amp.GradScaler(enabled=False), cfg, STEPS, 0, TrainState(), lambda *a, **k: None, lambda s: None,
        StopRequest(), torch.device("cpu"),
    )  # fmt: skip
    return {"grads": seen, "state": {k: v.clone() for k, v in method.state_dict().items()}}


def one_rank(rank, path, out):
    results = {f"{name} {norm}": train_steps(name, norm, path, rank, 2) for name, norm in CASES}
    torch.save(results, out / f"{rank}.pt")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The store, and the results of each of two ranks."""
    out = tmp_path_factory.mktemp("ranks")
    path = store(out)
    run_on_two_ranks(one_rank, path, out)
    return path, [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_every_method_is_tested():
    assert set(SMALL) == set(METHODS)
    assert dist.world_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_two_ranks_take_the_steps_of_one_process(both, name, norm):
    path, ranks = both
    alone = train_steps(name, norm, path)
    name = f"{name} {norm}"
    for rank in ranks:
        assert len(rank[name]["grads"]) == STEPS
        for step, (own, want) in enumerate(zip(rank[name]["grads"], alone["grads"], strict=True)):
            for i, (a, b) in enumerate(zip(own, want, strict=True)):
                assert (a is None) == (b is None)
                if b is not None:
                    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, s=step, i=i: f"step {s}, parameter {i}: {m}")
        for key, want in alone["state"].items():
            torch.testing.assert_close(rank[name]["state"][key], want, rtol=1e-10, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")


def uneven(rank, folder):
    """BatchNorm of 3 images on one rank and 5 on the other, and the gradients of the sum of cubes."""
    x, norm = images_and_norm()
    part = x[:3] if rank == 0 else x[3:]
    norm = nn.Sequential(norm)
    convert_sync_batchnorm(norm)
    part = part.clone().requires_grad_()
    y = norm(part)
    y.pow(3).sum().backward()
    weights = torch.stack([norm[0].weight.grad, norm[0].bias.grad])
    td.all_reduce(weights)
    torch.save({"y": y.detach(), "x": part.grad, "weights": weights, "state": norm[0].state_dict()}, folder / f"{rank}.pt")


def images_and_norm():
    torch.manual_seed(3)
    x = torch.randn(8, 4, 5, 5, dtype=torch.float64) * 3 + 100
    norm = BatchNormAct2d(4).double()
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    return x, norm


@pytest.mark.slow
def test_batchnorm_over_ranks_of_different_size_is_batchnorm_over_their_images(tmp_path):
    run_on_two_ranks(uneven, tmp_path)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    x, norm = images_and_norm()
    x.requires_grad_()
    y = norm(x)
    y.pow(3).sum().backward()
    close = {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(torch.cat([p["y"] for p in parts]), y.detach(), **close)
    torch.testing.assert_close(torch.cat([p["x"] for p in parts]), x.grad, **close)
    for part in parts:
        torch.testing.assert_close(part["weights"], torch.stack([norm.weight.grad, norm.bias.grad]), **close)
        assert list(part["state"]) == list(norm.state_dict())
        for key, want in norm.state_dict().items():
            torch.testing.assert_close(part["state"][key], want, **close)


def test_alone_and_in_evaluation_a_synchronised_network_is_the_network():
    x, plain = tiny.images(4), tiny.cnn()
    changed = tiny.cnn()
    convert_sync_batchnorm(changed)
    kinds = {type(m) for m in changed.modules()}
    assert SyncBatchNorm in kinds
    assert not kinds & {nn.BatchNorm2d, BatchNormAct2d}
    assert list(changed.state_dict()) == list(plain.state_dict())
    assert torch.equal(changed(x), plain(x))  # alone, in training
    assert torch.equal(changed.eval()(x), plain.eval()(x))


def resumed(rank, name):
    assert runs.resume_run(rundir.run_dir_for(name), "cpu") == 0


def test_a_run_is_resumed_by_several_processes_at_once(tmp_path, monkeypatch):
    """One of them takes the run's lock; the others must not fail because it is taken."""
    where = rundir.run_dir_for("shared")
    with monkeypatch.context() as patch:
        sigterm_at_step(patch, 4)
        assert runs.start_run(recipe(store(tmp_path), METHODS_OF_RUNS["moco"]), where, "cpu") == REQUEUE_EXIT_STATUS
    run_on_two_ranks(resumed, "shared")
    info = where.read()
    assert info["status"] == "finished"
    assert [s["from_step"] for s in info["sessions"]] == [0, 4]
    assert not (where.path / "lock").exists()
