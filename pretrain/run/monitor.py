"""The progress of a run as it trains: the dashboard on a terminal, plain lines in a log file and under SLURM."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from encoders.runtime.cli import make_console
from encoders.runtime.metrics_log import read_metrics
from pretrain.display.dashboard import build_panel, format_duration
from pretrain.display.time_left import estimate_seconds_left
from pretrain.run.lock_holder import is_run_alive
from pretrain.run.run_info import read_baseline
from pretrain.run.rundir import RunDir
from pretrain.watch.time_budget import TimeBudget

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_INTERVAL_S = 5.0  # between two lines in a log file
DRAWING_SHARE = 0.01  # of the run's time for the dashboard, which reads all lines for each picture


class ShowMetrics(Protocol):
    """Shows the metrics that were logged at a step."""

    def __call__(self, step: int, **metrics: float) -> None: ...


@contextmanager
def monitor_run(run: RunDir, steps: int, quiet: bool = False) -> Iterator[ShowMetrics]:
    """Yields the function to call with each line of metrics.jsonl.  quiet: shows nothing."""
    if quiet:
        yield lambda step, **metrics: None
    elif sys.stderr.isatty() and "SLURM_JOB_ID" not in os.environ:
        with _open_dashboard(run.name, steps, read_metrics(run.path), read_baseline(run.read())) as show:
            yield show
    else:
        yield _build_line_printer(run.name, steps)


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """Loss, learning rate, speed and share of time spent waiting for data, in one line."""
    rate, wait = metrics.get("time/images_per_s", 0.0), metrics.get("time/data_wait", 0.0)
    return f"loss {metrics['loss']:.4f}  lr {metrics['lr']:.2e}  {rate:.0f} images/s  data wait {100 * wait:.0f} %"


@contextmanager
def _open_dashboard(title: str, steps: int, lines: list[dict[str, Any]], baseline: Mapping[str, float]) -> Iterator[ShowMetrics]:
    from rich.live import Live

    with Live(build_panel(title, lines, steps, baseline), console=make_console(stderr=True), auto_refresh=False) as live:
        drawing = TimeBudget(DRAWING_SHARE)

        def show(step: int, **metrics: float) -> None:
            lines.append({"step": step, **metrics})
            if drawing.fits(reserved=1) or step == steps:
                with drawing.spend():
                    live.update(build_panel(title, lines, steps, baseline), refresh=True)

        yield show


def follow_run(run: RunDir, once: bool) -> None:
    """Shows the dashboard of a run that another process trains, until it ends; with `once`, prints its present state."""
    from rich.live import Live

    def panel() -> "RenderableType":
        info = run.read()
        return build_panel(f"{run.name}, {info['status']}", read_metrics(run.path), int(info["steps"]), read_baseline(info))

    if once:
        make_console().print(panel())
        return
    with Live(panel(), console=make_console(), auto_refresh=False) as live:
        while is_run_alive(run):
            time.sleep(1.0)
            live.update(panel(), refresh=True)
        live.update(panel(), refresh=True)


def _build_line_printer(title: str, steps: int) -> ShowMetrics:
    """Prints at most one line per LINE_INTERVAL_S, and always the last one."""
    last = time.monotonic() - LINE_INTERVAL_S
    lines: list[dict[str, Any]] = []

    def show(step: int, **metrics: float) -> None:
        nonlocal last
        lines.append({"step": step, **metrics})
        now = time.monotonic()
        if now - last < LINE_INTERVAL_S and step < steps:
            return
        last = now
        left = estimate_seconds_left(lines, steps)
        end = "" if left is None else f"  {format_duration(left)} left"
        print(f"{title}: step {step}/{steps}  {describe_metrics(metrics)}{end}", file=sys.stderr, flush=True)

    return show
