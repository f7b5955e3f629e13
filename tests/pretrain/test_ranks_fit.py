"""Two ranks and one process take the same steps: gradients and parameters after three steps of the real loop, in float64, for each method.

Norms over the batch are replaced by norms over each row: BatchNorm is each rank's own, by design.
"""

import socket

import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp
from torch import nn

from encoders.batches import Batches
from encoders.preprocess import Preprocess
from encoders.runtime import dist, optim
from encoders.runtime.stop import Stop
from encoders.store import Store
from pretrain.config import augmentation, load
from pretrain.methods import METHODS, DataShape
from pretrain.train import State, fit
from tests.pretrain import tiny
from tests.pretrain.runs import store

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
    "lejepa": {"dim": 8, "hidden": 16, "slices": 8},
    "mae": {"decoder_width": 16, "decoder_depth": 1, "decoder_heads": 2},
}


class Rowwise(nn.GroupNorm):
    """One group: every row of (B, D) or image of (B, D, H, W) is normed by itself, so that ranks cannot differ."""

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


def net(name):
    if name in ("mae", "mocov3"):
        return tiny.vit()
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(1, 8, 5, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 12))
    plain.num_features = 12
    return plain


def trained(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"]]


def taken(name, path, rank=0, world=1):
    """Gradients of each step and the state after the last one, as the real loop takes them."""
    torch.manual_seed(5)
    kind = METHODS[name]
    method = rowwise(kind(kind.Config(**SMALL[name]), net(name), DataShape(80, SIZE, 1, BATCH, False))).double()
    cfg = load(
        "cxr_moco_tiny", ["data.store=x", "precision=fp32", f"batch={BATCH}", "optim.kind=sgd", "optim.lr_rule=none", "optim.lr=0.1"]
    )
    prep = Preprocess(size=SIZE, resize="crop", channels=1, mean=(0.5,), std=(0.25,))
    batches = Batches(
        Store.open(path), method.views(augmentation(cfg)), prep, seed=0, batch=BATCH, rank=rank, world=world, mask=method.mask_spec()
    )
    method.register_forward_pre_hook(lambda m, args: ([v.double() for v in args[0]], *args[1:]))
    optimizer = optim.build(method.param_groups(), cfg.optim, BATCH)
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append([None if p.grad is None else p.grad.clone() for p in trained(o)]))
    fit(
        method, batches, optimizer, torch.amp.GradScaler(enabled=False), cfg, STEPS, 0, State(), lambda *a, **k: None, lambda s: None,
        Stop(), torch.device("cpu"),
    )  # fmt: skip
    return {"grads": seen, "state": {k: v.clone() for k, v in method.state_dict().items()}}


def one_rank(rank, port, path, out):
    torch.set_num_threads(1)
    td.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {name: taken(name, path, rank, 2) for name in SMALL}
    torch.save(found, out / f"{rank}.pt")
    td.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """What each of two ranks got, and the store."""
    out = tmp_path_factory.mktemp("ranks")
    path = store(out)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(one_rank, args=(port, path, out), nprocs=2)
    return path, [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_every_method_is_tried():
    assert set(SMALL) == set(METHODS)
    assert dist.world() == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_two_ranks_take_the_steps_of_one_process(both, name):
    path, ranks = both
    alone = taken(name, path)
    for rank in ranks:
        assert len(rank[name]["grads"]) == STEPS
        for step, (mine, want) in enumerate(zip(rank[name]["grads"], alone["grads"], strict=True)):
            for i, (a, b) in enumerate(zip(mine, want, strict=True)):
                assert (a is None) == (b is None)
                if b is not None:
                    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10, msg=lambda m, s=step, i=i: f"step {s}, parameter {i}: {m}")
        for key, want in alone["state"].items():
            torch.testing.assert_close(rank[name]["state"][key], want, rtol=1e-10, atol=1e-10, msg=lambda m, k=key: f"{k}: {m}")
