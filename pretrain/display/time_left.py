"""How long a run will still take, from the lines of its metrics.jsonl."""

from collections.abc import Sequence

from pretrain.watch.diagnose import MetricsLine

RECENT_LINES = 20  # at least; probes and checkpoints, which take long and come seldom, should be among them
RECENT_SHARE = 0.2  # of the lines


def estimate_seconds_left(lines: Sequence[MetricsLine], steps: int) -> float | None:
    """Seconds until step `steps`, from the mean time of recent steps; None before there are two lines.

    The first line is left out: it contains the start of the run, and with `compile` the compilation."""
    if len(lines) < 2:
        return None
    recent = lines[-min(max(RECENT_LINES, round(RECENT_SHARE * len(lines))), len(lines) - 1) :]
    before = lines[len(lines) - len(recent) - 1 : -1]
    counts = [max(int(line["step"]) - int(previous["step"]), 1) for line, previous in zip(recent, before, strict=True)]
    seconds = sum(count * float(line.get("time/s_per_step", 0.0)) for count, line in zip(counts, recent, strict=True))
    return (steps - int(lines[-1]["step"])) * seconds / sum(counts) if seconds else None
