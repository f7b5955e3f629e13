"""Precision of features: what is computed, which key it has, and that bf16 and fp32 are never mixed."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import encoders
from encoders.features.embed import extract_features, feature_cache_path
from encoders.features.embed_slides import write_all_slide_features
from encoders.runtime import arithmetic
from encoders.runtime.arithmetic import resolve_training_precision, use_precision, without_tf32
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.encoders.features.test_embed import run

NAME = "random_resnet10t:size=32,channels=1"


@pytest.fixture
def store(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (8, 40, 32, 1), dtype=np.uint8)
    slides = {"slide": ["a", "a", "a", "a", "b", "b", "b", "b"], "x": np.arange(8.0), "y": np.zeros(8)}
    return Store.open(save_store(tmp_path / "a.h5", images, meta=slides))


def tf32():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def tf32_allowed():
    before = tf32()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = True, True
    yield
    assert tf32() == (True, True), "restored"
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("name", [NAME, f"{NAME},stages=1/pooled", f"{NAME}+random_resnet10t:size=32,channels=1,seed=1"])
def test_networks_run_without_tf32_in_products_and_convolutions(name, store, tf32_allowed):
    encoder, seen = encoders.load(name), []
    for part in encoder.parts or (encoder,):
        part.model.register_forward_hook(lambda *_: seen.append(tf32()))
    extract_features(encoder, store, cache=False)
    encoder.encode(store.images([0]))
    assert len(seen) >= 2
    assert set(seen) == {(False, False)}


def test_tf32_is_restored_after_an_error(tf32_allowed):
    with pytest.raises(RuntimeError, match="inside"), without_tf32():
        assert tf32() == (False, False)
        raise RuntimeError("inside")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_precision_overrides_the_autocast_around_it(precision, dtype):
    layer, x = nn.Linear(4, 4), torch.ones(2, 4)
    with torch.autocast("cpu", torch.bfloat16), use_precision(torch.device("cpu"), precision):
        assert layer(x).dtype == dtype


def test_bf16_features_are_close_to_fp32_stored_as_float32_and_cached_apart(store):
    full, half = extract_features(encoders.load(NAME), store), extract_features(encoders.load(NAME).with_precision("bf16"), store)
    assert half.dtype == np.float32
    relative = np.linalg.norm(half - full) / np.linalg.norm(full)
    assert 1e-5 < relative < 0.03  # bf16 has 8 bits of mantissa
    assert np.array_equal(extract_features(encoders.load(NAME), store), full)  # from the cache, and not those in bf16
    assert np.array_equal(extract_features(encoders.load(NAME).with_precision("bf16"), store), half)


def test_keys_of_fp32_are_those_of_earlier_versions(monkeypatch):
    """The two keys were computed by the version before precisions."""
    monkeypatch.setattr(torch, "__version__", "2.14.1+cpu")

    class Known:
        sha256, fingerprint, attrs, precision = "e" * 64, "f" * 64, {"unit": {"scale": 255.0, "offset": 0.0}}, "fp32"

    assert feature_cache_path(Known(), Known(), "pooled").name == "63beb19c32044df4245fc5c2d6b47e89.npy"
    assert feature_cache_path(Known(), Known(), "tokens", np.array([3, 1])).name == "4325b77f9aa733c1449dc861abad047f.npy"
    half = Known()
    half.precision = "bf16"
    places = {feature_cache_path(e, Known(), "pooled", rows) for e in (Known(), half) for rows in (None, np.array([3, 1]))}
    assert len(places) == 4


def test_every_part_computes_in_the_precision_and_pixels_have_none(store):
    joined = encoders.load(f"{NAME}+pixels").with_precision("bf16")
    assert [part.precision for part in joined.parts] == ["bf16", "fp32"]
    alone = encoders.load(NAME).with_precision("bf16")
    x = extract_features(alone, store)
    assert np.array_equal(extract_features(joined, store)[:, : x.shape[1]], x / np.linalg.norm(x, axis=1, keepdims=True))


def test_embed_writes_the_precision_and_says_how_features_are_stored(store, tmp_path):
    assert "stored as float32" in run("embed", NAME, store.paths[0], tmp_path / "half.h5", "--precision", "bf16")
    assert "bf16" not in run("embed", NAME, store.paths[0], tmp_path / "full.h5")
    half, full = (h5py.File(tmp_path / f"{name}.h5") for name in ("half", "full"))
    assert (half.attrs["precision"], full.attrs["precision"]) == ("bf16", "fp32")
    assert half["features"].dtype == np.float32
    assert not np.array_equal(half["features"], full["features"])
    assert "fp16" in run("embed", NAME, store.paths[0], tmp_path / "no.h5", "--precision", "fp16", status=2)


@pytest.mark.parametrize(("first", "second"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_a_folder_of_slides_holds_one_precision(first, second, store, tmp_path):
    out = tmp_path / "slides"
    assert write_all_slide_features(encoders.load(NAME).with_precision(first), store, out) == (2, 0)
    (out / "b.h5").unlink()
    with pytest.raises(InputError, match=f"computed in {first}; write those in {second} to another folder"):
        write_all_slide_features(encoders.load(NAME).with_precision(second), store, out)
    assert write_all_slide_features(encoders.load(NAME).with_precision(first), store, out) == (1, 1)


def test_auto_is_fp32_on_a_cpu_and_half_precision_on_a_gpu(monkeypatch):
    assert resolve_training_precision("auto", torch.device("cpu")) == "fp32"
    for native, want in ((True, "bf16"), (False, "fp16")):
        monkeypatch.setattr(arithmetic, "has_bf16", lambda device, native=native: native)
        assert resolve_training_precision("auto", "cuda:0") == want
        assert resolve_training_precision("fp32", "cuda:0") == "fp32"
