"""Prepared batches: the path of a GPU gives what a CPU gives, sends bytes, and makes neither side wait."""

import numpy as np
import pytest
import torch

import encoders
from encoders.features import embed, input_batches
from encoders.features.embed import extract_features
from encoders.features.input_batches import iterate_inputs, to_unit_planar
from encoders.runtime.device_copies import HostCopy, fetch_one_late
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import backbone
from encoders.zoo.encoder import Encoder
from tests.device_counts import OperationCount, fake_device

NAME = "random_resnet10t:size=32,channels=1"
TOLERANCE = 2e-6  # of a prepared pixel, in units of its standard deviation: the order of two float32 operations


@pytest.fixture
def device_path(monkeypatch):
    """A CPU takes the path of a CUDA device."""
    monkeypatch.setattr(input_batches, "prepares_on_device", lambda device: True)


def pixels(n, h, w, channels=1, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (n, h, w, channels), dtype=dtype, endpoint=True)


def stores(folder):
    """Stores of every kind of pixels, by name."""
    gray = save_store(folder / "gray.h5", pixels(9, 40, 33))
    colour = save_store(folder / "colour.h5", pixels(5, 40, 33, 3), modality="histology")
    deep = save_store(folder / "deep.h5", pixels(6, 40, 33, dtype=np.uint16))
    other_size = save_store(folder / "other.h5", pixels(4, 25, 61))
    return {"gray": [gray], "colour": [colour], "16 bits": [deep], "two sizes": [gray, other_size], "two depths": [gray, deep]}


def inputs(encoder, store, batch=4, **more):
    rows = np.arange(len(store))[::-1]
    return list(iterate_inputs(encoder, store, [rows[i : i + batch] for i in range(0, len(rows), batch)], **more))


@pytest.mark.parametrize(
    ("kind", "resize"),
    [("gray", "crop"), ("colour", "crop"), ("16 bits", "pad"), ("two sizes", "pad"), ("two sizes", "squash"), ("two depths", "crop")],
)
def test_the_path_of_a_device_gives_the_input_of_a_cpu(kind, resize, tmp_path, monkeypatch):
    store = Store.open(stores(tmp_path)[kind])
    encoder = encoders.load(f"{NAME},resize={resize}")
    want = inputs(encoder, store)
    monkeypatch.setattr(input_batches, "prepares_on_device", lambda device: True)
    got = inputs(encoder, store)
    assert [x.shape for x in got] == [x.shape for x in want]
    assert max((a - b).abs().max().item() for a, b in zip(got, want, strict=True)) <= TOLERANCE


def test_the_inputs_of_every_part_are_prepared(tmp_path, device_path):
    store = Store.open(stores(tmp_path)["two sizes"])
    joined = encoders.load(f"{NAME}+random_vit_tiny_patch16_224:size=48")
    for x in inputs(joined, store):
        assert [tuple(own.shape[1:]) for own in x] == [(1, 32, 32), (3, 48, 48)]
    (first, *_) = inputs(joined, store)
    for own, part in zip(first, joined.parts, strict=True):
        assert torch.allclose(own, inputs(part, store)[0], atol=TOLERANCE)


def test_loader_processes_give_the_same_input(tmp_path, device_path):
    store, encoder = Store.open(stores(tmp_path)["gray"]), encoders.load(NAME)
    assert all(torch.equal(a, b) for a, b in zip(inputs(encoder, store, workers=1), inputs(encoder, store), strict=True))


def test_no_more_processes_are_started_than_there_are_batches(tmp_path, monkeypatch):
    started, loader = [], input_batches.DataLoader

    def counted(*args, num_workers, **more):
        started.append(num_workers)
        return loader(*args, num_workers=0, **{**more, "multiprocessing_context": None})

    monkeypatch.setattr(input_batches, "DataLoader", counted)
    store, encoder = Store.open(stores(tmp_path)["gray"]), encoders.load(NAME)
    for batch in (4, 9):
        inputs(encoder, store, batch=batch, workers=16)
    assert started == [3, 1]


def test_features_through_the_path_of_a_device_equal_those_of_a_cpu(tmp_path, monkeypatch):
    store, encoder = Store.open(stores(tmp_path)["two sizes"]), encoders.load(NAME)
    want = extract_features(encoder, store, batch=4, cache=False)
    monkeypatch.setattr(input_batches, "prepares_on_device", lambda device: True)
    assert np.abs(extract_features(encoder, store, batch=4, cache=False) - want).max() < 1e-5


def test_bytes_are_sent_where_nothing_is_lost_and_are_the_images_in_the_unit_range(tmp_path):
    for kind, paths in stores(tmp_path).items():
        store = Store.open(paths)
        for row in range(len(store)):
            images, white = store.compact_images([row])
            assert images.dtype == (np.uint8 if kind in ("gray", "colour") else np.float32)
            got = to_unit_planar(torch.from_numpy(images), white).permute(0, 2, 3, 1).numpy()
            assert np.array_equal(np.broadcast_to(got, store.unit_images([row]).shape), store.unit_images([row]))


def test_the_next_batch_is_read_before_the_features_of_a_batch_are_fetched(tmp_path, monkeypatch, device_path):
    store, encoder, events = Store.open(stores(tmp_path)["gray"]), encoders.load(NAME), []
    read, forward, wait = store.compact_images, encoder.forward, HostCopy.wait
    monkeypatch.setattr(store, "compact_images", lambda rows: events.append("read") or read(rows))
    monkeypatch.setattr(encoder, "forward", lambda x, kind: events.append("compute") or forward(x, kind))
    monkeypatch.setattr(HostCopy, "wait", lambda self: events.append("fetch") or wait(self))
    extract_features(encoder, store, batch=3, cache=False)
    assert events == ["read", "compute", "read", "compute", "fetch", "read", "compute", "fetch", "fetch"]


def test_outputs_are_fetched_in_order_and_none_is_lost():
    for n in (0, 1, 2, 5):
        assert [x.item() for x in fetch_one_late(torch.tensor(i) for i in range(n))] == list(range(n))


@pytest.mark.parametrize(("channels", "resize"), [(1, "crop"), (3, "pad"), (1, "squash")])
def test_the_host_does_not_wait_while_a_device_prepares_and_embeds(channels, resize):
    """And no more operations are queued for a larger batch."""
    card = encoders.load(f"random_resnet10t:size=32,channels={channels},resize={resize}").card
    with fake_device() as device:
        encoder, launches = Encoder(card, torch.nn.Identity()), []
        with device:
            encoder.model = backbone.build_backbone(card.arch, {}, channels, 32)
        encoder.device = device
        for batch in (2, 64):
            images = torch.empty(batch, 40, 33, 3, dtype=torch.uint8, device=device)
            with OperationCount() as count:
                encoder.forward(encoder.prepare(to_unit_planar(images, 255.0)))
            assert not count.blocking
            launches.append(count.launches)
        assert launches[1] <= launches[0]


def test_a_version_of_features_is_raised_deliberately():
    assert embed.VERSION == 2  # the path of a device gives the same values: caches stay valid
