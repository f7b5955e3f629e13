"""Batches: bit-identical for any number of processes, threads, ranks and micro-batches."""

import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from encoders.augment import Augment, get_preset
from encoders.augment.masks import RandomTokens
from encoders.loading.batches import Batches
from encoders.loading.prefetch import DevicePrefetcher, list_tensors
from encoders.runtime.errors import InputError
from encoders.zoo.card import Preprocess
from tests.encoders.runtime.test_worker_process import busy_in_cpp

CXR = Preprocess(size=32, channels=1, mean=(0.5,), std=(0.25,))


class InMemory:
    """The part of a store that batches need."""

    def __init__(self, n=40, side=40, channels=1, broken=None):
        rng = np.random.default_rng(0)
        self.pixels = rng.random((n, side, side, channels), dtype=np.float32)
        self.broken = broken

    def __len__(self):
        return len(self.pixels)

    def unit_images(self, index):
        if self.broken is not None and self.broken in np.asarray(index):
            raise OSError("the disk is gone")
        return self.pixels[np.asarray(index)]


def batches(store=None, specs=None, **more):
    settings = {"seed": 5, "batch": 8} | more
    return Batches(store or InMemory(), specs or [get_preset("cxr"), get_preset("moco")], more.pop("preprocess", CXR), **settings)


def taken(source, steps):
    """All micro-batches of the steps, and no process left behind."""
    with source:
        return [micro for step in steps for micro in source.micro_batches(step)]


def joined(micros):
    """One list of tensors: the views, index and positions of all micro-batches, concatenated."""
    views = [torch.cat(view) for view in zip(*(m.views for m in micros), strict=True)]
    masks = [torch.cat(part) for part in zip(*([t for one in m.masks or [] for t in one] for m in micros), strict=True)]
    return [*views, *masks, torch.cat([m.index for m in micros]), torch.cat([m.positions for m in micros])]


def same(a, b):
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(("workers", "context"), [(4, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)])
def test_several_workers_give_the_same_bits_as_none(workers, context):
    mask = RandomTokens(tokens=16, ratio=0.75)
    here = taken(batches(mask=mask), range(7))
    there = taken(batches(mask=mask, workers=workers, context=context), range(7))
    assert same(joined(here), joined(there))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_micro_batch_sent_early_is_the_one_asked_for(workers):
    """As on a CUDA device; here the copies do nothing."""
    steps = [0, 1, 2, 7, 7, 3]
    want = joined([micro for step in steps for micro in batches(accumulate=2).micro_batches(step)])
    early = batches(accumulate=2, workers=workers)
    early._copy_ahead = True
    assert same(joined(taken(early, steps)), want)


def test_the_error_of_an_early_micro_batch_is_raised_when_it_is_needed():
    plain = batches()
    broken = next(plain.micro_batches(1)).index[0].item()
    early = batches(InMemory(broken=broken))
    early._copy_ahead = True
    assert same(joined(list(early.micro_batches(0))), joined(list(plain.micro_batches(0))))
    with pytest.raises(RuntimeError, match="OSError at step 1, rows"):
        list(early.micro_batches(1))


def test_copies_on_a_cpu_are_the_same_tensors():
    raw = batches(InMemory(side=32), mask=RandomTokens(tokens=16, ratio=0.75))._work.read_raw(0)
    copies = DevicePrefetcher(torch.device("cpu"))
    sent = copies.start_copy(raw)
    copies.hand_over(list_tensors(sent))
    assert all(one is other for one, other in zip(list_tensors(sent), list_tensors(raw), strict=True))
    assert len(list_tensors(raw)) == 3 + 4  # masks of two views


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_cuda_device_gets_what_the_cpu_makes(workers):
    want, got = (taken(batches(workers=workers, accumulate=2, device=device), [0, 1, 5]) for device in ("cpu", "cuda"))
    for one, other in zip(joined(got), joined(want), strict=True):
        torch.testing.assert_close(one.cpu(), other, atol=4e-3, rtol=0)  # 1e-3 of white, in units of the standard deviation


@pytest.mark.parametrize("side", [40, 37])
def test_ranks_and_micro_batches_concatenate_to_the_global_batch(side):
    store, whole = InMemory(side=side), None
    for world, accumulate in ((1, 1), (2, 1), (1, 4), (2, 2), (8, 1)):
        ranks = [batches(store, rank=rank, world=world, accumulate=accumulate) for rank in range(world)]
        got = [joined([micro for rank in ranks for micro in rank.micro_batches(step)]) for step in (0, 3, 9)]
        whole = whole or got
        assert all(same(a, b) for a, b in zip(whole, got, strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_jump_gives_what_the_sequence_gives(workers):
    in_order = joined(taken(batches(accumulate=2), [11]))
    source = batches(workers=workers, accumulate=2)
    assert same(joined(taken(source, [2, 3, 11, 0, 11])[-2:]), in_order)


def test_a_step_left_half_way_is_made_again_from_its_start():
    source = batches(workers=1, accumulate=2)
    want = joined(list(source.micro_batches(1)))
    next(iter(source.micro_batches(1)))
    assert same(joined(list(source.micro_batches(1))), want)
    source.close()


def test_an_epoch_shows_each_row_at_most_once_and_epochs_differ_in_order():
    source = batches(InMemory(43), index=np.arange(2, 43), batch=8)
    assert source.steps_per_epoch == 5
    first, second = (torch.cat([m.index for m in taken(source, range(e * 5, e * 5 + 5))]).tolist() for e in (0, 1))
    assert len(set(first)) == len(first) == 40
    assert set(first) <= set(range(2, 43))
    assert first != second


def test_positions_count_on_through_epochs_so_that_a_sample_seen_again_gets_another_view():
    source = batches(InMemory(8), [get_preset("cxr")])
    (one,), (two,) = taken(source, [0]), taken(source, [1])
    assert two.positions.tolist() == list(range(8, 16))
    again = [(one.index == row).nonzero().item() for row in two.index]
    assert not any(torch.equal(a, b) for a, b in zip(two.views[0], one.views[0][again], strict=True))


def test_the_two_views_of_a_sample_differ_but_come_from_the_same_image():
    plain, cropped = Augment(), Augment(crop=(0.3, 0.6))
    store = InMemory(side=32)
    (micro,) = taken(batches(store, [plain, cropped, cropped]), [0])
    whole = torch.from_numpy(store.pixels[micro.index]).permute(0, 3, 1, 2)
    torch.testing.assert_close(micro.views[0], (whole - 0.5) / 0.25)
    assert not torch.equal(micro.views[1], micro.views[2])


def test_each_view_has_the_size_its_augmentation_names():
    (micro,) = taken(batches(specs=[Augment(), Augment(size=16), Augment(size=24)]), [0])
    assert [tuple(view.shape) for view in micro.views] == [(8, 1, 32, 32), (8, 1, 16, 16), (8, 1, 24, 24)]


@pytest.mark.parametrize(("have", "want"), [(1, 3), (3, 1), (3, 3)])
def test_channels_are_those_of_the_preprocessing(have, want):
    preprocess = Preprocess(size=32, channels=want, mean=(0.5,) * want, std=(0.25,) * want)
    micro = next(Batches(InMemory(channels=have), [get_preset("moco")], preprocess, seed=0, batch=4).micro_batches(0))
    assert micro.views[0].shape == (4, want, 32, 32)


def test_weights_are_the_shares_in_which_rows_are_drawn():
    weights = np.arange(10.0)  # row 0 never
    source = batches(InMemory(10, side=8), [Augment(size=8)], batch=10, weights=weights)
    rows = torch.cat([m.index for m in taken(source, range(400))]).numpy()
    share = np.bincount(rows, minlength=10) / len(rows)
    assert share[0] == 0
    np.testing.assert_allclose(share, weights / weights.sum(), atol=4 * np.sqrt(0.2 * 0.8 / len(rows)))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_names_the_rows_it_happened_at_and_leaves_no_process(workers):
    source = batches(InMemory(8, broken=3), workers=workers)
    with pytest.raises(RuntimeError, match=r"(?s)OSError at step 0, rows .*3.*the disk is gone"):
        list(source.micro_batches(0))
    assert not multiprocessing.active_children()


def test_close_ends_the_workers():
    source = batches(workers=2)
    next(source.micro_batches(0))
    children = [child.pid for child in multiprocessing.active_children()]
    assert len(children) == 2
    source.close()
    time.sleep(0.2)
    assert not multiprocessing.active_children()
    assert not any(os.path.exists(f"/proc/{pid}") for pid in children)


class BusyInCpp(InMemory):
    """Reading starts threads that are in C++ code when the process ends."""

    def unit_images(self, index):
        busy_in_cpp()
        return super().unit_images(index)


@pytest.mark.slow
def test_close_is_clean_when_spawned_workers_have_threads_in_cpp(capfd):
    source = batches(BusyInCpp(), workers=1, context="spawn")
    next(source.micro_batches(0))
    workers = source._iterator._workers
    source.close()
    assert [worker.exitcode for worker in workers] == [0]
    assert "terminate called" not in capfd.readouterr().err


def test_loading_does_not_touch_the_random_numbers_of_the_model():
    torch.manual_seed(3)
    want = torch.rand(4)
    torch.manual_seed(3)
    taken(batches(workers=1), [0])
    assert torch.equal(torch.rand(4), want)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"batch": 41}, "batch is 41 but only 40"),
        ({"batch": 6, "accumulate": 4}, "multiple of 4"),
        ({"weights": np.zeros(40)}, "sampling weights"),
        ({"weights": np.ones(3)}, "expected 40 numbers"),
    ],
)
def test_settings_that_cannot_be_batched_are_errors(more, message):
    with pytest.raises(InputError, match=message):
        batches(**more)


def test_time_blocked_for_data_is_counted():
    source = batches()
    assert source.waited == 0
    list(source.micro_batches(0))
    assert source.waited > 0


@pytest.mark.parametrize(("workers", "context"), [(4, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)])
def test_a_real_store_gives_the_same_bits_through_several_workers(tmp_path, workers, context):
    from encoders.ingest.phantom.source import PhantomSource
    from encoders.ingest.shards import ingest
    from encoders.store.store import Store

    ingest(PhantomSource("cxr", patients=16, size=64), tmp_path / "phantoms.h5")
    store = Store.open(tmp_path / "phantoms.h5")
    here = joined(taken(batches(store), range(3)))
    assert same(here, joined(taken(batches(store, workers=workers, context=context), range(3))))
    plain = taken(batches(store, [Augment(size=64)]), [0])[0]
    stored = torch.from_numpy(store.unit_images(plain.index.numpy())).permute(0, 3, 1, 2)
    torch.testing.assert_close(plain.views[0], (stored - 0.5) / 0.25)


def test_gray_and_colour_stores_open_as_one_are_batched_together(tmp_path):
    from encoders.ingest.phantom.source import PhantomSource
    from encoders.ingest.shards import ingest
    from encoders.store.store import Store

    for kind, name in (("cxr", "gray.h5"), ("histology", "colour.h5")):
        ingest(PhantomSource(kind, patients=8, size=64), tmp_path / name)
    store = Store.open([tmp_path / "gray.h5", tmp_path / "colour.h5"])
    rgb = Preprocess(size=64, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    (micro,) = Batches(store, [Augment()], rgb, seed=0, batch=len(store)).micro_batches(0)
    torch.testing.assert_close(micro.views[0], torch.from_numpy(store.unit_images(micro.index.numpy())).permute(0, 3, 1, 2))
