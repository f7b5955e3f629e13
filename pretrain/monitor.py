"""What a person sees while a run trains: a bar with step, loss, speed, data-wait share and time left; plain lines in a log file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from encoders.runtime.cli import console

Show = Callable[..., None]


@contextmanager
def monitor(title: str, first: int, steps: int, quiet: bool = False) -> Iterator[Show]:
    """A function `show(step, **numbers)` to call at every line of the record."""
    if quiet:
        yield lambda step, **numbers: None
    elif sys.stderr.isatty():
        with _bar(title, first, steps) as show:
            yield show
    else:
        yield _lines(title, first, steps)


def told(numbers: dict[str, Any]) -> str:
    """The numbers that matter while one waits."""
    rate, wait = numbers.get("time/images_per_s", 0.0), numbers.get("time/data_wait", 0.0)
    return f"loss {float(numbers['loss']):.4f}  lr {numbers['lr']:.2e}  {rate:.0f} images/s  data wait {100 * wait:.0f} %"


@contextmanager
def _bar(title: str, first: int, steps: int) -> Iterator[Show]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = ("[bold]{task.description}", BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True)) as bar:
        task = bar.add_task(title, total=steps, completed=first, told="")
        yield lambda step, **numbers: bar.update(task, completed=step, told=told(numbers))


def _lines(title: str, first: int, steps: int) -> Show:
    """Plain lines, at most one in five seconds, and the last one always."""
    begun = time.monotonic()
    last = begun - 5.0

    def show(step: int, **numbers: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < 5.0 and step < steps:
            return
        last = now
        left = (now - begun) / max(step - first, 1) * (steps - step)
        print(f"{title}: step {step}/{steps}  {told(numbers)}  {clock(left)} left", file=sys.stderr, flush=True)

    return show


def clock(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"
