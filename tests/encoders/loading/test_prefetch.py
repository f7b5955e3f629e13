"""The order of work on a device: the next micro-batch is copied and augmented on the side stream while a step's backward pass runs."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from encoders.augment import get_preset
from encoders.augment.masks import RandomTokens
from encoders.loading import batches as loading
from encoders.loading.batches import Batches
from encoders.loading.prefetch import DevicePrefetcher
from encoders.zoo.card import Preprocess
from tests.device_counts import OperationCount, fake_device
from tests.encoders.loading.test_batches import InMemory

PIXELS = Preprocess(size=16, channels=1, mean=(0.5,), std=(0.25,))


class Streams:
    """CUDA's streams without CUDA: which one is current, and what was asked of them, in order."""

    def __init__(self, monkeypatch):
        self.current, self.events = "training", []
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "side")
        monkeypatch.setattr(torch.cuda, "stream", self.use)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(self))
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda part: part)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda part, stream: self.events.append(("record", id(part), stream.name)))

    @contextmanager
    def use(self, name):
        before, self.current = self.current, name or self.current
        yield
        self.current = before


class Stream:
    def __init__(self, streams):
        self.name, self.streams = streams.current, streams

    def wait_stream(self, other):
        self.streams.events.append(("wait", self.name, other))


@pytest.fixture
def streams(monkeypatch):
    streams, make = Streams(monkeypatch), loading.make_views

    def make_views(images, raw, *rest):
        assert images.device.type == raw.packed.buffer.device.type == "cuda"
        streams.events.append(("augment", None, streams.current))
        return make(images, raw, *rest)

    monkeypatch.setattr(loading, "make_views", make_views)
    return streams


def device_batches(device, accumulate):
    mask = RandomTokens(tokens=16, ratio=0.75)
    specs = [get_preset("cxr"), get_preset("moco")]
    return Batches(
        InMemory(side=20), specs, PIXELS, seed=5, batch=8, accumulate=accumulate, mask=mask, device=device, patients=np.arange(40)
    )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_next_micro_batch_is_augmented_on_the_side_stream_after_the_backward_pass_and_before_the_host_waits(streams, accumulate):
    with fake_device() as device:
        source = device_batches(device, accumulate)
        for step in range(3):
            for micro in source.micro_batches(step):
                assert all(part.device.type == "cuda" for part in micro.list_tensors())
                streams.events.append(("backward", None, streams.current))
            streams.events.append(("optimizer", None, streams.current))  # where the host waits for the step
        kinds = [(kind, where) for kind, _, where in streams.events if kind in ("augment", "backward", "optimizer")]
    step = [("backward", "training"), ("augment", "side")] * accumulate + [("optimizer", "training")]
    assert kinds == [("augment", "side"), *step * 3]


def test_training_waits_for_the_side_stream_and_every_tensor_is_recorded_before_it_is_read(streams):
    with fake_device() as device:
        source = device_batches(device, 1)
        for step in range(2):
            streams.events.clear()
            (micro,) = source.micro_batches(step)
            handed = [event for event in streams.events if event[0] in ("wait", "record")]
            assert handed[0] == ("wait", "training", "side")
            recorded = {(number, stream) for _, number, stream in handed[1:]}
            assert recorded == {(id(part), "training") for part in micro.list_tensors()}
            assert len(micro.list_tensors()) == 2 + 2 * 2 + 2  # views, masks, rows and positions


def test_a_step_of_augmentation_has_no_copy_that_the_host_waits_for(streams):
    with fake_device() as device:
        source = device_batches(device, 1)
        next(source.micro_batches(0))  # the constants
        with OperationCount() as count:
            next(source.micro_batches(5))
    assert not count.blocking
    assert count.uploads == 3 + 4 + 1  # images, rows, positions; four masks; one buffer of parameters


def test_on_a_cpu_nothing_is_handed_over():
    part = torch.ones(2)
    copies = DevicePrefetcher(torch.device("cpu"))
    with copies.side_stream():
        copies.hand_over([part])
    assert copies.stream is None
