"""The arguments of `transfer bench` as words: read as the command reads them, for commands that queue it."""

from collections.abc import Callable, Sequence
from typing import Any

import typer

from encoders.runtime.command_line import use_tool_commands
from encoders.runtime.errors import InputError
from transfer.bench.bench_command import bench_command
from transfer.bench.options import BenchOptions


def list_bench_options() -> list[str]:
    """The options of `transfer bench`, with their dashes."""
    return [name for param in _build_bench_command().params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")]


def _build_bench_command(run: Callable[[BenchOptions], None] = lambda options: None) -> Any:
    """The command `transfer bench`, as click has it."""
    from typer.main import get_command

    app = typer.Typer()
    app.command()(bench_command(run))
    use_tool_commands(app)
    return get_command(app)


def parse_bench_arguments(arguments: Sequence[str]) -> BenchOptions:
    """The options of a `transfer bench` command line. Raises InputError where typer would refuse it."""
    usage_error: Any = typer.BadParameter.__base__  # click's UsageError, or typer's own copy of it in newer versions
    parsed: list[BenchOptions] = []
    command = _build_bench_command(parsed.append)
    try:
        with command.make_context("transfer bench", list(arguments)) as context:
            command.invoke(context)
    except usage_error as error:
        raise InputError(f"`transfer bench {' '.join(arguments)}`: {error.format_message()}") from error
    return parsed[0]


def find_bench_settings(name: str) -> list[str]:
    """The settings of protocols, as `protocol.key`, that the option `--name` of `transfer bench` may have meant."""
    from transfer.protocols import PROTOCOLS

    return [f"{protocol}.{name}" for protocol, entry in PROTOCOLS.items() if name in entry.load().Config.model_fields]
