"""The settings of a search, a group of those of fine-tuning. Nothing heavy is imported here."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from pydantic import Field, field_validator

from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from transfer.search.parameters import list_search_ranges
from transfer.search.space import SearchParameter, canonical_space, parse_space

DEFAULT_TRIALS = 20
SEARCH_KEY = "finetune.search"


class SearchSettings(Config):
    """A search of other settings. Its own are part of the protocol's hash."""

    space: str = Field("", description="the settings that are searched, with their ranges; empty: no search")
    trials: int = Field(DEFAULT_TRIALS, ge=2, le=1000, description="number of trials; the first has the settings as given")
    factor: int = Field(3, ge=2, description="of successive halving: one in so many trials goes on, for so many times the images")
    seed: int = Field(0, ge=0, description="seed of the settings that are drawn")

    @field_validator("space")
    @classmethod
    def _write_canonically(cls, space: str) -> str:
        try:
            return canonical_space(space)
        except InputError as error:
            raise ValueError(str(error)) from error

    @property
    def parameters(self) -> list[SearchParameter]:
        """What is searched; [] without a search."""
        return parse_space(self.space)


class SearchGroup(Config):
    """The group of settings, of which nothing is dumped without a search."""

    search: SearchSettings = Field(SearchSettings(), description="search of other settings on validation patients")


def own_search(settings: dict[str, Any]) -> dict[str, Any]:
    """The dumped settings without the search if there is none: so they, and their hash, are those of versions without it."""
    return settings if settings.get("search", {}).get("space") else {key: value for key, value in settings.items() if key != "search"}


def expand_search(search: str | None, trials: int | None, protocols: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """The overrides with those of `--search` and `--trials`. Raises InputError for a search of nothing, or without fine-tuning."""
    if search is None:
        if trials is not None:
            raise InputError(
                "--trials is the number of trials of a search; say what is searched with --search, e.g. --search lr,weight_decay"
            )
        return list(overrides)
    if not any(name.startswith("finetune") for name in protocols):
        raise InputError(f"--search is about fine-tuning, and --protocol names {', '.join(protocols)}; add finetune to it")
    space = canonical_space(search)
    if not space:
        raise InputError("--search is empty; name what is searched, e.g. --search lr,weight_decay")
    return [*overrides, f"{SEARCH_KEY}.space={space}", *([] if trials is None else [f"{SEARCH_KEY}.trials={trials}"])]


def search_help() -> str:
    """What can be searched, with the ranges, for an option of the command line."""
    return "; ".join(f"{name} ({values})" for name, values, _ in list_search_ranges())


SearchSpace = Annotated[
    str | None,
    typer.Option(
        metavar="SPACE",
        help="search settings of finetune on validation patients, by successive halving: names, or NAME=LOW..HIGH or NAME=A|B|C, "
        f"comma-separated, e.g. lr,weight_decay=0.01..0.1. With ranges of their own: {search_help()}. Any other setting needs a range. "
        f"Settings: {SEARCH_KEY}.factor=3 (one in three trials goes on), {SEARCH_KEY}.seed=0 (of the draws)",
    ),
]
SearchTrials = Annotated[
    int | None,
    typer.Option(
        min=2,
        help=f"with --search: number of trials, of which the first has the settings as given  [default: {DEFAULT_TRIALS}]",
    ),
]
