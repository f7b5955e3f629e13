"""What a person sees while a run trains: the dashboard on a terminal, plain lines in a log file and under SLURM."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from encoders.runtime.cli import console
from encoders.runtime.track import read
from pretrain.dashboard import clock, panel
from pretrain.rundir import RunDir, alive

Show = Callable[..., None]


@contextmanager
def monitor(run: RunDir, first: int, steps: int, quiet: bool = False) -> Iterator[Show]:
    """A function `show(step, **numbers)` to call at every line of the record."""
    title = run.name
    if quiet:
        yield lambda step, **numbers: None
    elif sys.stderr.isatty() and "SLURM_JOB_ID" not in os.environ:
        with _dashboard(title, steps, read(run.path), run.read().get("untrained", {})) as show:
            yield show
    else:
        yield _lines(title, first, steps)


def told(numbers: dict[str, Any]) -> str:
    """The numbers that matter while one waits."""
    rate, wait = numbers.get("time/images_per_s", 0.0), numbers.get("time/data_wait", 0.0)
    return f"loss {float(numbers['loss']):.4f}  lr {numbers['lr']:.2e}  {rate:.0f} images/s  data wait {100 * wait:.0f} %"


@contextmanager
def _dashboard(title: str, steps: int, lines: list[dict[str, Any]], baseline: Mapping[str, float]) -> Iterator[Show]:
    from rich.live import Live

    with Live(panel(title, lines, steps, baseline), console=console(stderr=True), auto_refresh=False) as live:

        def show(step: int, **numbers: Any) -> None:
            lines.append({"step": step, **numbers})
            live.update(panel(title, lines, steps, baseline), refresh=True)

        yield show


def follow(run: RunDir, once: bool) -> None:
    """The dashboard of a run that another process works on, until it ends; or as it is now."""
    from rich.live import Live

    def now() -> Any:
        told = run.read()
        return panel(f"{run.name}, {told['status']}", read(run.path), int(told["steps"]), told.get("untrained", {}))

    if once:
        console().print(now())
        return
    with Live(now(), console=console(), auto_refresh=False) as live:
        while alive(run):
            time.sleep(1.0)
            live.update(now(), refresh=True)
        live.update(now(), refresh=True)


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
