"""The dashboard of a run, from the lines of its metrics.jsonl: progress, curves as sparklines, shares of the time, diagnoses."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pretrain.display.time_left import estimate_seconds_left
from pretrain.loop.step_parts import STEP_PARTS
from pretrain.watch.diagnose import MetricsLine, diagnose

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

SPARKLINE_BARS = "▁▂▃▄▅▆▇█"
SPARKLINE_WIDTH = 48  # characters
CURVES = {  # title: metric
    "loss": "loss",
    "gradient": "grad_norm",
    "rank": "watch/rank",
    "rank, head": "watch/head_rank",
    "std": "watch/std",
    "cosine": "watch/cosine",
    "teacher": "watch/teacher_entropy",
    "k-NN": "watch/knn",
    "k-NN, gain": "watch/knn_gain",
    "drift": "watch/drift",
    "overlap": "watch/overlap",
}


def find_curves(lines: Sequence[MetricsLine]) -> dict[str, str]:
    """Title -> metric of what was logged: CURVES, then loss and accuracy or error of each auxiliary label."""
    logged = dict.fromkeys(key for line in lines for key in line)
    own = {key.replace("_", " "): key for key in logged if key.startswith("auxiliary/")}
    return {title: key for title, key in CURVES.items() if key in logged} | own


def sparkline(values: Sequence[float], width: int = SPARKLINE_WIDTH) -> str:
    """The values as bars between their minimum and maximum, averaged to `width` characters; a dot stands for NaN or inf."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return ""
    n = min(width, len(values))
    parts = [values[i * len(values) // n : (i + 1) * len(values) // n] for i in range(n)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min((m for m in means if math.isfinite(m)), default=0.0), max((m for m in means if math.isfinite(m)), default=0.0)
    scale = (len(SPARKLINE_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKLINE_BARS[round((m - low) * scale)] if math.isfinite(m) else "·" for m in means)


def format_duration(seconds: float) -> str:
    """Seconds as 1:02:03 or 2:03."""
    total = round(seconds)
    hours, minutes = divmod(total // 60, 60)
    return f"{hours}:{minutes:02d}:{total % 60:02d}" if hours else f"{minutes}:{total % 60:02d}"


def describe_progress(lines: Sequence[MetricsLine], steps: int) -> str:
    """Step, time left, speed, memory and learning rate in one line."""
    last = lines[-1]
    seconds = estimate_seconds_left(lines, steps)
    left = "" if seconds is None else f"{format_duration(seconds)} left  "
    memory = f"  {last['time/memory_gib']:.1f} GiB" if "time/memory_gib" in last else ""
    return (
        f"step {int(last['step']):,} of {steps:,}  {100 * last['step'] / steps:.0f} %  {left}"
        f"{last.get('time/images_per_s', 0.0):.0f} images/s  "
        f"data wait {100 * last.get('time/data_wait', 0.0):.0f} %{memory}  lr {last['lr']:.2e}"
    )


def describe_time_shares(last: MetricsLine) -> str:
    """The share of the time in each part of a step, in one line."""
    return "  ".join(f"{part} {100 * last[f'time/{part}']:.0f} %" for part in STEP_PARTS if f"time/{part}" in last)


def list_curves(lines: Sequence[MetricsLine]) -> list[tuple[str, str, str]]:
    """(name, sparkline, last value) of each metric of `find_curves`."""
    each = {name: [float(line[key]) for line in lines if key in line] for name, key in find_curves(lines).items()}
    return [(name, sparkline(values), f"{values[-1]:.4g}") for name, values in each.items()]


def draw_progress_bar(progress: float) -> "Text":
    """A bar.  progress: fraction of the run that is done."""
    from rich.text import Text

    full = round(progress * SPARKLINE_WIDTH)
    return Text.assemble(("━" * full, "cyan"), ("━" * (SPARKLINE_WIDTH - full), "dim"))


def build_panel(title: str, lines: Sequence[MetricsLine], steps: int, baseline: Mapping[str, float]) -> "RenderableType":
    """The dashboard.  steps: of the whole run.  baseline: metrics of the untrained network, for the diagnoses."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    if not lines:
        return Panel(Text("no metrics logged yet"), title=Text(title))
    grid = Table.grid(padding=(0, 2))
    for name, bars, value in list_curves(lines):
        grid.add_row(Text(name), Text(bars, style="cyan"), Text(value, style="bold"))
    parts: list[RenderableType] = [
        Text(describe_progress(lines, steps)),
        draw_progress_bar(lines[-1]["step"] / steps),
        grid,
        Text(describe_time_shares(lines[-1])),
    ]
    for finding in diagnose(lines, baseline, lines[-1]["step"] / steps):
        parts.append(Text(f"{finding.name}: {finding.text}", style="bold red" if finding.alarm else "yellow"))
    return Panel(Group(*parts), title=Text(title), title_align="left")
