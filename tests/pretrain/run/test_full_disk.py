"""A run on a disk that becomes full: one sentence, the previous checkpoint is intact, and the run goes on once there is space."""

import pytest

from encoders.runtime import checkpoint
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.storage_errors import StorageError
from pretrain.run import lifecycle, session
from pretrain.run.rundir import run_dir_for
from tests.full_disk import fill, small_disk
from tests.pretrain import runs


def test_a_checkpoint_that_does_not_fit_is_one_sentence_and_the_run_resumes_from_the_previous_one(tmp_path, monkeypatch):
    images = runs.store(tmp_path)
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        monkeypatch.setenv("ISOGRAFT_HOME", str(disk))
        save = checkpoint.save_checkpoint

        def save_then_fill(path, state):
            save(path, state)
            if path.name == "step-00000004.pt":
                fill(disk, leave_kib=40)  # room for metrics, none for a checkpoint

        monkeypatch.setattr(checkpoint, "save_checkpoint", save_then_fill)
        run = run_dir_for("small")
        with pytest.raises(StorageError) as caught:
            lifecycle.start_run(runs.recipe(images, runs.MOCO), run, "cpu")
        assert str(caught.value) == (
            f"no space left on {run.checkpoints}: step 6 was not saved; the previous checkpoint is intact (step 4); "
            "once the cause is gone, continue with: pretrain resume small"
        )
        assert checkpoint.list_steps(run.checkpoints) == [2, 4]
        assert checkpoint.load_newest(run.checkpoints)[0]["step"] == 4
        assert not [path.name for path in run.path.rglob("*.part")]
        assert not (run.path / "lock").exists()
        assert [line["step"] for line in read_metrics(run.path)] == list(range(1, 7))
        (disk / "filler").unlink()
        monkeypatch.setattr(checkpoint, "save_checkpoint", save)
        assert lifecycle.resume_run(run, "cpu") == 0
        assert run.read()["status"] == "finished"
        assert [line["step"] for line in read_metrics(run.path)] == list(range(1, 10))


def test_an_encoder_that_cannot_be_exported_leaves_no_entry_and_the_last_checkpoint(tmp_path, monkeypatch):
    images = runs.store(tmp_path)
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        monkeypatch.setenv("ISOGRAFT_HOME", str(disk))
        export = session.export_encoders
        monkeypatch.setattr(session, "export_encoders", lambda *given: (fill(disk, leave_kib=40), export(*given))[1])
        run = run_dir_for("small")
        with pytest.raises(StorageError) as caught:
            lifecycle.start_run(runs.recipe(images, runs.MOCO), run, "cpu")
        assert str(caught.value) == (
            f"no space left on {disk / 'zoo'}: the encoder small was not saved; the last checkpoint is intact (step 9); "
            "once the cause is gone, continue with: pretrain resume small"
        )
        assert not list((disk / "zoo").iterdir())
        (disk / "filler").unlink()
        monkeypatch.setattr(session, "export_encoders", export)
        assert lifecycle.resume_run(run, "cpu") == 0
        assert (disk / "zoo" / "small" / "card.yaml").exists()
