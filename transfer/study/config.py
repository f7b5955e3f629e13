"""The file of a study: what is compared on which tasks, and with which settings."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from encoders.runtime.config import Config, load_config
from encoders.runtime.entry_names import check_entry_name
from encoders.runtime.errors import InputError
from transfer.losses.settings import PLAIN
from transfer.strategies.names import FULL, parse_strategy

OWN_OPTIONS = {
    "--encoder": "encoders", "--task": "tasks", "--protocol": "protocols", "--strategies": "strategies", "--baseline": "baselines",
    "--fractions": "fractions", "--draws": "seeds", "--draw": "seeds", "--seed": "seeds", "--floor": "protocols", "--no-floor": "protocols",
    "--search": "search", "--trials": "trials",
}  # fmt: skip  # options of `transfer bench` that a study decides, and its key


class Study(Config):
    """Every combination is a cell: encoder x task x (strategy x approach to rare classes, or protocol) x label fraction x seed."""

    tasks: list[str] = Field([], description="registered tasks; default: those that encoders names")
    encoders: list[str] | dict[str, list[str]] = Field(
        description="encoders of all tasks, or a list for each task, as {pneumonia: [cxr_moco]}"
    )
    baselines: list[str] | None = Field(
        None, description="encoders to compare with; null: ImageNet and random weights of the same networks; []: none"
    )
    protocols: list[str] = Field([], description="protocols beside fine-tuning, e.g. [knn, linear]; their rows include the floor `pixels`")
    strategies: list[str] = Field([FULL], description="what is trained, as in --strategies of `transfer bench`; []: no fine-tuning")
    imbalance: list[str] = Field([PLAIN], min_length=1, description="approaches to rare classes, each with every strategy")
    fractions: list[str | float] = Field(["1"], min_length=1, description="labels: shares or numbers of train patients, e.g. [50p, 10%, 1]")
    seeds: int = Field(
        3,
        ge=1,
        le=1000,
        description="repetitions. Each has its own seed of the protocol and, below all labels, its own draw of the labeled patients",
    )
    search: str | None = Field(
        None, description="settings that are searched for every training on validation patients, as in --search of `transfer bench`"
    )
    trials: int | None = Field(None, description="trials of a search; null: 20")
    settings: dict[str, Any] = Field({}, description="settings of protocols, e.g. {finetune: {epochs: 5}}")
    options: list[str] = Field([], description="further options of `transfer bench`, e.g. [--folds, '5']")

    @model_validator(mode="after")
    def _check_members(self) -> Self:
        if not (self.strategies or self.protocols):
            raise ValueError("strategies and protocols are both empty: there is nothing to run")
        for strategy in self.strategy_labels():
            try:
                parse_strategy(strategy)
            except InputError as error:
                raise ValueError(str(error)) from error
        given = {text.partition("=")[0] for text in self.options}
        if wrong := next((name for name in OWN_OPTIONS if name in given), None):
            raise ValueError(f"options: {wrong} is decided by the key `{OWN_OPTIONS[wrong]}`")
        if isinstance(self.encoders, dict) and (unknown := [t for t in self.tasks if t not in self.encoders]):
            raise ValueError(f"encoders has no list for the task {unknown[0]!r}")
        if not any(self.encoders_of(task) for task in self.task_names() or [""]):
            raise ValueError("encoders is empty")
        return self

    def task_names(self) -> list[str]:
        """The tasks; [] for all of the encoders' modality."""
        named = list(self.encoders) if isinstance(self.encoders, dict) else []
        return self.tasks or named

    def encoders_of(self, task: str) -> list[str]:
        """The encoders of a task.  task: "" for all tasks."""
        return self.encoders[task] if isinstance(self.encoders, dict) else list(self.encoders)

    def strategy_labels(self) -> list[str]:
        """Every strategy with every approach to rare classes: `full`, `full+focal`."""
        return [strategy if approach == PLAIN else f"{strategy}+{approach}" for approach in self.imbalance for strategy in self.strategies]

    def overrides(self) -> list[str]:
        """The settings as on the command line: `finetune.epochs=5`."""
        return list(_flatten_settings(self.settings))


def _flatten_settings(settings: Mapping[str, Any], within: str = "") -> Iterator[str]:
    for key, value in settings.items():
        name = f"{within}{key}"
        if isinstance(value, Mapping):
            yield from _flatten_settings(value, f"{name}.")
        else:
            yield f"{name}={json.dumps(value)}"  # which YAML reads


def read_study(path: Path) -> Study:
    """The study in a file. Raises InputError for what is wrong with it, naming the key."""
    return load_config(Study, path)


def name_study(path: Path, name: str | None) -> str:
    """The name of a study: that of its file, unless another is given. Raises InputError for a name that no benchmark may have."""
    return check_entry_name("bench", name or re.sub(r"\.ya?ml$", "", path.name))
