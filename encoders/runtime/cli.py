"""What the three command lines share: the boundary where errors become messages, and progress that reads well in a log too."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from encoders.runtime.allocator import keep_freed_memory
from encoders.runtime.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
LOG_INTERVAL_S = 10.0  # in a log file: often enough to see life, seldom enough to read


def run_cli(app: Callable[[], Any]) -> None:
    """Runs a command line; a mistake of the user's is printed alone, with exit status 2, and anything else keeps its traceback."""
    keep_freed_memory()
    try:
        app()
    except InputError as wrong:
        sys.stdout.flush()
        print(f"error: {wrong}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # `... | head` closed the pipe: not an error of ours
        sys.stderr.close()
        raise SystemExit(141) from None


@contextmanager
def advise_on_interrupt(advice: str) -> Iterator[None]:
    """What Ctrl-C ends inside says so, with what to do next, and leaves the shell's own exit status for it."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; {advice}", file=sys.stderr)
        raise SystemExit(130) from None


def split_commas(text: str | None) -> list[str]:
    """`a,b` of an option as ["a", "b"]."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def make_console(stderr: bool = False) -> "Console":
    """A rich console; 120 columns where there is no terminal, so that tables in logs keep their shape."""
    from rich.console import Console

    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr, width=None if terminal else 120, highlight=False)


def track_progress(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """`items`, with a bar on a terminal and a line every ten seconds elsewhere; both give rate and time left."""
    with progress_counter(title, total if total is not None else len(items)) as tick:  # type: ignore[arg-type]
        for item in items:
            yield item
            tick(1)


@contextmanager
def progress_counter(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of units done since the last call; it shows them on standard error."""
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
            task, begun = bar.add_task(title, total=total, rate=""), time.monotonic()

            def show(n: int) -> None:
                bar.advance(task, n)
                elapsed = max(time.monotonic() - begun, 1e-9)
                bar.update(task, rate=f"{bar.tasks[task].completed / elapsed:.1f}/s")

            yield show
    else:
        yield _LineProgress(title, total)


class _LineProgress:
    """Progress as plain lines, at most one every ten seconds, and a last one."""

    def __init__(self, title: str, total: int):
        self.title, self.total, self.done = title, total, 0
        self.begun = self.last = time.monotonic()

    def __call__(self, n: int) -> None:
        self.done += n
        now = time.monotonic()
        if now - self.last < LOG_INTERVAL_S and not (self.done >= self.total and now - self.begun > 1):
            return
        self.last, rate = now, self.done / max(now - self.begun, 1e-9)
        left = (self.total - self.done) / rate if rate else float("inf")
        print(f"{self.title}: {self.done}/{self.total}  {rate:.1f}/s  {left:.0f} s left", file=sys.stderr, flush=True)
