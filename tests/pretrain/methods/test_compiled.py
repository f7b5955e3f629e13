"""torch.compile: the forward pass of every method in training is one graph, which the steps share."""

import pytest
import torch

from pretrain.loop.compiled import compile_method
from pretrain.methods import METHODS
from tests.pretrain import tiny

STEPS = 3


def network(name):
    return tiny.vit(depth=1) if "ViT" in METHODS[name].traits.networks else tiny.backbone_for(name)


def losses(method, steps=STEPS):
    """The loss of each of some steps, at different progress."""
    ids = torch.arange(16) if method.needs_patients() else None
    return [tiny.step(method, *tiny.batch(method), progress=i / 7, patient_ids=ids) for i in range(steps)]


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_traces_whole_and_once(name):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    method = tiny.small_method(name, network(name))
    names = list(method.state_dict())
    compile_method(method, backend=count, fullgraph=True)  # raises at a graph break
    torch.manual_seed(0)
    compiled = losses(method)
    assert len(graphs) == 1
    assert list(method.state_dict()) == names
    torch.manual_seed(0)
    assert compiled == pytest.approx(losses(tiny.small_method(name, network(name))), rel=1e-5)


def test_a_decision_by_progress_is_refused():
    """The check can fail: a Python branch on `progress` is a graph break."""
    method = tiny.small_method("vicreg", tiny.vit(depth=1))
    plain = method.forward
    method.forward = lambda views, masks, progress, patient_ids=None: plain(views, masks, 0.0 if progress < 0.1 else 1.0)
    compile_method(method, backend="eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        losses(method, steps=1)
