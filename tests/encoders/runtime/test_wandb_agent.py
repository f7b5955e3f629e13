"""Runs that an agent of W&B starts: its parameters run, its run id stays, and no other run is written into it."""

import os

import pytest
import yaml

from encoders.runtime.errors import InputError
from encoders.runtime.wandb_agent import (
    add_agent_settings,
    adopt_run,
    agent_environment,
    export_lines,
    find_agent_run,
    read_agent_parameters,
)

NAMES = ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH", "WANDB_PROJECT", "WANDB_ENTITY")


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """Sets the environment as `wandb agent` does; its file of parameters has the format of wandb 0.31."""
    for name in NAMES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def start(run="abc12345", **parameters):
        path = tmp_path / f"config-{run}.yaml"
        entries = {key: {"desc": None, "value": value} for key, value in parameters.items()}
        path.write_text(yaml.safe_dump({"wandb_version": 1} | entries, sort_keys=False))
        for name, value in zip(NAMES, (run, "sw1", str(path), "isograft", "team's"), strict=True):
            monkeypatch.setenv(name, value)

    return start


def test_without_an_agent_nothing_changes(agent, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_ID", "abc")  # alone it is no sweep
    assert find_agent_run() is None
    assert add_agent_settings(["seed=1"]) == ["seed=1"]
    assert export_lines() == []


@pytest.mark.parametrize(
    ("parameters", "overrides", "expected"),
    [
        ({"seed": 3, "optim.lr": 0.03}, ["seed=3", "optim.lr=0.03"], []),  # ${args_no_hyphens}
        ({"seed": 3, "optim.lr": 0.001}, ["seed=3", "optim.lr=1e-3"], []),
        ({"seed": 3, "optim.lr": 0.03}, ["batch=8"], ["seed=3", "optim.lr=0.03"]),  # `command` without arguments
        ({"optim": {"lr": 0.03, "kind": "sgd"}}, ['optim={"lr": 0.03, "kind": "sgd"}'], []),  # nested parameters
        ({"optim": {"lr": 0.03}}, ["optim.kind=sgd"], ["optim.lr=0.03"]),
        ({"channels_last": False, "init": None, "arch": "resnet18"}, ["channels_last=false"], ["init=null", 'arch="resnet18"']),
        ({"optim.betas": [0.9, 0.95]}, [], ["optim.betas=[0.9, 0.95]"]),
    ],
)
def test_what_w_and_b_shows_is_what_runs(agent, parameters, overrides, expected):
    agent(**parameters)
    assert add_agent_settings(overrides) == [*overrides, *expected]


def test_values_in_the_spelling_of_python_are_written_as_yaml(agent):
    agent(**{"init": None, "optim": {"clip": None, "lr": 0.1}, "channels_last": True, "arch": "None"})
    words = ["init=None", "optim={'clip': None, 'lr': 0.1}", "channels_last=True", "arch=None"]
    assert add_agent_settings(words) == ["init=null", 'optim={"clip": null, "lr": 0.1}', "channels_last=true", "arch=None"]


def test_the_command_does_not_contradict_the_agent(agent):
    agent(seed=3)
    with pytest.raises(InputError, match="the agent of W&B chose seed=3, and the command says seed=1"):
        add_agent_settings(["seed=1"])


def test_a_file_of_parameters_that_a_node_does_not_see_is_left_out(agent, monkeypatch):
    agent(seed=3)
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", "/nowhere/config.yaml")
    assert read_agent_parameters() == {}
    with agent_environment("abc12345"):
        assert "WANDB_SWEEP_PARAM_PATH" not in os.environ  # W&B would refuse to start
        assert os.environ["WANDB_RUN_ID"] == "abc12345"


def test_only_the_run_of_the_agent_is_written_into_it(agent):
    agent(seed=3)
    with agent_environment("other"):
        assert not {"WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"} & set(os.environ)
    with agent_environment("abc12345"):
        assert find_agent_run() == ("abc12345", "sw1")
        assert os.environ["WANDB_SWEEP_PARAM_PATH"].endswith("config-abc12345.yaml")
    assert find_agent_run() == ("abc12345", "sw1")


def test_a_resumed_run_stays_in_its_w_and_b_run_under_another_agent_and_without_one(agent, monkeypatch):
    agent("new", seed=9)
    adopt_run("abc12345", "sw1")
    assert find_agent_run() == ("abc12345", "sw1")
    assert read_agent_parameters() == {}  # those of the new run do not apply
    agent("new", seed=9)
    adopt_run("mine", None)  # a run that no agent started is none of the agent's
    with agent_environment("mine"):
        assert find_agent_run() is None


def test_a_job_gets_the_run_of_the_agent(agent):
    agent(seed=3)
    assert export_lines() == [
        "export WANDB_RUN_ID=abc12345",
        "export WANDB_SWEEP_ID=sw1",
        "export WANDB_PROJECT=isograft",
        """export WANDB_ENTITY='team'"'"'s'""",
    ]
