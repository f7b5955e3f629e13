"""Runs that `wandb agent` starts: their parameters are settings, and their run in W&B is the one that the agent announced.

The agent names the run, the sweep and the file of its parameters in the environment. W&B reads these variables itself and lets them win
over what a program says; therefore they are set or removed around the start of each of our W&B runs.

Source: `wandb/wandb_agent.py`, `wandb/sdk/wandb_init.py` (wandb 0.31).
"""

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from encoders.runtime.config import parse_override, read_yaml
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json

RUN, SWEEP, PARAMETERS = "WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_SWEEP_PARAM_PATH"
PLACE = ("WANDB_PROJECT", "WANDB_ENTITY")  # of the sweep
VERSION_KEY = "wandb_version"  # in the file of parameters, which is no parameter


class AgentRun(NamedTuple):
    """The run and the sweep in W&B that an agent announced to this process."""

    run_id: str
    sweep_id: str


def find_agent_run() -> AgentRun | None:
    """The run that an agent of W&B started this process for; None without an agent."""
    run, sweep = os.environ.get(RUN), os.environ.get(SWEEP)
    return AgentRun(run, sweep) if run and sweep else None


def read_agent_parameters() -> dict[str, Json]:
    """The agent's parameters as in the sweep's YAML file; {} without an agent, or where its file is not visible."""
    path = os.environ.get(PARAMETERS)
    if find_agent_run() is None or not path or not Path(path).is_file():
        return {}
    entries = {key: entry for key, entry in read_yaml(path).items() if key != VERSION_KEY}
    return {key: entry["value"] if isinstance(entry, Mapping) and "value" in entry else entry for key, entry in entries.items()}


def add_agent_settings(overrides: Sequence[str]) -> list[str]:
    """`overrides` with the agent's parameters, whether or not its command passes them: what W&B shows is what runs.

    Raises InputError for a setting to which the command gives another value than the agent."""
    parameters = read_agent_parameters()
    # The agent writes values as Python does: None, which is null in YAML.
    passed = {f"{key}={value}": f"{key}={json.dumps(value)}" for key, value in parameters.items() if not isinstance(value, str)}
    overrides = [passed.get(text, text) for text in overrides]
    given: dict[str, Json] = {}
    for text in overrides:
        given |= _dotted_settings(parse_override(text))
    added = []
    for key, value in _dotted_settings(parameters).items():
        if key not in given:
            added.append(f"{key}={json.dumps(value)}")
        elif not _is_same(given[key], value):
            raise InputError(
                f"the agent of W&B chose {key}={json.dumps(value)}, and the command says {key}={given[key]}: remove {key} from `command` "
                "in the sweep's YAML file, or from its `parameters`"
            )
    return [*overrides, *added]


def adopt_run(run_id: str, sweep_id: str | None) -> None:
    """Makes this process continue the W&B run of a sweep, whatever agent or job started it.

    sweep_id: None for a run that no agent started."""
    if sweep_id is None:
        return
    if os.environ.get(RUN) != run_id:
        os.environ.pop(PARAMETERS, None)  # of another run
    os.environ |= {RUN: run_id, SWEEP: sweep_id}


def export_lines() -> list[str]:
    """Shell lines that pass the agent's run on to a job; [] without an agent."""
    names = (RUN, SWEEP, *PLACE) if find_agent_run() else ()
    return [f"export {name}={shlex.quote(os.environ[name])}" for name in names if os.environ.get(name)]


@contextmanager
def agent_environment(run_id: str) -> Iterator[None]:
    """Inside the block, W&B sees the agent's variables only if `run_id` is its run, and its parameters only where their file exists.

    Another run in the same process or script, such as a benchmark, would otherwise be written into the agent's run."""
    agent = find_agent_run()
    hidden = (SWEEP, RUN, PARAMETERS) if agent is None or agent.run_id != run_id else (PARAMETERS,) * (not _has_parameters())
    saved = {name: os.environ.pop(name) for name in hidden if name in os.environ}
    try:
        yield
    finally:
        os.environ |= saved


def _has_parameters() -> bool:
    return Path(os.environ.get(PARAMETERS) or "/dev/null").is_file()


def _dotted_settings(tree: Mapping[str, Json], prefix: str = "") -> dict[str, Json]:
    """Dotted keys of a nested mapping; an empty mapping is a value."""
    flat: dict[str, Json] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat |= _dotted_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_same(given: Json, chosen: Json) -> bool:
    """Whether two values are equal; a number that YAML reads as a word, such as 1e-3, is a number."""
    if given == chosen:
        return True
    try:
        return float(str(given)) == float(str(chosen))
    except ValueError:
        return False
