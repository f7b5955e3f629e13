"""Shared by the three command lines: errors become messages and exit statuses; `--version`; progress for terminals and log files."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from encoders.runtime.allocator import keep_freed_memory
from encoders.runtime.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
DEVICE_HELP = "cuda (the GPU of this process), cuda:1 (the second GPU), cpu, mps (a GPU of Apple), or auto: a GPU if there is one, else cpu"
DeviceOption = Annotated[str, typer.Option(help=DEVICE_HELP)]
LOG_INTERVAL_S = 10.0  # between lines in a log file


def run_cli(app: Callable[[], object]) -> None:
    """Runs a command line. A user error is printed without traceback, with exit status 2; any other error keeps its traceback."""
    keep_freed_memory()
    try:
        app()
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # the reader closed the pipe, as `... | head` does
        sys.stderr.close()
        raise SystemExit(141) from None


def add_version_option(app: typer.Typer, version: str) -> None:
    """Adds `--version`, which prints the version and exits, to a command line."""

    def print_version(requested: bool) -> None:
        if requested:
            print(f"isograft {version}")
            raise typer.Exit

    option = typer.Option("--version", callback=print_version, is_eager=True, help="Show the version and exit.")

    @app.callback()
    def common_options(version: Annotated[bool, option] = False) -> None:
        """Options before the command."""


@contextmanager
def advise_on_interrupt(advice: str) -> Iterator[None]:
    """Ctrl-C inside the block prints what to do next, and exits with the shell's status for an interrupt."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {advice}", file=sys.stderr)
        raise SystemExit(130) from None


def split_commas(text: str | None) -> list[str]:
    """The value `a,b` of an option as ["a", "b"]."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def make_console(stderr: bool = False) -> "Console":
    """A rich console; 120 columns without a terminal, so that tables in log files keep their layout."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else 120, highlight=False)


def track_progress(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yields `items`, with a progress bar on a terminal and a line every ten seconds elsewhere; both show rate and time left.

    total: their number, needed when `items` has no length."""
    if total is None:
        assert isinstance(items, Sized)
        total = len(items)
    with progress_counter(title, total) as tick:
        for item in items:
            yield item
            tick(1)


@contextmanager
def progress_counter(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the number of units done since its last call; progress is shown on standard error."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        rate = TextColumn("{task.fields[rate]}")
        with Progress(
            "[bold]{task.description}",
            BarColumn(),
            MofNCompleteColumn(),
            rate,
            TimeRemainingColumn(),
            console=make_console(True),
        ) as bar:
            task, started = bar.add_task(title, total=total, rate=""), time.monotonic()

            def show(n: int) -> None:
                bar.advance(task, n)
                elapsed = max(time.monotonic() - started, 1e-9)
                bar.update(task, rate=f"{bar.tasks[task].completed / elapsed:.1f}/s")

            yield show
    else:
        yield _LineProgress(title, total)


class _LineProgress:
    """Progress as plain lines: at most one every ten seconds, and one at the end."""

    def __init__(self, title: str, total: int):
        self.title, self.total, self.done = title, total, 0
        self.started = self.last = time.monotonic()

    def __call__(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last < LOG_INTERVAL_S and not (self.done >= self.total and now - self.started > 1):
            return
        self.last, rate = now, self.done / max(now - self.started, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        print(f"{self.title}: {self.done}/{self.total}  {rate:.1f}/s  {left:.0f} s left", file=sys.stderr, flush=True)
