"""The harness of the GPU checks: what it writes, skips and reports; and two of its stages on a CPU that takes the path of a device."""

import json
import os

import pytest
import torch

import encoders.augment.resample
import encoders.features.input_batches
from pretrain.methods import METHODS
from tests.gpu import __main__ as command
from tests.gpu import stage_augment, stage_methods, stage_speed
from tests.gpu.session import GpuSession, cuda_code_path
from tests.pretrain.tiny import SMALL


@pytest.fixture
def session(tmp_path):
    return GpuSession(torch.device("cpu"), tmp_path, tmp_path / "gpu.json", tiny=True, as_cuda=True)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The command sets variables for its process."""
    for name in ("ISOGRAFT_HOME", "ISOGRAFT_CACHE", "WANDB_MODE", "ISOGRAFT_OFFLINE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))


def read(session):
    return json.loads(session.out.read_text())


def test_the_file_is_written_after_every_stage_and_holds_what_went_wrong(session):
    def fails(given):
        raise ValueError("a kernel is missing")

    session.run_stage("first", lambda given: {"images_s": 3.0})
    assert list(read(session)["stages"]) == ["first"]
    session.run_stage("second", fails)
    session.run_stage("third", lambda given: given.flag("features differ by 0.1") or {})
    content = read(session)
    assert content["stages"]["first"]["images_s"] == 3.0
    assert content["stages"]["second"]["ok"] is False
    assert "a kernel is missing" in content["stages"]["second"]["traceback"]
    assert content["defects"] == ["second: ValueError: a kernel is missing", "features differ by 0.1"]
    assert session.failed == ["second"]
    assert command.report(session) == 1


def test_a_stage_without_time_is_skipped_and_said_so(session, capsys):
    session.budget = 1.0
    session.run_stage("long", lambda given: pytest.fail("was started"), needs=10.0)
    assert "needs 10" in read(session)["stages"]["long"]["skipped"]
    assert command.report(session) == 0
    assert "skipped for lack of time: long" in capsys.readouterr().err


def test_an_interrupted_stage_is_written_down(session):
    def interrupted(given):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.run_stage("first", interrupted)
    assert read(session)["stages"]["first"]["ok"] is False


def test_the_path_of_a_device_is_taken_inside_the_block_only(session):
    cpu, modules = torch.device("cpu"), (encoders.augment.resample, encoders.features.input_batches)
    questions = (lambda: modules[0].uses_dense_matrices(cpu), lambda: modules[1].prepares_on_device(cpu))
    assert not any(ask() for ask in questions)
    with cuda_code_path(session):
        assert all(ask() for ask in questions)
        assert stage_augment.augment.__globals__["uses_dense_matrices"](cpu), "where it was imported by name"
    assert not any(ask() for ask in questions)
    with cuda_code_path(session, on=False):
        assert not any(ask() for ask in questions)


def test_stages_are_chosen_by_the_beginning_of_their_names(capsys):
    stages = command.list_stages()
    assert list(command.choose_stages(stages, None)) == list(stages)
    assert list(command.choose_stages(stages, "resume, speed")) == ["resume", *(f"speed: {name}" for name in stage_speed.SHAPES)]
    with pytest.raises(SystemExit) as stopped:
        command.choose_stages(stages, "resume,sped")
    assert stopped.value.code == 2
    assert "no stage is called 'sped'" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_checked_and_the_status_says_so(tmp_path, capsys):
    assert command.main(["--out", str(tmp_path / "gpu.json")]) == 2
    assert "finds no GPU here, so nothing was checked" in capsys.readouterr().err
    assert not (tmp_path / "gpu.json").exists()


def test_every_method_has_settings_for_the_checks():
    assert set(METHODS) <= set(SMALL)


def test_a_difference_between_device_and_cpu_is_a_defect(session, monkeypatch):
    real = stage_augment.augment
    monkeypatch.setattr(stage_augment, "PRESETS", {"cxr": stage_augment.PRESETS["cxr"], "histology": stage_augment.PRESETS["histology"]})
    assert stage_augment.compare_augmentation(session)["largest"] < stage_augment.VIEW_TOLERANCE
    assert session.defects == []
    calls = iter([0.0, 0.01] * 9)
    monkeypatch.setattr(stage_augment, "augment", lambda *given: real(*given) + next(calls))
    stage_augment.compare_augmentation(session)
    assert len(session.defects) == 4
    assert "differ by 1.00e-02" in session.defects[0]


def test_batches_through_the_path_of_a_device_equal_those_of_a_cpu_also_from_loader_processes(session):
    assert stage_augment.compare_batches(session)["largest"] < stage_augment.BATCH_TOLERANCE
    assert session.defects == []


def test_a_method_that_fails_does_not_hide_the_others(session, monkeypatch):
    monkeypatch.setattr(stage_methods, "METHODS", {"first": None, "second": None})

    def compare(given, name):
        if name == "first":
            raise RuntimeError("no kernel")
        return {"fp32": {}}

    monkeypatch.setattr(stage_methods, "_compare_loss", compare)
    result = stage_methods.compare_losses(session)
    assert result == {"first": {"error": "RuntimeError: no kernel"}, "second": {"fp32": {}}}
    assert session.defects == ["first: RuntimeError: no kernel"]
