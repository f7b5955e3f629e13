"""What a person sees while a run trains: the dashboard on a terminal, plain lines in a log file and under SLURM."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from encoders.runtime.cli import make_console
from encoders.runtime.metrics_log import read_metrics
from pretrain.display.dashboard import build_panel, format_duration
from pretrain.run.rundir import RunDir, is_run_alive

ShowMetrics = Callable[..., None]


@contextmanager
def monitor_run(run: RunDir, first: int, steps: int, quiet: bool = False) -> Iterator[ShowMetrics]:
    """A function `show(step, **numbers)` to call at every line of the record."""
    title = run.name
    if quiet:
        yield lambda step, **numbers: None
    elif sys.stderr.isatty() and "SLURM_JOB_ID" not in os.environ:
        with _open_dashboard(title, steps, read_metrics(run.path), run.read().get("untrained", {})) as show:
            yield show
    else:
        yield _build_line_printer(title, first, steps)


def describe_metrics(numbers: dict[str, Any]) -> str:
    """The numbers that matter while one waits."""
    rate, wait = numbers.get("time/images_per_s", 0.0), numbers.get("time/data_wait", 0.0)
    return f"loss {float(numbers['loss']):.4f}  lr {numbers['lr']:.2e}  {rate:.0f} images/s  data wait {100 * wait:.0f} %"


@contextmanager
def _open_dashboard(title: str, steps: int, lines: list[dict[str, Any]], baseline: Mapping[str, float]) -> Iterator[ShowMetrics]:
    from rich.live import Live

    with Live(build_panel(title, lines, steps, baseline), console=make_console(stderr=True), auto_refresh=False) as live:

        def show(step: int, **numbers: Any) -> None:
            lines.append({"step": step, **numbers})
            live.update(build_panel(title, lines, steps, baseline), refresh=True)

        yield show


def follow_run(run: RunDir, once: bool) -> None:
    """The dashboard of a run that another process works on, until it ends; or as it is now."""
    from rich.live import Live

    def now() -> Any:
        told = run.read()
        return build_panel(f"{run.name}, {told['status']}", read_metrics(run.path), int(told["steps"]), told.get("untrained", {}))

    if once:
        make_console().print(now())
        return
    with Live(now(), console=make_console(), auto_refresh=False) as live:
        while is_run_alive(run):
            time.sleep(1.0)
            live.update(now(), refresh=True)
        live.update(now(), refresh=True)


def _build_line_printer(title: str, first: int, steps: int) -> ShowMetrics:
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
        print(f"{title}: step {step}/{steps}  {describe_metrics(numbers)}  {format_duration(left)} left", file=sys.stderr, flush=True)

    return show
