"""Features of a store, their cache, and the commands `embed`, `import`, `list`, `show`, `verify` and `export`."""

import h5py
import numpy as np
import pytest
import timm
import torch
from typer.testing import CliRunner

import encoders
import encoders.runtime.paths
from encoders.cli.main import app
from encoders.features.embed import extract_features, feature_cache_path
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store

NAME = "random_resnet10t:size=32,channels=1"


@pytest.fixture(scope="module")
def encoder():
    return encoders.load(NAME)


@pytest.fixture
def store(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (21, 40, 32, 1), dtype=np.uint8)
    return Store.open(save_store(tmp_path / "a.h5", images, patient=[f"p{i // 2}" for i in range(21)]))


class CountedForward:
    """Replaces `encoder.forward` and counts the images it receives."""

    def __init__(self, encoder, monkeypatch):
        self.seen, self.forward = 0, encoder.forward
        monkeypatch.setattr(encoder, "forward", self)

    def __call__(self, x, kind="pooled"):
        self.seen += len(x)
        return self.forward(x, kind)


def test_features_of_a_store_equal_those_of_its_images(encoder, store):
    images = store.images(np.arange(21))
    assert np.allclose(extract_features(encoder, store), encoder.encode(images).numpy(), atol=1e-5)
    assert np.allclose(extract_features(encoder, store, "tokens"), encoder.encode(images, "tokens").numpy(), atol=1e-5)


def test_batch_and_workers_do_not_change_the_features(encoder, store):
    want = extract_features(encoder, store, cache=False)
    for batch, workers in ((1, 0), (4, 0), (21, 0), (4, 2)):
        assert np.abs(extract_features(encoder, store, cache=False, batch=batch, workers=workers) - want).max() <= 1e-5


def test_cached_features_are_not_computed_again(encoder, store, monkeypatch):
    count, done = CountedForward(encoder, monkeypatch), []
    first = extract_features(encoder, store, progress=done.append)
    again = extract_features(encoder, store, progress=done.append)
    rows = extract_features(encoder, store, index=[5, 3, 3])
    assert count.seen == 21
    assert sum(done) == 42
    assert np.array_equal(first, again)
    assert np.array_equal(rows, first[[5, 3, 3]])


def test_only_the_requested_rows_are_computed_and_cached(encoder, store, monkeypatch):
    count = CountedForward(encoder, monkeypatch)
    rows = extract_features(encoder, store, index=[5, 3, 7])
    assert count.seen == 3
    assert np.array_equal(extract_features(encoder, store, index=[5, 3, 7]), rows)
    assert count.seen == 3
    assert np.allclose(extract_features(encoder, store)[[5, 3, 7]], rows, atol=1e-5)
    assert np.allclose(extract_features(encoder, store, index=[7, 3]), rows[[2, 1]], atol=1e-5)


def test_other_weights_pixels_or_kinds_do_not_share_a_cache(encoder, store, tmp_path):
    other = Store.open(save_store(tmp_path / "b.h5", store.images(np.arange(21)) // 2))
    places = [
        feature_cache_path(encoder, store, "pooled"),
        feature_cache_path(encoder, store, "tokens"),
        feature_cache_path(encoder, other, "pooled"),
    ]
    places.append(feature_cache_path(encoders.load(f"{NAME},seed=1"), store, "pooled"))
    assert len(set(places)) == 4


def test_a_damaged_cache_is_computed_again(encoder, store):
    want = extract_features(encoder, store)
    file = feature_cache_path(encoder, store, "pooled")
    file.write_bytes(file.read_bytes()[:300])
    assert np.array_equal(extract_features(encoder, store), want)


def test_an_interrupted_embedding_leaves_no_file(encoder, store, monkeypatch):
    def fails(x, kind):
        raise KeyboardInterrupt

    monkeypatch.setattr(encoder, "forward", fails)
    with pytest.raises(KeyboardInterrupt):
        extract_features(encoder, store)
    assert list(feature_cache_path(encoder, store, "pooled").parent.iterdir()) == []


def test_an_empty_index_is_rejected(encoder, store):
    with pytest.raises(InputError, match="no image to embed"):
        extract_features(encoder, store, index=[])


# --- the command line


def run(*args, status=0):
    got = CliRunner().invoke(app, [str(a) for a in args])
    if isinstance(got.exception, Exception) and not isinstance(got.exception, SystemExit):
        raise got.exception
    assert got.exit_code == status, got.output
    return got.output


def test_embed_writes_features_with_key_and_patient(encoder, store, tmp_path):
    run("embed", NAME, store.paths[0], tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.allclose(file["features"], encoder.encode(store.images(np.arange(21))).numpy(), atol=1e-5)
        assert [k.decode() for k in file["key"]] == list(store.column("key"))
        assert [p.decode() for p in file["patient"]] == list(store.column("patient"))
        assert file.attrs["encoder_sha256"] == encoder.sha256
    assert "pooled" in run("embed", NAME, store.paths[0], tmp_path / "other.h5", "--kind", "cls", status=2)
    assert not (tmp_path / "other.h5").exists()


def test_a_file_is_imported_listed_shown_verified_and_exported(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_OFFLINE", "1")
    torch.save(encoders.load("random_resnet10t").model.state_dict(), tmp_path / "w.pth")
    output = run(
        "import", tmp_path / "w.pth", "--arch", "resnet10t", "--mean", "0.5", "--std", "0.2,0.3,0.4", "--size", "64", "--name", "mine"
    )
    assert "nothing proves" in output
    assert "mine" in run("list")
    assert "std: [0.2, 0.3, 0.4]" in run("show", "mine")
    assert "canary ok" in run("verify")
    run("export", "mine", tmp_path / "out.safetensors")
    assert "warning" not in run("import", tmp_path / "out.safetensors", "--card", tmp_path / "out.yaml")
    assert "out: canary ok" in run("verify", "out", "mine")
    file = encoders.runtime.paths.zoo_dir() / "mine" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    assert "FAILED" in run("verify", "mine", status=1)
    with pytest.raises(InputError, match="switched off"):
        run("verify", "imagenet_resnet18")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), r"is not a file of any family that is known .*its tensors are conv1\.0\.weight, .*--arch"),
        (("--arch", "resnet10t"), "pixels are not known: pass --mean and --std"),
        (("--card", "c.yaml", "--arch", "resnet10t"), "--card describes the weights, and so do the options for arch"),
        (("--arch", "resnet10t", "--mean", "a", "--std", "1"), "--mean is 'a'"),
        (("--arch", "resnet10t", "--mean", "0.5,0.5", "--std", "1"), "mean has 2"),
        (("--arch", "resnet10t", "--mean", "127", "--std", "50"), "are not on .0, 1.; divide values for pixels"),
        (("--arch", "resnet10t", "--mean", "0.5", "--std", "1", "--model-arg", "x"), "write key=value"),
    ],
)
def test_an_import_with_missing_or_wrong_options_is_rejected(tmp_path, options, says):
    torch.save(timm.create_model("resnet10t").state_dict(), tmp_path / "mine.pth")
    with pytest.raises(InputError, match=says):
        run("import", tmp_path / "mine.pth", *options)


def test_an_import_of_no_file_is_rejected(tmp_path):
    with pytest.raises(InputError, match="there is no weight file"):
        run("import", tmp_path / "none.pth", "--arch", "resnet10t", "--mean", "0.5", "--std", "1")
