"""Checkpoints: what they may hold, how damage is detected, and which are kept."""

import numpy as np
import pytest
import torch

from encoders.runtime import checkpoint

STATE = {
    "step": 3,
    "method": {"w": torch.arange(60_000.0).view(300, 200)},
    "groups": [{"lr": 0.1, "betas": (0.9, 0.95), "x": None}],
    7: True,
}


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
