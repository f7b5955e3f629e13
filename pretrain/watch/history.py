"""When each diagnosis of a run began and ended: a pure function of the lines of metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pretrain.watch.diagnose import ALARMS, PATIENCE, Finding, MetricsLine, diagnose

GRADIENT_LINES = 5  # logged lines in a row by which a diverging gradient is diagnosed


class DiagnosisSpan(NamedTuple):
    """A diagnosis from the first measurement that it rests on to the one at which it no longer held.

    finding: as it was at the last step at which it held.  end: None if it holds at the last line."""

    finding: Finding
    start: int
    end: int | None

    @property
    def is_collapse(self) -> bool:
        """Whether the encoder, its head or its teacher became useless, and not only the gradient large."""
        return self.finding.name in ALARMS


def find_diagnosis_spans(lines: Sequence[MetricsLine], baseline: Mapping[str, float], steps: int) -> list[DiagnosisSpan]:
    """The diagnoses that hold at the last line, alarms first; then the alarms that ended, as they began.

    Alarms are looked for at each measurement of the watchdog, notes at the last line only.
    baseline: metrics of the untrained network.  steps: of the whole run."""
    holding: dict[str, DiagnosisSpan] = {}
    ended: list[DiagnosisSpan] = []
    for i in [i for i, line in enumerate(lines) if "watch/std" in line or i == len(lines) - 1]:
        past, is_last = lines[: i + 1], i == len(lines) - 1
        findings = diagnose(past, baseline, past[-1]["step"] / steps if is_last else 0.0)
        found = {f.name: f for f in findings if f.alarm or is_last}
        for name in [name for name in holding if name not in found]:
            ended.append(holding.pop(name)._replace(end=int(past[-1]["step"])))
        for name, finding in found.items():
            start = holding[name].start if name in holding else _find_onset(finding, past)
            holding[name] = DiagnosisSpan(finding, start, None)
    return sorted(holding.values(), key=lambda span: not span.finding.alarm) + sorted(ended, key=lambda span: span.start)


def _find_onset(finding: Finding, lines: Sequence[MetricsLine]) -> int:
    """The step of the first measurement that a new diagnosis at the last of `lines` rests on."""
    if finding.name in ALARMS:
        return int([line for line in lines if "watch/std" in line][-PATIENCE]["step"])
    return int(lines[-GRADIENT_LINES]["step"]) if finding.alarm else finding.step
