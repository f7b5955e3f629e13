"""Two ranks and one process get the same gradient: losses over the whole batch use the rows of all ranks."""

import pytest
import torch
import torch.distributed as td

from encoders.runtime import dist
from pretrain.methods.barlowtwins import barlow_twins_loss
from pretrain.methods.mocov3 import contrastive_loss
from pretrain.methods.precision import l2_normalize
from pretrain.methods.simclr import nt_xent
from pretrain.methods.vicreg import vicreg_terms
from tests.ranks import run_on_two_ranks

LOSSES = {
    "simclr": lambda a, b: nt_xent(dist.gather(l2_normalize(a)), dist.gather(l2_normalize(b)), 0.1),
    "mocov3": lambda a, b: contrastive_loss(dist.gather(l2_normalize(a)), dist.gather(l2_normalize(b).detach()), 0.2),
    "barlowtwins": lambda a, b: barlow_twins_loss(dist.gather(a), dist.gather(b), 0.0051),
    "vicreg": lambda a, b: sum(vicreg_terms(dist.gather(a), dist.gather(b))),
}


def gradients(part):
    """For each loss the gradient of one weight matrix, from the rows `part` of a batch of 8."""
    g = torch.Generator().manual_seed(0)
    x, y, start = (torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((8, 6), (8, 6), (6, 5)))
    by_loss = {}
    for name, loss in LOSSES.items():
        weight = start.clone().requires_grad_()
        loss(x[part] @ weight, y[part] @ weight).backward()
        by_loss[name] = weight.grad
    return by_loss


def one_rank(rank, folder):
    own = gradients(slice(4 * rank, 4 * rank + 4))
    for grad in own.values():
        td.all_reduce(grad)
        grad /= 2  # DDP's mean over ranks
    if rank == 0:
        torch.save(own, folder / "grads.pt")


@pytest.mark.slow
def test_two_ranks_and_one_process_get_the_same_gradient(tmp_path):
    run_on_two_ranks(one_rank, tmp_path)
    two = torch.load(tmp_path / "grads.pt", weights_only=True)
    for name, want in gradients(slice(0, 8)).items():
        torch.testing.assert_close(two[name], want, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")
