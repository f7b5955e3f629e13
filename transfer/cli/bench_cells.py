"""`transfer bench-cells`: what an array task of `transfer submit` runs."""

from pathlib import Path
from typing import Annotated

import typer


def bench_cells(
    commands: Annotated[Path, typer.Argument(metavar="CELLS", help="file with the arguments of one `transfer bench` per line")],
    status: Annotated[Path, typer.Argument(metavar="STATUS_FOLDER", help="folder to which exit statuses are written")],
    numbers: Annotated[list[int], typer.Argument(metavar="NUMBER...", min=0, help="lines of CELLS, from 0")],
) -> None:
    """Compute cells of a submitted benchmark; array tasks of `transfer submit` run this. Exit status 1 when a cell failed.

    For example

    \b
        transfer bench-cells benches/first/cells.txt benches/first/status 0 1 2

    The cells share one process, so that an encoder computes the features of a store once. STATUS_FOLDER/NUMBER holds the exit status of a
    cell; one with status 0 is not computed again. Results are records.
    """
    from encoders.runtime.errors import InputError
    from transfer.bench.bench_cells import compute_cells

    try:
        lines = commands.read_text().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {commands}: {error.strerror}") from error
    if wrong := [number for number in numbers if number >= len(lines)]:
        raise InputError(f"{commands} has {len(lines)} lines, from 0, and no line {wrong[0]}")
    if compute_cells(lines, status, numbers):
        raise typer.Exit(1)
