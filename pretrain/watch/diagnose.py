"""What ails a run, by name, with advice: a pure function of the lines of its record.

An alarm is what a policy acts on; a note is only told. An alarm must hold at PATIENCE looks in a row: one bad look is chance.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any, NamedTuple

PATIENCE = 3  # looks in a row
COLLAPSED_COSINE = 0.999  # mean cosine of different images above which they are one point; untrained networks give .99 on radiographs
LOST_RANK_SHARE = 1 / 3  # of the best effective rank so far: below it dimensions were lost
MIN_TEACHER_INFORMATION = 0.01  # share of log K that a teacher must tell of an image
EXPLODED_GRADIENT_FACTOR = 20.0  # times the usual gradient
LOADER_BOUND_SHARE = 0.3  # share of the time spent waiting for images
MetricsLine = Mapping[str, Any]


class Finding(NamedTuple):
    """A diagnosis that holds at `step`."""

    name: str
    alarm: bool
    step: int
    text: str


def diagnose(lines: Sequence[MetricsLine], baseline: Mapping[str, float], progress: float) -> list[Finding]:
    """What holds at the last of `lines`.

    baseline: the numbers of the untrained network at step 0 ({} where unknown).  progress: share of the run behind us."""
    looks = [line for line in lines if "watch/std" in line]
    if not lines:
        return []
    step = int(lines[-1]["step"])
    alarms = [
        Finding(name, True, step, text(looks[-1])) for name, (holds, text) in ALARMS.items() if holds_persistently(holds, looks, baseline)
    ]
    if is_gradient_exploding(lines):
        alarms.append(Finding("diverging gradient", True, step, DIVERGING_TEXT.format(lines[-1]["grad_norm"])))
    notes = [Finding(name, False, step, text(lines[-1])) for name, (holds, text) in NOTES.items() if holds(lines, progress)]
    return alarms + notes


def holds_persistently(
    holds: Callable[[MetricsLine, Sequence[MetricsLine]], bool], looks: Sequence[MetricsLine], baseline: Mapping[str, float]
) -> bool:
    """Whether it holds at each of the last looks."""
    before = [baseline, *looks] if baseline else list(looks)
    return len(looks) >= PATIENCE and all(holds(look, before) for look in looks[-PATIENCE:])


def is_completely_collapsed(look: MetricsLine, before: Sequence[MetricsLine]) -> bool:
    """All images are one point, to the encoder or to its head, and nearer to it than when untrained."""
    return any(look.get(f"watch/{k}cosine", 0.0) > max(COLLAPSED_COSINE, before[0].get(f"watch/{k}cosine", 0.0)) for k in ("", "head_"))


def is_dimensionally_collapsed(look: MetricsLine, before: Sequence[MetricsLine]) -> bool:
    """Encoder or head spans far fewer directions than it did; an effective rank of 1 is the other collapse.

    A method without a head (MAE) is not measured by the untrained network: it first drops what that spanned by chance."""
    before = before if "watch/head_rank" in look else before[1:]
    return any(
        look[name] < LOST_RANK_SHARE * max(b.get(name, 0.0) for b in before) for name in ("watch/rank", "watch/head_rank") if name in look
    ) and not is_completely_collapsed(look, before)


def is_teacher_uniform(look: MetricsLine, before: Sequence[MetricsLine]) -> bool:
    return look.get("watch/teacher_entropy", 0.0) > 1 - MIN_TEACHER_INFORMATION


def is_teacher_constant(look: MetricsLine, before: Sequence[MetricsLine]) -> bool:
    return look.get("watch/teacher_marginal", 1.0) < MIN_TEACHER_INFORMATION


def is_gradient_exploding(lines: Sequence[MetricsLine]) -> bool:
    """The last five gradients are far above what they were before, and none of them is the exception."""
    norms = [float(line["grad_norm"]) for line in lines if math.isfinite(line.get("grad_norm", math.nan))]
    return len(norms) >= 15 and min(norms[-5:]) > EXPLODED_GRADIENT_FACTOR * median(norms[:-5][-100:])


def is_loss_flat(lines: Sequence[MetricsLine], progress: float) -> bool:
    """The loss of the last quarter of the lines is that of the quarter before, within twice its noise; not at the run's ends."""
    losses = [float(line["loss"]) for line in lines]
    quarter = len(losses) // 4
    if quarter < 10 or not 0.25 < progress < 0.8 or not all(map(math.isfinite, losses[-2 * quarter :])):
        return False
    a, b = losses[-2 * quarter : -quarter], losses[-quarter:]
    noise = math.sqrt((stdev(a) ** 2 + stdev(b) ** 2) / quarter)
    return fmean(a) - fmean(b) < max(2 * noise, 1e-4 * abs(fmean(a)))


def is_loader_bound(lines: Sequence[MetricsLine], progress: float) -> bool:
    last = [float(line.get("time/data_wait", 0.0)) for line in lines[-5:]]
    return len(last) == 5 and min(last) > LOADER_BOUND_SHARE


def is_skipping_steps(lines: Sequence[MetricsLine], progress: float) -> bool:
    """More than one step in twenty since the line ten lines ago had no number for a loss or gradient."""
    far = lines[-10:]
    steps = far[-1]["step"] - far[0]["step"]
    return steps > 0 and far[-1].get("skipped", 0) - far[0].get("skipped", 0) > max(steps / 20, 1)


def describe_head_value(look: MetricsLine, name: str, form: str) -> str:
    """`, head 2.4`; nothing for a method without a head."""
    value = look.get(f"watch/head_{name}")
    return "" if value is None else f", head {value:{form}}"


def _describe_collapse(look: MetricsLine) -> str:
    where = "features" if look["watch/cosine"] > COLLAPSED_COSINE else "the head's outputs"
    return (
        f"{where} of different images are one point (mean cosine {look['watch/cosine']:.4f}"
        f"{describe_head_value(look, 'cosine', '.4f')}); lower optim.lr, lengthen the warm-up, raise the batch; for a method with a slow "
        f"copy raise its momentum, for dino lower method.teacher_temperature; start again from before it"
    )


def _describe_dimensional_collapse(look: MetricsLine) -> str:
    return (
        f"the effective rank fell below a third of its best (now {look['watch/rank']:.1f}"
        f"{describe_head_value(look, 'rank', '.1f')}); weaken the augmentation that makes views alike, lower optim.lr, widen the head, or "
        f"use a method with a variance term (vicreg)"
    )


def _describe_uniform_teacher(look: MetricsLine) -> str:
    return (
        f"the teacher says the same of every prototype (entropy {look['watch/teacher_entropy']:.3f} of log K); lower "
        f"method.warmup_temperature and method.teacher_temperature (0.02 to 0.04)"
    )


def _describe_constant_teacher(look: MetricsLine) -> str:
    return (
        f"the teacher gives every image one prototype (entropy of the mean {look['watch/teacher_marginal']:.3f} of log K); lower optim.lr, "
        f"raise method.teacher_temperature, and let the centre follow faster (lower method.centre_momentum)"
    )


DIVERGING_TEXT = "the gradient's norm is {:.3g}, more than 20 times the usual; lower optim.lr, set clip (1.0 to 3.0), lengthen the warm-up"
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
            f"the loss stands at {line['loss']:.4g}: if rank and probe stand too, a longer run will not help; try a higher optim.lr, a "
            f"harder augmentation, or another method"
        ),
    ),
    "loader-bound": (
        is_loader_bound,
        lambda line: (
            f"{100 * line['time/data_wait']:.0f} % of the time waits for images; raise data.workers (one a free core), stage the store on "
            f"a local disk, or ingest it at a smaller --size"
        ),
    ),
    "skipped steps": (
        is_skipping_steps,
        lambda line: (
            f"{line['skipped']:.0f} steps so far had no number for a loss or gradient; lower optim.lr, set clip, or use precision=fp32"
        ),
    ),
}
