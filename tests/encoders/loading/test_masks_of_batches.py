"""Masks of every generator belong to (seed, step): the same with workers, ranks, micro-batches, and after a jump to a later step."""

import numpy as np
import pytest
import torch

from encoders.augment import get_preset
from encoders.augment.context_masks import ContextBlocks
from encoders.augment.masks import Masks, MaskSpec, RandomTokens
from encoders.augment.square_masks import RandomSquares
from encoders.loading.batches import Batches
from encoders.loading.prefetch import DevicePrefetcher, list_tensors
from tests.encoders.loading.test_batches import CXR, InMemory, taken


class FirstView(MaskSpec):
    """A generator that hides nothing of the second view."""

    def draw(self, seed, positions, view):
        return RandomSquares(rows=4, columns=4, side=2).draw(seed, positions, view) if view == 0 else Masks()


SPECS = {
    "random": RandomTokens(tokens=16),
    "squares": RandomSquares(rows=4, columns=4, side=2),
    "context": ContextBlocks(rows=6, columns=6, batch=8),
}


def batches(spec, **more):
    return Batches(InMemory(side=32), [get_preset("cxr")] * 2, CXR, seed=5, batch=8, mask=spec, **more)


def masks_of(micros):
    """Per view and field: the tensors of all micro-batches, concatenated."""
    per_view = zip(*(micro.masks for micro in micros), strict=True)
    return [torch.cat(parts) for view in per_view for parts in zip(*view, strict=True)]


@pytest.mark.parametrize("name", SPECS)
def test_masks_do_not_depend_on_how_a_step_is_computed(name):
    spec = SPECS[name]
    want = {step: masks_of(taken(batches(spec), [step])) for step in (0, 1)}
    assert any((a != b).any() for a, b in zip(want[0], want[1], strict=True) if a.shape == b.shape) or want[0][0].shape != want[1][0].shape
    for settings in ({"accumulate": 4}, {"workers": 1, "accumulate": 2}):
        for step in want:
            got = masks_of(taken(batches(spec, **settings), [step]))
            assert all(torch.equal(a, b) for a, b in zip(got, want[step], strict=True))
    for step in want:
        ranks = [micro for rank in (0, 1) for micro in taken(batches(spec, rank=rank, world=2), [step])]
        assert all(torch.equal(a, b) for a, b in zip(masks_of(ranks), want[step], strict=True))


@pytest.mark.parametrize("spec", [*SPECS.values(), FirstView()], ids=lambda spec: type(spec).__name__)
def test_copies_keep_the_kind_and_the_order_of_masks(spec):
    raw = batches(spec)._work.read_raw(0)
    copies = DevicePrefetcher(torch.device("cpu"))
    sent = copies.start_copy(raw)
    copies.hand_over(list_tensors(sent))
    assert [type(view) for view in sent.masks] == [type(view) for view in raw.masks]
    assert all(a is b for a, b in zip(list_tensors(sent), list_tensors(raw), strict=True))
    assert {id(part) for view in raw.masks for part in view} <= {id(part) for part in list_tensors(raw)}


def test_a_view_without_masks_travels_as_an_empty_one():
    for workers in (0, 1):
        micro = taken(batches(FirstView(), workers=workers), [0])[0]
        assert type(micro.masks[1]) is Masks
        assert list(micro.masks[1]) == []
        assert micro.masks[0].hidden.any(dim=1).all()


def test_the_hidden_tokens_of_a_subset_are_its_masked_ones():
    masks = RandomTokens(tokens=16, ratio=0.75).draw(0, np.arange(3), 0)
    assert masks.hidden.shape == (3, 16)
    for hidden, masked in zip(masks.hidden, masks.masked, strict=True):
        assert torch.equal(hidden.nonzero().flatten(), masked)
