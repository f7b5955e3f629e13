"""Parameters of a network that a method never uses: found, frozen, and no obstacle to DDP; numbers are those of a single process."""

import pytest
import torch

from encoders.loading.batches import Batches
from encoders.runtime import optim
from encoders.runtime.stop import StopRequest
from encoders.store.store import Store
from encoders.zoo.preprocess import Preprocess
from pretrain.loop.train import TrainState, fit
from pretrain.loop.unused_parameters import freeze_unused_parameters, list_without_gradient
from pretrain.methods import METHODS
from pretrain.recipe.config import augmentation, load_recipe
from tests.pretrain import tiny
from tests.pretrain.runs import store
from tests.ranks import run_on_two_ranks

POOLED = {"map": {"global_pool": "map", "class_token": False}, "fc_norm": {"global_pool": "avg", "fc_norm": True}}
PATHS_OF = {"map": "attn_pool.", "fc_norm": "fc_norm."}
BATCH = 8


def unused_of(method):
    views, masks = tiny.batch(method)
    method(views, masks, 0.0, torch.arange(16) if method.needs_patients() else None)["loss"].backward()
    return list_without_gradient(method)


@pytest.mark.parametrize("name", METHODS)
def test_every_trainable_parameter_of_a_method_gets_a_gradient(name):
    assert unused_of(tiny.small_method(name)) == set()


@pytest.mark.parametrize("pooling", POOLED)
def test_pooling_that_mae_does_not_use_is_found_and_frozen(pooling):
    method = tiny.small_method("mae", tiny.vit(**POOLED[pooling]))
    unused = unused_of(method)
    assert unused
    assert all(name.startswith("vit." + PATHS_OF[pooling]) for name in unused)
    assert set(freeze_unused_parameters(method, unused, torch.device("cpu"))) == unused
    assert {name for name, p in method.named_parameters() if p.grad is None and p.requires_grad} == set()


@pytest.mark.parametrize("pooling", POOLED)
def test_pooling_that_a_method_uses_is_trained(pooling):
    assert unused_of(tiny.small_method("simclr", tiny.vit(**POOLED[pooling]))) == set()


def train_steps(pooling, path, rank=0, world=1):
    """The parameters of MAE after two steps of the real loop with AdamW, whose weight decay must not reach unused parameters either."""
    method = tiny.small_method("mae", tiny.vit(**POOLED[pooling])).double()
    cfg = load_recipe("cxr_mae_tiny", ["data.store=x", "precision=fp32", f"batch={BATCH}", "optim.weight_decay=0.5", "optim.eps=0.01"])
    prep = Preprocess(size=32, resize="crop", channels=1, mean=(0.5,), std=(0.25,))
    method.register_forward_pre_hook(lambda m, args: ([v.double() for v in args[0]], *args[1:]))
    optimizer = optim.build_optimizer(method.param_groups(), cfg.optim, BATCH)
    with Batches(
        Store.open(path), method.views(augmentation(cfg)), prep, seed=0, batch=BATCH, rank=rank, world=world, mask=method.mask_spec()
    ) as batches:
        fit(
            method, batches, optimizer, torch.amp.GradScaler(enabled=False), cfg, 2, 0, TrainState(), lambda *a, **k: None, lambda s: None,
            StopRequest(), torch.device("cpu"),
        )  # fmt: skip
    return {name: value.clone() for name, value in method.state_dict().items()}


def one_rank(rank, path, out):
    torch.save({pooling: train_steps(pooling, path, rank, 2) for pooling in POOLED}, out / f"{rank}.pt")


@pytest.mark.slow
def test_two_ranks_train_a_network_with_unused_parameters_as_one_process_does(tmp_path):
    path = store(tmp_path)
    run_on_two_ranks(one_rank, path, tmp_path)
    for rank in range(2):
        states = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for pooling, state in states.items():
            alone = train_steps(pooling, path)
            for key, want in alone.items():
                torch.testing.assert_close(state[key], want, rtol=1e-9, atol=1e-9, msg=lambda m, k=key: f"{k}: {m}")
