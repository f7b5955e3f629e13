"""The cells of an array task, computed in one process: an encoder computes the features of a store once for all protocols and tasks.

Cells of one task are computed as one benchmark. If it cannot start, or breaks off, each is tried alone: it fails only for reasons of its
own.
"""

import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from encoders.runtime.progress import describe_seconds
from transfer.bench.bench_arguments import parse_bench_arguments
from transfer.bench.bench_folder import read_status, running_mark, write_record_names, write_status
from transfer.bench.options import BenchOptions

NumberedCell = tuple[int, BenchOptions]  # a cell by its number, and what was asked for


class RunOutcome(NamedTuple):
    """What became of the protocols of one task.  failed: protocol -> reason.  records: their record files, below the folder of records."""

    failed: dict[str, str]
    records: Sequence[str] = ()


RunOptions = Callable[[BenchOptions], RunOutcome]


def compute_cells(lines: Sequence[str], status_dir: Path, numbers: Sequence[int], run: RunOptions | None = None) -> int:
    """Computes the cells with these numbers that have no exit status 0 yet, and writes their exit statuses. Returns how many failed.

    lines: the arguments of `transfer bench` of every cell, quoted for the shell.  run: for tests."""
    status_dir.mkdir(parents=True, exist_ok=True)
    cells: list[NumberedCell] = []
    for number in numbers:
        if read_status(status_dir, number) == 0:
            _log(f"cell {number} is done")
            continue
        try:
            cells.append((number, parse_bench_arguments(shlex.split(lines[number]))))
        except InputError as error:
            _finish(status_dir, number, 2, str(error))
    started, ended = time.monotonic(), 0
    for group in group_by_task(cells):
        _compute_group(group, status_dir, run or run_options)
        ended += len(group)
        if ended < len(cells):
            left = (time.monotonic() - started) / ended * (len(cells) - ended)
            _log(f"{ended} of {len(cells)} cells ended, about {describe_seconds(left)} left")
    return sum(read_status(status_dir, number) != 0 for number in numbers)


def group_by_task(cells: Sequence[NumberedCell]) -> Iterator[list[NumberedCell]]:
    """The cells in groups that differ in the protocol only."""
    groups: list[list[NumberedCell]] = []
    for cell in cells:
        same = next((group for group in groups if replace(group[0][1], protocol="") == replace(cell[1], protocol="")), None)
        if same is None:
            groups.append([cell])
        else:
            same.append(cell)
    yield from groups


def run_options(options: BenchOptions) -> RunOutcome:
    """Runs a benchmark, which writes records, and returns them and the reason of each protocol that failed.

    Raises InputError for what `transfer bench` would refuse."""
    from encoders.runtime.cli import progress_counter
    from encoders.runtime.devices import announce_device
    from transfer.bench.bench import load_protocols, plan_bench, run_bench
    from transfer.bench.work import count_work
    from transfer.records.record import record_path

    request = options.to_request()
    announce_device(request.device)
    plan = plan_bench(request, _log)
    with progress_counter("bench", len(plan), count_work(plan)) as progress:
        result = run_bench(request, plan, _log, progress)
    for name, reason in result.missing.items():
        _log(f"skipped: {name}: {reason}")
    _log(f"{result.computed} results computed, {result.reused} from records")
    failed = {record.identity.protocol: record.meta.error or "failed" for record in result.failed}
    names = {name: next(iter(load_protocols([name], request.seed, request.overrides, request.device))) for name in request.protocols}
    reasons = {name: failed[own] for name, own in names.items() if own in failed}
    return RunOutcome(reasons, [str(record_path(record.identity).relative_to(records_dir())) for record in result.records])


def _compute_group(group: Sequence[NumberedCell], status_dir: Path, run: RunOptions) -> None:
    """Computes cells that differ in the protocol only, together and, if that breaks off, one by one."""
    options = replace(group[0][1], protocol=",".join(options.protocol for _, options in group))
    _log(f"cells {' '.join(str(number) for number, _ in group)}: {', '.join(options.encoder)} on {options.task} by {options.protocol}")
    for number, _ in group:
        running_mark(status_dir, number).touch()
    try:
        outcome = run(options)
    except Exception as error:  # noqa: BLE001  boundary: one item of a batch job; the other cells are computed
        if len(group) > 1:
            _log(f"together they failed: {_describe_error(error)}; each cell is computed alone")
            for cell in group:
                running_mark(status_dir, cell[0]).unlink(missing_ok=True)
            for cell in group:
                _compute_group([cell], status_dir, run)
            return
        if not isinstance(error, InputError):
            traceback.print_exception(error)
        _finish(status_dir, group[0][0], 2 if isinstance(error, InputError) else 1, _describe_error(error))
        return
    write_record_names(status_dir, group[0][0], outcome.records)
    for number, own in group:
        reason = next((outcome.failed[name] for name in own.protocol.split(",") if name in outcome.failed), None)
        _finish(status_dir, number, 0 if reason is None else 1, reason or "")


def _finish(status_dir: Path, number: int, status: int, reason: str) -> None:
    """Records and prints the end of a cell."""
    write_status(status_dir, number, status, reason)
    running_mark(status_dir, number).unlink(missing_ok=True)
    _log(f"cell {number}: {'done' if status == 0 else f'failed ({status})'}")
    if status:
        print(f"error: cell {number}: {reason}", file=sys.stderr, flush=True)


def _describe_error(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


def _log(text: str) -> None:
    print(text, flush=True)
