"""The cells of a study: the commands of `transfer bench` that compute it."""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from encoders.runtime.sweep_folder import expand_sweeps
from encoders.zoo.names import split_names
from transfer.bench.dependencies import Dependencies
from transfer.bench.options import parse_fractions
from transfer.bench.slurm_array import BenchCell, list_bench_cells, needs_training
from transfer.search.settings import expand_search
from transfer.strategies.names import FINETUNE, check_settings_used, expand_strategies
from transfer.study.config import Study

ENOUGH_SEEDS = 5  # Student's t has four degrees of freedom then


class StudyCells(NamedTuple):
    """cells: ordered by seed, so that a study that is stopped early has all combinations for the first seeds.

    jobs: that must end before they can start.  left_out: what is not computed, with the reason."""

    cells: list[BenchCell]
    jobs: Dependencies
    left_out: dict[str, str]


def list_study_cells(study: Study, device: str = "auto") -> StudyCells:
    """The cells of a study.  device: on which they are computed.

    Raises InputError for an unknown encoder, task, protocol or setting, and for wrong fractions."""
    fractions = [f"{value:g}" if isinstance(value, float) else value for value in study.fractions]
    parse_fractions(",".join(fractions))
    asked = list(dict.fromkeys([*study.protocols, *([FINETUNE] if study.strategies else [])]))
    names, overrides = expand_strategies(asked, study.strategy_labels(), study.overrides())
    overrides = expand_search(study.search, study.trials, names, overrides)
    check_settings_used(names, overrides)
    words = [*([] if device == "auto" else ["--device", device]), *study.options, *overrides]
    found = StudyCells([], Dependencies(), {})
    for task in study.task_names() or [""]:
        for protocols, floor in _split_by_training(names):
            expected: list[str] = []
            encoders = expand_sweeps(split_names(study.encoders_of(task)), expected)
            cells, jobs, left_out = list_bench_cells(
                encoders, [task] if task else [], protocols, study.baselines, words, floor and study.baselines is None, expected
            )
            known = {(cell.encoder, cell.task, cell.protocol) for cell in found.cells}
            new = [cell for cell in cells if (cell.encoder, cell.task, cell.protocol) not in known]
            found = StudyCells([*found.cells, *new], found.jobs + jobs, found.left_out | left_out)
    return found._replace(cells=list(_repeat_cells(found.cells, fractions, study.seeds)))


def _split_by_training(protocols: Sequence[str]) -> Iterator[tuple[list[str], bool]]:
    """The protocols that train the network, without the floor, which has none, and the others with it."""
    trains = [name for name in protocols if needs_training(name)]
    others = [name for name in protocols if name not in trains]
    yield from ((names, floor) for names, floor in ((others, True), (trains, False)) if names)


def _repeat_cells(cells: Sequence[BenchCell], fractions: Sequence[str], seeds: int) -> Iterator[BenchCell]:
    """The cells with the label fractions of every seed."""
    partial = [text for text in fractions if not _is_all(text)]
    for seed in range(seeds):
        for cell in cells:
            own = fractions if seed == 0 or takes_seed(cell.protocol) else partial  # a repetition on all labels would be the same
            if own:
                words = ("--fractions", ",".join(own), "--draw", str(seed), "--seed", str(seed))
                yield BenchCell(cell.encoder, cell.task, cell.protocol, (*words, *cell.options))


def _is_all(fraction: str) -> bool:
    """Whether a label fraction is that of all labels."""
    shares, _ = parse_fractions(fraction)
    return shares == [1.0]


@cache
def takes_seed(protocol: str) -> bool:
    """Whether the result of a protocol depends on its seed: k-NN and a logistic regression have none."""
    from transfer.protocols import find_protocol

    return "seed" in find_protocol(protocol).load().Config.model_fields


def describe_cells(study: Study, cells: Sequence[BenchCell]) -> str:
    """How much a study is, in words."""
    trainings = sum(len(cell.options[1].split(",")) for cell in cells)
    encoders, tasks = {cell.encoder for cell in cells}, {cell.task for cell in cells}
    few = f". The variation of {study.seeds} seeds has few degrees of freedom: verdicts of many comparisons need {ENOUGH_SEEDS} or more"
    return (
        f"{trainings} fits in {len(cells)} cells: {len(encoders)} encoders and baselines, {len(tasks)} tasks, "
        f"{len({cell.protocol for cell in cells})} ways of transferring, {len(study.fractions)} numbers of labels, {study.seeds} seeds"
    ) + (few if study.seeds < ENOUGH_SEEDS else "")
