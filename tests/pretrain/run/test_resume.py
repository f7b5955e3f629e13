"""A resumed run equals the uninterrupted run: after a signal, a kill, and with a damaged checkpoint."""

import json
import os
import socket

import pytest
import torch

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.zoo.zoo import load_encoder
from pretrain.loop import train
from pretrain.methods import METHODS as EVERY_METHOD
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from pretrain.run.export import export_run
from pretrain.run.restore_newest import restore_newest
from tests.pretrain.runs import METHODS, recipe, run, sigterm_at_step, store
from tests.pretrain.tiny import CNN_ONLY


def last(where):
    return checkpoint.load_checkpoint(checkpoint.checkpoint_path(where.checkpoints, checkpoint.list_steps(where.checkpoints)[-1]))


def same(a, b):
    """Whether two checkpoints hold the same numbers: weights, queue, momenta, optimizer."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def equal_runs(a, b, but="time"):
    """Asserts that two runs ended with the same numbers and logged the same metrics, except times and those that start with `but`."""
    first, second = last(a), last(b)
    assert first["step"] == second["step"]
    assert same(first["method"], second["method"])
    assert same(first["optimizer"], second["optimizer"])
    logs = [[json.loads(line) for line in (r.path / "metrics.jsonl").read_text().splitlines()] for r in (a, b)]
    kept = [[{k: v for k, v in line.items() if not k.startswith(("time", but))} for line in lines] for lines in logs]
    assert kept[0] == kept[1]
    return True


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_stopped_by_a_signal_and_resumed_equals_the_uninterrupted_run(method, images, monkeypatch):
    uninterrupted = run(images, METHODS[method], "uninterrupted")
    where = rundir.run_dir_for("stopped")
    sigterm_at_step(monkeypatch, 5)
    assert runs.start_run(recipe(images, METHODS[method]), where, "cpu") == 75
    assert where.requeue_marker.exists()
    assert last(where)["step"] == 5  # the step was completed, not discarded
    assert runs.resume_run(where, "cpu") == 0
    assert not where.requeue_marker.exists()
    assert equal_runs(uninterrupted, where)


SMALL = {
    "moco": ["method.dim=8", "method.hidden=16"],
    "mae": ["method.decoder_width=16", "method.decoder_depth=1", "method.decoder_heads=2"],
    "simclr": ["method.dim=8", "method.hidden=16"],
    "byol": ["method.dim=8", "method.hidden=16"],
    "simsiam": ["method.dim=16", "method.bottleneck=4"],
    "barlowtwins": ["method.dim=16"],
    "vicreg": ["method.dim=16"],
    "mocov3": ["method.dim=8", "method.hidden=16"],
    "dino": ["method.prototypes=16", "method.hidden=16", "method.bottleneck=8", "method.n_local=1"],
    "dinov2": ["method.prototypes=16", "method.hidden=16", "method.bottleneck=8", "method.n_local=1"],
    "lejepa": ["method.dim=8", "method.hidden=16", "method.slices=16"],
    "supcon": ["method.dim=8", "method.hidden=16"],
    "simmim": ["method.mask_size=8"],
    "spark": ["method.decoder_width=16"],
    "ijepa": ["method.predictor_width=16", "method.predictor_depth=1", "method.predictor_heads=2", "method.min_keep=2"],
}


def smallest(method):
    """The arguments of a run of any method that takes a second: a ViT of one block or a small CNN, images of 16 pixels."""
    network = ["arch=vit_tiny_patch16_224", "model_args={depth: 1, patch_size: 8, embed_dim: 24, num_heads: 2, dynamic_img_size: true}"]
    if method in CNN_ONLY:
        network = ["arch=test_resnet", "model_args={output_stride: 8}"]
    length = ["size=16", "batch=8", "steps=5", "epochs=null", "warmup_steps=1", "log_every=1", "save_every=2", "threads=1", "drop_path=0.1"]
    return [f"cxr_{method}_tiny", *network, *length, *SMALL[method], "watch.images=16", "watch.max_share=1", "pictures=none"]


@pytest.mark.parametrize("method", EVERY_METHOD)
def test_every_method_resumes_as_if_it_had_never_stopped(method, images, monkeypatch):
    uninterrupted, where = run(images, smallest(method), "uninterrupted"), rundir.run_dir_for("stopped")
    real, steps = train.clip_gradients, []

    def clip(*given):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt  # the third step is lost, as by a kill
        return real(*given)

    monkeypatch.setattr(train, "clip_gradients", clip)
    with pytest.raises(KeyboardInterrupt):
        runs.start_run(recipe(images, smallest(method)), where, "cpu")
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(uninterrupted, where)


@pytest.fixture
def finished(images):
    return run(images, METHODS["moco"], "damaged", "steps=4", "warmup_steps=1")


def change_checkpoint(path, change):
    """Writes the checkpoint again with another content: its checksums are those of the new one."""
    state = checkpoint.load_checkpoint(path)
    change(state)
    checkpoint.save_checkpoint(path, state)


def other_shapes(state):
    state["method"] = {name: value[..., :1] if value.ndim else value for name, value in state["method"].items()}


# What a newest checkpoint can have, besides bytes that are not its own; each was a traceback or was believed.
WRONG_CONTENTS = {
    "no format": lambda s: s.pop("format"),
    "a later version": lambda s: s.update(version=2),
    "no optimizer": lambda s: s.pop("optimizer"),
    "an optimizer of nothing": lambda s: s["optimizer"].update(param_groups=[]),
    "a list of rollbacks that is a text": lambda s: s.update(rollbacks="none"),
    "a step that is a text": lambda s: s.update(step="4"),
    "another step": lambda s: s.update(step=3),
    "another run": lambda s: s.update(run="00000000"),
    "other shapes": other_shapes,
    "weights that are numbers": lambda s: s.update(method=dict.fromkeys(s["method"], 1.0)),
    "no card": lambda s: s.update(card={}),
    "no threads": lambda s: s.update(environment={}),
    "a random state of another size": lambda s: s.update(rng=s["rng"][:7]),
}


def test_whatever_is_wrong_with_the_newest_checkpoint_the_one_before_is_restored_and_the_lost_step_is_said(finished):
    good, newest = checkpoint.checkpoint_path(finished.checkpoints, 2), checkpoint.checkpoint_path(finished.checkpoints, 4)
    want, intact = checkpoint.load_checkpoint(good), newest.read_bytes()
    for wrong, change in WRONG_CONTENTS.items():
        newest.write_bytes(intact)
        change_checkpoint(newest, change)
        content, printed = newest.read_bytes(), []
        setup, state = restore_newest(finished, config.read_recipe(finished.config), "cpu", printed.append)
        setup.batches.close()
        assert state.step == 2, wrong
        assert same(dict(setup.method.state_dict()), want["method"]), wrong
        (kept,) = [path for path in finished.checkpoints.iterdir() if not path.name.startswith("step-")]
        assert kept.read_bytes() == content, wrong
        (line,) = [line for line in printed if line.startswith("warning")]
        assert all(part in line for part in (str(newest), "step 4 is lost", "of step 2", kept.name)), line
        kept.unlink()


def test_a_run_with_a_damaged_newest_checkpoint_ends_as_if_it_were_not(finished, capsys):
    uninterrupted, newest = last(finished), checkpoint.checkpoint_path(finished.checkpoints, 4)
    newest.write_bytes(newest.read_bytes()[:-2000])
    assert runs.resume_run(finished, "cpu") == 0
    assert "step 4 is lost" in capsys.readouterr().err
    assert same(last(finished)["method"], uninterrupted["method"])
    assert [path.name for path in finished.checkpoints.glob("damaged*")] == ["damaged-step-00000004.pt"]


def test_files_set_aside_do_not_replace_each_other(tmp_path):
    for content in (b"first", b"second", b"third"):
        checkpoint.checkpoint_path(tmp_path, 4).write_bytes(content)
        checkpoint.set_aside(checkpoint.checkpoint_path(tmp_path, 4))
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {b"first", b"second", b"third"}
    assert checkpoint.list_steps(tmp_path) == []


def test_a_run_whose_checkpoints_are_all_damaged_is_an_error_and_none_is_moved(finished):
    steps = checkpoint.list_steps(finished.checkpoints)
    for step in steps:
        checkpoint.checkpoint_path(finished.checkpoints, step).write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"no checkpoint can be used: .*; restore one of them from a backup") as error:
        runs.resume_run(finished, "cpu")
    assert "\n" not in str(error.value)
    assert checkpoint.list_steps(finished.checkpoints) == steps


def test_an_export_and_an_encoder_by_the_name_of_a_run_do_not_take_an_older_checkpoint_silently(finished):
    checkpoint.checkpoint_path(finished.checkpoints, 4).write_bytes(b"damaged")
    with pytest.raises(InputError, match="the run also has checkpoints of the steps 2"):
        export_run(finished)
    with pytest.raises(InputError, match="the run has also runs/damaged@2"):
        load_encoder("runs/damaged")
    assert load_encoder("runs/damaged@2").card.steps == 2


def test_a_run_is_not_resumed_with_other_images(images, tmp_path):
    where = run(images, METHODS["moco"], "moved")
    store(tmp_path, n=70)
    with pytest.raises(InputError, match="started with other images"):
        runs.resume_run(where, "cpu")


def test_loader_workers_do_not_change_a_run(images):
    assert equal_runs(run(images, METHODS["moco"], "inline"), run(images, METHODS["moco"], "workers", "data.workers=2"))


def test_a_resumed_run_keeps_its_threads_and_prints_a_note_about_another_torch(images, capsys, monkeypatch):
    where = run(images, METHODS["mae"], "pinned")
    torch.set_num_threads(2)
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert runs.resume_run(where, "cpu") == 0
    assert torch.get_num_threads() == 1
    printed = capsys.readouterr().err
    assert "not bit-identical" in printed
    assert "is 9.9" in printed
    assert "threads" not in printed


def test_a_second_process_is_refused_while_the_first_is_alive_and_the_lock_of_a_dead_one_is_taken_over(images, capsys):
    where = run(images, METHODS["mae"], "locked")
    lock = where.path / "lock"
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "born": None, "job": None}))
    with pytest.raises(InputError, match=rf"locked by process {os.getpid()} .* it is alive"):
        runs.resume_run(where, "cpu")
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": None, "job": "77"}))
    with pytest.raises(InputError, match="elsewhere, SLURM job 77, and this host cannot tell whether it is alive"):
        runs.resume_run(where, "cpu")
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "born": "1", "job": None}))
    assert runs.resume_run(where, "cpu") == 0  # the process id is ours now, its former process is dead
    assert "no longer alive" in capsys.readouterr().err
    assert not lock.exists()
