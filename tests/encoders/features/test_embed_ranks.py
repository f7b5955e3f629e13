"""Ranks that share an embedding or a search: the result is bit-identical to that of one process, also with a partial last batch."""

import os

import numpy as np
import pytest

import encoders
from encoders.features import nearest
from encoders.features.embed import extract_features, feature_cache_path, write_features
from encoders.runtime import dist
from encoders.runtime.shard_work import take_rank_pieces
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.ranks import run_on_two_ranks

NAME = "random_resnet10t:size=32,channels=1"
BATCH, SEARCHED = 4, 8  # images per batch, query rows per search
FEW = [5, 3, 7]  # less than a batch: the second rank has no batch of its own
KINDS = ("pooled", "tokens")


def embed_and_search(out, paths):
    """Writes the features, the cached files, and per rank the neighbours and the number of images embedded."""
    nearest.QUERY_CHUNK = SEARCHED
    encoder, done, own = encoders.load(NAME), [], []
    forward = encoder.forward
    encoder.forward = lambda x, kind: own.append(len(x)) or forward(x, kind)
    for i, path in enumerate(paths):
        store = Store.open(path)
        for kind in KINDS:
            features = extract_features(encoder, store, kind, batch=BATCH, ranks=True, progress=done.append)
            again = extract_features(encoder, store, kind, batch=BATCH, ranks=True)  # from the main rank's cache
            if dist.is_main():
                assert np.array_equal(features, again)
                write_features(out / f"{i}-{kind}.h5", features, encoder, store, kind)
                (out / f"{i}-{kind}.npy").write_bytes(feature_cache_path(encoder, store, kind).read_bytes())
            else:
                assert features.size == again.size == 0
    few = extract_features(encoder, Store.open(paths[0]), index=FEW, batch=BATCH, cache=False, ranks=True)
    rng = np.random.default_rng(0)
    near = nearest.find_neighbours(rng.normal(size=(60, 6)), rng.normal(size=(37, 6)), 5, ranks=True)
    np.savez(out / f"rank{dist.rank()}.npz", few=few, similarity=near[0], near=near[1], seen=sum(done), own=sum(own))


def one_rank(rank, home, paths):
    os.environ["ISOGRAFT_CACHE"] = str(home / f"cache{rank}")  # one cache per rank: ranks on different nodes do not share it
    embed_and_search(home, paths)
    assert (home / "cache1").exists() is False


@pytest.mark.slow
def test_two_ranks_are_bit_identical_to_one_process(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    paths = [save_store(tmp_path / f"{n}.h5", rng.integers(0, 256, (n, 40, 32, 1), dtype=np.uint8)) for n in (18, 23)]  # 5 batches, 6
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir(), one.mkdir()
    run_on_two_ranks(one_rank, two, paths)
    monkeypatch.setenv("ISOGRAFT_CACHE", str(one / "cache"))
    monkeypatch.setattr(nearest, "QUERY_CHUNK", SEARCHED)
    embed_and_search(one, paths)
    files = sorted(path.name for path in one.iterdir() if path.is_file() and path.suffix != ".npz")
    assert len(files) == 8
    for name in files:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    alone, main, other = (dict(np.load(path)) for path in (one / "rank0.npz", two / "rank0.npz", two / "rank1.npz"))
    assert main["seen"] == alone["seen"] == 2 * (18 + 23)
    assert max(main["own"], other["own"]) < 0.6 * alone["own"]  # the work is shared
    assert len(other["few"]) == 0
    for name in ("few", "similarity", "near"):
        assert np.array_equal(main[name], alone[name]), name
    assert np.array_equal(other["near"], alone["near"])


def test_pieces_are_dealt_in_turn_and_all_ranks_have_equally_many(monkeypatch):
    monkeypatch.setattr(dist, "world_size", lambda: 3)
    dealt = []
    for rank in range(3):
        monkeypatch.setattr(dist, "rank", lambda rank=rank: rank)
        dealt.append(take_rank_pieces("abcdefg"))
    assert ["".join(pieces) for pieces in dealt] == ["adg", "beg", "cfg"]


def test_a_process_knows_its_index_before_it_joins_the_process_group(monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_STEP_ID", "MASTER_ADDR", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    assert dist.local_rank() == 0
    monkeypatch.setenv("SLURM_LOCALID", "3")
    assert dist.local_rank() == 0  # the process of the sbatch script is not a rank
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("MASTER_ADDR", "n1")
    assert dist.local_rank() == 3
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert dist.local_rank() == 2
