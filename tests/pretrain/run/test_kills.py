"""A run that is killed twenty times, from its first file to its export, ends with the bits of the run that was never stopped."""

import signal

import pytest

from encoders.runtime import checkpoint
from encoders.runtime.paths import home_dir, zoo_dir
from pretrain.methods import METHODS
from pretrain.run import rundir
from tests.pretrain.run.kill_moments import KILLS, choose_moments, record_moments, run_until_moment
from tests.pretrain.run.test_resume import equal_runs, smallest
from tests.pretrain.runs import store

LENGTH = ["steps=12", "watch.max_share=1", "epochs=null", "save_every=1", "batch=4", "watch.images=8"]


def files_of(entry):
    return {path.name: path.read_bytes() for path in (zoo_dir() / entry).iterdir() if path.suffix != ".yaml"}


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_a_run_killed_twenty_times_ends_with_the_bits_of_the_uninterrupted_run(method, tmp_path):
    words = [*smallest(method), *LENGTH, f"data.store={store(tmp_path, n=24)}", "--device", "cpu", "--name"]
    moments = record_moments(home_dir(), ["run", *words, "whole"], tmp_path / "whole")
    run, reached, kinds = rundir.run_dir_for("killed"), [], []
    for number, moment in enumerate(choose_moments(moments, seed=len(method))):
        command = ["resume", "killed", "--device", "cpu"] if run.exists() else ["run", *words, "killed"]
        while (ended := run_until_moment(home_dir(), moment, command, tmp_path / f"{number}")).status == 0 and moment.event > 0:
            moment = moment._replace(event=moment.event // 2)
        assert ended.status == -signal.SIGKILL, (moment, ended)
        reached.append(max(checkpoint.list_steps(run.checkpoints), default=0))
        kinds.append(moment.kind)
    assert len(kinds) == KILLS
    assert reached == sorted(reached)  # a step that was saved is never lost
    assert reached[-1] == 12  # the last kills were in the export
    assert run_until_moment(home_dir(), None, ["resume", "killed", "--device", "cpu"], tmp_path / "last").status == 0
    assert equal_runs(rundir.find_run("whole"), run)
    assert files_of("killed") == files_of("whole")
    assert not [path.name for path in (*run.path.rglob("*.part"), *zoo_dir().glob("*.part"), *zoo_dir().glob(".*.part"))]
    assert not (run.path / "lock").exists()
