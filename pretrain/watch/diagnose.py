"""Diagnoses of a run, by name, with advice: a pure function of the lines of its metrics.jsonl.

The watch policy acts on alarms; notes are only printed. An alarm must hold in PATIENCE consecutive measurements: a single one may be
chance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import fmean, median, stdev
from typing import NamedTuple

PATIENCE = 3  # consecutive measurements
COLLAPSED_COSINE = 0.999  # mean cosine of different images above which they are one point; untrained networks give .99 on radiographs
LOST_RANK_SHARE = 1 / 3  # of the best effective rank so far: below it dimensions were lost
MIN_TEACHER_INFORMATION = 0.01  # information that a teacher must give about an image, as a share of log K
EXPLODED_GRADIENT_FACTOR = 20.0  # times the usual gradient norm
LOADER_BOUND_SHARE = 0.3  # share of the time spent waiting for images
MetricsLine = Mapping[str, float]


class Finding(NamedTuple):
    """A diagnosis that holds at `step`."""

    name: str
    alarm: bool
    step: int
    text: str


def diagnose(lines: Sequence[MetricsLine], baseline: Mapping[str, float], progress: float) -> list[Finding]:
    """The diagnoses that hold at the last of `lines`, alarms first.

    baseline: metrics of the untrained network at step 0 ({} if unknown).  progress: fraction of the run that is done."""
    probed = [line for line in lines if "watch/std" in line]
    if not lines:
        return []
    step = int(lines[-1]["step"])
    alarms = [
        Finding(name, True, step, text(probed[-1]))
        for name, (condition, text) in ALARMS.items()
        if holds_persistently(condition, probed, baseline)
    ]
    if is_gradient_exploding(lines):
        alarms.append(Finding("diverging gradient", True, step, DIVERGING_TEXT.format(lines[-1]["grad_norm"])))
    notes = [Finding(name, False, step, text(lines[-1])) for name, (condition, text) in NOTES.items() if condition(lines, progress)]
    if is_below_start(lines):
        notes.append(Finding("below its start", False, step, _describe_below_start([n for n in lines if "watch/knn_gain" in n][-1])))
    return alarms + notes


def holds_persistently(
    condition: Callable[[MetricsLine, Sequence[MetricsLine]], bool], probed: Sequence[MetricsLine], baseline: Mapping[str, float]
) -> bool:
    """Whether the condition holds in each of the last PATIENCE measurements.

    condition: of a line and all probed ones, the baseline first."""
    earlier = [baseline, *probed] if baseline else list(probed)
    return len(probed) >= PATIENCE and all(condition(line, earlier) for line in probed[-PATIENCE:])


def is_completely_collapsed(line: MetricsLine, earlier: Sequence[MetricsLine]) -> bool:
    """Encoder or head maps all images to one point, and more so than the first measurement."""
    return any(line.get(f"watch/{k}cosine", 0.0) > max(COLLAPSED_COSINE, earlier[0].get(f"watch/{k}cosine", 0.0)) for k in ("", "head_"))


def is_dimensionally_collapsed(line: MetricsLine, earlier: Sequence[MetricsLine]) -> bool:
    """Encoder or head spans far fewer directions than it did, but has not collapsed completely.

    For a method without a head (MAE) the first measurement, of the untrained network, does not count: it spans directions by chance,
    which training removes first."""
    earlier = earlier if "watch/head_rank" in line else earlier[1:]
    lost = any(
        line[name] < LOST_RANK_SHARE * max(e.get(name, 0.0) for e in earlier) for name in ("watch/rank", "watch/head_rank") if name in line
    )
    return lost and not is_completely_collapsed(line, earlier)


def is_teacher_uniform(line: MetricsLine, earlier: Sequence[MetricsLine]) -> bool:
    """The teacher gives each prototype the same probability."""
    return line.get("watch/teacher_entropy", 0.0) > 1 - MIN_TEACHER_INFORMATION


def is_teacher_constant(line: MetricsLine, earlier: Sequence[MetricsLine]) -> bool:
    """The teacher assigns all images to one prototype."""
    return line.get("watch/teacher_marginal", 1.0) < MIN_TEACHER_INFORMATION


def is_gradient_exploding(lines: Sequence[MetricsLine]) -> bool:
    """Each of the last five gradient norms is far above the median before them."""
    finite = (norm for line in reversed(lines) if math.isfinite(norm := float(line.get("grad_norm", math.nan))))
    norms = list(islice(finite, 105))  # newest first; a run may have a hundred thousand lines
    return len(norms) >= 15 and min(norms[:5]) > EXPLODED_GRADIENT_FACTOR * median(norms[5:])


def is_below_start(lines: Sequence[MetricsLine]) -> bool:
    """In each of the last PATIENCE k-NN probes, the encoder is below its start by more than two standard errors."""
    gains = [(float(line["watch/knn_gain"]), float(line["watch/knn_gain_se"])) for line in lines if "watch/knn_gain" in line]
    return len(gains) >= PATIENCE and all(gain + 2 * error < 0 for gain, error in gains[-PATIENCE:])


def is_loss_flat(lines: Sequence[MetricsLine], progress: float) -> bool:
    """The mean loss of the last quarter of the lines is not lower than that of the quarter before by more than twice its standard error.

    Only between 25 % and 80 % of the run."""
    losses = [float(line["loss"]) for line in lines]
    quarter = len(losses) // 4
    if quarter < 10 or not 0.25 < progress < 0.8 or not all(map(math.isfinite, losses[-2 * quarter :])):
        return False
    a, b = losses[-2 * quarter : -quarter], losses[-quarter:]
    noise = math.sqrt((stdev(a) ** 2 + stdev(b) ** 2) / quarter)
    return fmean(a) - fmean(b) < max(2 * noise, 1e-4 * abs(fmean(a)))


def is_loader_bound(lines: Sequence[MetricsLine], progress: float) -> bool:
    """In each of the last five lines, too much of the time is spent waiting for images."""
    last = [float(line.get("time/data_wait", 0.0)) for line in lines[-5:]]
    return len(last) == 5 and min(last) > LOADER_BOUND_SHARE


def is_skipping_steps(lines: Sequence[MetricsLine], progress: float) -> bool:
    """More than one step in twenty of the last ten lines had a NaN or inf loss or gradient."""
    last = lines[-10:]
    steps = last[-1]["step"] - last[0]["step"]
    return steps > 0 and last[-1].get("skipped", 0) - last[0].get("skipped", 0) > max(steps / 20, 1)


def describe_head_value(line: MetricsLine, name: str, form: str) -> str:
    """`, head 2.4`; nothing for a method without a head."""
    value = line.get(f"watch/head_{name}")
    return "" if value is None else f", head {value:{form}}"


def _describe_collapse(line: MetricsLine) -> str:
    where = "features" if line["watch/cosine"] > COLLAPSED_COSINE else "the head's outputs"
    return (
        f"{where} of different images are almost identical (mean cosine {line['watch/cosine']:.4f}"
        f"{describe_head_value(line, 'cosine', '.4f')}); lower optim.lr, lengthen the warm-up, raise the batch; for a method with a slow "
        f"network raise its EMA momentum, for dino lower method.teacher_temperature; restart from a checkpoint before the collapse"
    )


def _describe_dimensional_collapse(line: MetricsLine) -> str:
    return (
        f"the effective rank fell below a third of its best value (now {line['watch/rank']:.1f}"
        f"{describe_head_value(line, 'rank', '.1f')}); weaken the augmentation, lower optim.lr, widen the head, or use a method with a "
        f"variance term (vicreg)"
    )


def _describe_uniform_teacher(line: MetricsLine) -> str:
    return (
        f"the teacher gives each prototype the same probability (entropy {line['watch/teacher_entropy']:.3f} of log K); lower "
        f"method.warmup_temperature and method.teacher_temperature (0.02 to 0.04)"
    )


def _describe_constant_teacher(line: MetricsLine) -> str:
    return (
        f"the teacher assigns all images to one prototype (entropy of the mean {line['watch/teacher_marginal']:.3f} of log K); lower "
        f"optim.lr, raise method.teacher_temperature, and let the centre move faster (lower method.centre_momentum)"
    )


def _describe_below_start(line: MetricsLine) -> str:
    start = line["watch/knn"] - line["watch/knn_gain"]
    return (
        f"the k-NN probe is {line['watch/knn']:.3f}, and {start:.3f} at step 0 (difference {line['watch/knn_gain']:+.3f}, standard error "
        f"{line['watch/knn_gain_se']:.3f}): the run makes the encoder worse; stop it, or try batchnorm=frozen, a lower optim.lr, "
        "head_warmup_steps or anchor.relational; `pretrain export RUN --interpolate 0.25,0.5` gives encoders between start and end"
    )


DIVERGING_TEXT = "the gradient norm is {:.3g}, more than 20 times the usual; lower optim.lr, set clip (1.0 to 3.0), lengthen the warm-up"
ALARMS: dict[str, tuple[Callable[[MetricsLine, Sequence[MetricsLine]], bool], Callable[[MetricsLine], str]]] = {
    "complete collapse": (is_completely_collapsed, _describe_collapse),
    "dimensional collapse": (is_dimensionally_collapsed, _describe_dimensional_collapse),
    "uniform teacher": (is_teacher_uniform, _describe_uniform_teacher),
    "one-prototype teacher": (is_teacher_constant, _describe_constant_teacher),
}
NOTES: dict[str, tuple[Callable[[Sequence[MetricsLine], float], bool], Callable[[MetricsLine], str]]] = {
    "plateau": (
        is_loss_flat,
        lambda line: (
            f"the loss no longer falls (now {line['loss']:.4g}): if rank and probe do not change either, a longer run will not help; try "
            f"a higher optim.lr, a stronger augmentation, or another method"
        ),
    ),
    "loader-bound": (
        is_loader_bound,
        lambda line: (
            f"{100 * line['time/data_wait']:.0f} % of the time is spent waiting for images; raise data.workers (one per free core), stage "
            f"the store on a local disk, or ingest it at a smaller --size"
        ),
    ),
    "skipped steps": (
        is_skipping_steps,
        lambda line: (
            f"{line['skipped']:.0f} steps so far had a NaN or inf loss or gradient; lower optim.lr, set clip, or use precision=fp32"
        ),
    ),
}
