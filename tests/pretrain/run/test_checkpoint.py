"""Checkpoints: what they may hold, how damage is detected, and which are kept."""

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.runtime import checkpoint
from pretrain.loop.setup import build_setup
from pretrain.loop.train import TrainState
from pretrain.run.restore import checkpoint_contents
from tests.pretrain.runs import METHODS, recipe, store

STATE = {
    "step": 3,
    "method": {"w": torch.arange(60_000.0).view(300, 200)},
    "groups": [{"lr": 0.1, "betas": (0.9, 0.95), "x": None}],
    7: True,
}


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def test_a_state_loads_as_it_was_saved_without_unpickling(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "step-00000003.pt", STATE)
    back = torch.load(tmp_path / "step-00000003.pt", weights_only=True)
    assert torch.equal(back["method"]["w"], STATE["method"]["w"])
    assert {k: v for k, v in back.items() if k != "method"} == {k: v for k, v in STATE.items() if k != "method"}


def test_equal_states_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        checkpoint.save_checkpoint(tmp_path / name / "step-00000003.pt", STATE)
    assert (tmp_path / "a" / "step-00000003.pt").read_bytes() == (tmp_path / "b" / "step-00000003.pt").read_bytes()


@pytest.mark.parametrize("bad", [np.float64(1.0), np.zeros(2), {1, 2}, torch.float32, object()])
def test_a_type_that_could_not_be_loaded_is_refused_when_saving(tmp_path, bad):
    with pytest.raises(TypeError, match=r"state\['a'\]\[1\] is a .*: a checkpoint holds only tensors and built-in types"):
        checkpoint.save_checkpoint(tmp_path / "x.pt", {"a": [1, bad]})
    assert not list(tmp_path.iterdir())


def test_a_view_is_saved_without_the_rest_of_its_storage(tmp_path):
    checkpoint.save_checkpoint(tmp_path / "x.pt", {"row": torch.zeros(1000, 1000)[3]})
    assert (tmp_path / "x.pt").stat().st_size < 10_000


class CountCopies(TorchDispatchMode):
    """Bytes that each copy from a GPU to the host moves."""

    def __init__(self):
        super().__init__()
        self.moved = []

    def __torch_dispatch__(self, function, types, given=(), more=None):
        out = function(*given, **(more or {}))
        if function is torch.ops.aten._to_copy.default and given[0].device.type == "cuda" and out.device.type == "cpu":
            self.moved.append(out.nbytes)
        return out


def test_a_save_copies_each_weight_from_a_gpu_once(images):
    """A real run with the tensors of a CUDA device, which FakeTensorMode needs no GPU for."""
    setup = build_setup(recipe(images, METHODS["moco"], "drop_path=0.0", "optim.kind=adamw"), "cpu")
    contents = checkpoint_contents(setup, TrainState())
    with FakeTensorMode(allow_non_fake_inputs=True):
        state = on_cuda(contents)
        with CountCopies() as copies:
            plain = checkpoint.to_plain_state(state)
    assert all(t.device.type == "cpu" for t in tensors(plain))
    assert len(copies.moved) == len(state["method"])
    assert sum(copies.moved) == sum(w.nbytes for w in state["method"].values())
    assert len(plain["encoder"]) > 10
    assert {id(weight) for weight in plain["encoder"].values()} <= {id(weight) for weight in plain["method"].values()}


def on_cuda(value, seen=None):
    """`value` with a CUDA tensor in place of each tensor, the same one for the same storage."""
    seen = {} if seen is None else seen
    if isinstance(value, torch.Tensor):
        if value.dtype == torch.uint8:
            return None  # the random numbers' state, which stays on the host
        return seen.setdefault(value.data_ptr(), torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda"))
    if isinstance(value, dict):
        return {key: on_cuda(inner, seen) for key, inner in value.items()}
    return [on_cuda(inner, seen) for inner in value] if isinstance(value, list) else value


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [t for each in inner for t in tensors(each)]


def test_views_that_are_equal_are_copied_once_and_views_that_differ_are_not_mixed_up(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    views = {
        "row": whole[1],
        "again": whole[1],
        "other": whole[2],
        "column": whole[:, 1],
        "turned": whole.T[1],
        "bits": whole[1].view(torch.int32),
    }
    plain = checkpoint.to_plain_state(views)
    assert plain["row"] is plain["again"]
    checkpoint.save_checkpoint(tmp_path / "x.pt", views)
    back = torch.load(tmp_path / "x.pt", weights_only=True)
    assert all(torch.equal(back[name], view) and back[name].dtype == view.dtype for name, view in views.items())


def test_a_save_of_cpu_tensors_copies_nothing(tmp_path):
    plain = checkpoint.to_plain_state(STATE)
    assert plain["method"]["w"].data_ptr() == STATE["method"]["w"].data_ptr()


@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed", "empty", "foreign", "gone"])
def test_a_damaged_file_is_detected(tmp_path, damage):
    path = tmp_path / "step-00000003.pt"
    checkpoint.save_checkpoint(path, STATE)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    if damage == "flipped":
        data[middle] ^= 1
    elif damage == "zeroed":
        data[middle : middle + 4096] = bytes(4096)
    path.write_bytes({"cut": data[:middle], "empty": b"", "foreign": b"GIF89a" + data[6:900]}.get(damage, data))
    if damage == "gone":
        path.unlink()
    with pytest.raises(checkpoint.DamagedCheckpoint, match=str(path)):
        checkpoint.load_checkpoint(path)


def test_the_newest_good_checkpoint_is_loaded_and_damaged_ones_are_reported(tmp_path):
    for step in (2, 4, 6):
        checkpoint.save_checkpoint(checkpoint.checkpoint_path(tmp_path, step), {"step": step})
    checkpoint.checkpoint_path(tmp_path, 6).write_bytes(b"torn")
    state, refused = checkpoint.load_newest(tmp_path)
    assert state == {"step": 4}
    assert len(refused) == 1
    assert "step-00000006.pt is damaged" in refused[0]


def test_no_checkpoint_is_not_an_error(tmp_path):
    assert checkpoint.load_newest(tmp_path) == (None, [])


def test_the_last_two_and_every_nth_are_kept(tmp_path):
    for step in range(2, 21, 2):
        checkpoint.checkpoint_path(tmp_path, step).write_bytes(b"")
        checkpoint.prune_checkpoints(tmp_path, keep_last=2, keep_every=8)
    assert checkpoint.list_steps(tmp_path) == [8, 16, 18, 20]
