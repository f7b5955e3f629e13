"""Shared by the three command lines: errors become messages and exit statuses; `--version`; progress for terminals and log files."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from encoders.runtime.allocator import keep_freed_memory
from encoders.runtime.errors import InputError
from encoders.runtime.local_notes import describe_for_log, describe_traceback, prints_to_job_log
from encoders.runtime.openmp import bound_spinning
from encoders.runtime.progress import Progress, describe_seconds
from encoders.runtime.storage_errors import StorageError, find_storage_error

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
DEVICE_HELP = "cuda (the GPU of this process), cuda:1 (the second GPU), cpu, mps (a GPU of Apple), or auto: a GPU if there is one, else cpu"
DeviceOption = Annotated[str, typer.Option(help=DEVICE_HELP)]
LOG_INTERVAL_S = 10.0  # between lines in a log file


def run_cli(app: Callable[[], object]) -> None:
    """Runs a command line. Errors of the user (exit status 2) and of the storage (1) are one sentence; others keep their traceback."""
    bound_spinning()  # before anything imports torch
    keep_freed_memory()
    try:
        app()
    except InputError as error:
        sys.stdout.flush()
        print(f"error: {describe_for_log(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except StorageError as error:
        _exit_with_storage_error(error)
    except BrokenPipeError:  # the reader closed the pipe, as `... | head` does
        sys.stderr.close()
        raise SystemExit(141) from None
    except OSError as error:  # of a write without a sentence of its own, such as a table piped to a full disk
        if (known := find_storage_error(error, error.filename)) is None:
            _exit_unexpectedly(error)
        _exit_with_storage_error(known)
    except Exception as error:  # noqa: BLE001  raised again, unless it would end in the log of a job
        _exit_unexpectedly(error)


def _exit_with_storage_error(error: StorageError) -> NoReturn:
    """Prints the sentence and exits with status 1. Standard output may be what is full: what is left of it is not flushed again."""
    with suppress(OSError):
        sys.stdout.flush()
    print(f"error: {describe_for_log(str(error))}", file=sys.stderr, flush=True)
    raise SystemExit(1) from None


def _exit_unexpectedly(error: Exception) -> NoReturn:
    """Raises the error again, with its traceback; in the log of a job, prints it without names and paths and exits with status 1."""
    if not prints_to_job_log():
        raise error
    with suppress(OSError):
        sys.stdout.flush()
    print(describe_traceback(error), file=sys.stderr, flush=True)
    raise SystemExit(1) from None


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
    """A rich console that prints texts as they are; 120 columns without a terminal, so that tables in log files keep their layout."""
    from encoders.runtime.console import PlainConsole

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return PlainConsole(stderr=stderr, width=None if terminal else 120, highlight=False)


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
def progress_counter(title: str, total: int, work: Mapping[str, float] | None = None) -> Iterator[Progress]:
    """Yields what takes the progress, e.g. the number of items done since its last call; it is shown on standard error.

    work: kinds of work and their units, where items take different times (encoders/runtime/progress.py)."""
    if sys.stderr.isatty():
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        fields = TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TextColumn("{task.fields[left]}")
        with Bars("[bold]{task.description}", BarColumn(), MofNCompleteColumn(), *fields, console=make_console(True)) as bars:
            task = bars.add_task(title, total=total, rate="", left="")

            def show(progress: Progress) -> None:
                bars.update(task, completed=progress.done, rate=progress.describe_rate(), left=describe_left(progress))

            yield Progress(total, work, show)
    else:
        yield Progress(total, work, LineDisplay(title))


class LineDisplay:
    """Progress as plain lines: at most one every ten seconds, and one at the end."""

    def __init__(self, title: str):
        self.title = title
        self.shown: float | None = None  # when; None: not yet

    def __call__(self, progress: Progress) -> None:
        now = progress.last
        ended = progress.done >= progress.total
        since = progress.started if self.shown is None else self.shown
        if now - since < LOG_INTERVAL_S and not (ended and now - progress.started > 1):
            return
        if ended and self.shown == float("inf"):
            return  # the end was shown
        self.shown = float("inf") if ended else now
        end = f"in {describe_seconds(now - progress.started)}" if ended else describe_left(progress)
        words = (f"{progress.done}/{progress.total}", progress.describe_rate(), end)
        print(f"{self.title}: {'  '.join(word for word in words if word)}", file=sys.stderr, flush=True)


def describe_left(progress: Progress) -> str:
    """The estimate in words; "" before there is one."""
    left = progress.seconds_left()
    return "" if left is None else f"{describe_seconds(left)} left"
