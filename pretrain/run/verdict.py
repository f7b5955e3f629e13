"""The verdict on a run in one sentence: how far it came, and whether its encoder is sound. Needs no torch."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from encoders.runtime.metrics_log import read_metrics
from pretrain.run.lock_holder import is_run_alive
from pretrain.run.run_info import RunInfo, read_baseline
from pretrain.run.rundir import RunDir
from pretrain.watch.diagnose import MetricsLine
from pretrain.watch.history import DiagnosisSpan, find_diagnosis_spans

Grade = Literal["good", "warned", "bad", "open"]  # open: the run is not over
BELOW_START = "below its start"


class RunVerdict(NamedTuple):
    """sentence: begins in lower case, without the name of the run.  spans: the diagnoses, those that hold first."""

    sentence: str
    grade: Grade
    spans: list[DiagnosisSpan]


def judge_run(run: RunDir) -> RunVerdict:
    """The verdict on a run in its present state."""
    info, lines = run.read(), read_metrics(run.path)
    dead = info["status"] == "running" and not is_run_alive(run)
    return judge(info, lines, dead and not run.requeue_marker.exists(), run.name)


def record_verdict(run: RunDir, verdict: RunVerdict) -> None:
    """Enters the verdict in run.json, unless a process may be writing to it."""
    status = run.read()["status"]
    if status != "running":
        run.update(verdict={"status": status, "sentence": verdict.sentence, "grade": verdict.grade})


def judge(info: RunInfo, lines: Sequence[MetricsLine], died: bool = False, name: str = "NAME") -> RunVerdict:
    """The verdict on what run.json and metrics.jsonl say.  died: the run is recorded as running, and its process is gone."""
    spans = find_diagnosis_spans(lines, read_baseline(info), info["steps"])
    step = max(int(lines[-1]["step"]) if lines else 0, int(info.get("step", 0)))
    state, grade = _describe_state(info, step, died, name)
    holding = [span for span in spans if span.end is None]
    alarms = [span for span in holding if span.finding.alarm]
    if lines and (broken := _find_not_finite(lines)):
        return RunVerdict(f"{state}, {'but' if info['status'] == 'finished' else 'and'} {broken}", "bad", spans)
    if info["status"] == "finished":
        exported = info.get("best")
        if alarms and exported is not None and exported < min(span.start for span in alarms):
            return RunVerdict(f"{state}; its encoder is that of step {exported:,}, before the {_name_alarm(alarms[0])}", "warned", spans)
        if not alarms:
            return RunVerdict(*_describe_sound(state, lines, spans), spans)
    if alarms:
        return RunVerdict(f"{state}, {'but' if info['status'] == 'finished' else 'and'} {_describe_alarm(alarms[0])}", "bad", spans)
    return RunVerdict(state, grade, spans)


def _describe_state(info: RunInfo, step: int, died: bool, name: str) -> tuple[str, Grade]:
    """How far the run came."""
    of_all, status = f"step {step:,} of {info['steps']:,}", info["status"]
    if status == "finished":
        best = info.get("best")
        return (
            f"finished at {of_all}" if best is None else f"finished at {of_all}, with the encoder of its best probe, step {best:,}"
        ), "good"
    if died:
        return f"died at {of_all}: its process is gone; `pretrain resume {name}` continues it", "bad"
    if status == "running":
        return f"running, {of_all}", "open"
    if status == "diverged":
        return f"diverged at {of_all}", "bad"
    sessions = info.get("sessions") or [{}]
    by = sessions[-1].get("ended_by")
    cause = "by the watchdog" if by == "watchdog" else f"by {by}" if by else ""
    return f"{status} {cause} at {of_all}; `pretrain resume {name}` continues it".replace(
        "  ", " "
    ), "bad" if by == "watchdog" else "warned"


def _describe_sound(state: str, lines: Sequence[MetricsLine], spans: Sequence[DiagnosisSpan]) -> tuple[str, Grade]:
    """The verdict on a finished run without an alarm at its end."""
    if any(span.finding.name == BELOW_START and span.end is None for span in spans):
        return f"{state}, but its k-NN probe is below its start", "warned"
    if not any("watch/std" in line for line in lines):
        return f"{state}; it is not known whether it collapsed, because the watchdog measured nothing (watch.images=0)", "warned"
    if past := [span for span in spans if span.finding.alarm]:
        first = past[0]
        return f"{state}; a {first.finding.name} from step {first.start:,} ended at step {first.end:,}", "warned"
    return state, "good"


def _find_not_finite(lines: Sequence[MetricsLine]) -> str:
    """Which numbers are NaN or inf at the end of the run, and since when; "" if none is."""
    for key, words in (("watch/std", "its features are NaN or inf"), ("loss", "its loss is NaN or inf")):
        logged = [line for line in lines if key in line]
        since = None
        for line in reversed(logged):
            if math.isfinite(line[key]):
                break
            since = int(line["step"])
        if since is not None:
            return f"{words} from step {since:,} on"
    return ""


def _describe_alarm(span: DiagnosisSpan) -> str:
    """`collapsed at step 40`, or what else the alarm says."""
    return f"collapsed at step {span.start:,}" if span.is_collapse else f"{span.finding.name} from step {span.start:,} on"


def _name_alarm(span: DiagnosisSpan) -> str:
    return f"collapse at step {span.start:,}" if span.is_collapse else f"{span.finding.name} at step {span.start:,}"
