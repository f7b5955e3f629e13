"""The watchdog of a run: probes the encoder at intervals, diagnoses what is wrong, and gives advice."""

from collections.abc import Callable, Mapping, Sequence

from pretrain.loop.setup import Setup
from pretrain.watch.diagnose import Finding, MetricsLine, diagnose
from pretrain.watch.knn import OnlineKnn
from pretrain.watch.probe import Probe


class RollbackRequested(RuntimeError):
    """An alarm of a run with watch.policy=rollback; the message is the diagnosis."""


class Watchdog:
    """Measures at intervals and reports each diagnosis when it begins and when it ends. It does not change the run."""

    def __init__(self, setup: Setup, lines: Sequence[MetricsLine], baseline: Mapping[str, float], say: Callable[[str], None]):
        """lines: of metrics.jsonl so far.  baseline: metrics of the untrained network.  say: prints a sentence."""
        cfg = setup.recipe.watch
        self.setup, self.cfg, self.lines, self.baseline, self.say = setup, cfg, list(lines), dict(baseline), say
        self.interval = probe_interval(setup)
        self.active_findings: dict[str, Finding] = {}
        pixels, device, corpus = setup.card.preprocess, setup.device, setup.corpus
        self.probe = Probe(corpus.store, corpus.index, cfg.images, pixels, device) if cfg.images else None
        self.knn = OnlineKnn(cfg.labeled, cfg.label, cfg.k, pixels, device) if cfg.labeled and cfg.label else None

    def measure(self, step: int) -> dict[str, float]:
        """The metrics of the method as it is at `step`; their names begin with `watch/`."""
        progress = step / self.setup.steps
        metrics = self.probe.measure(self.setup.method, progress) if self.probe else {}
        return metrics | (self.knn.measure(self.setup.method) if self.knn else {})

    def is_due(self, step: int) -> bool:
        """Whether to measure with this line: the first one at or after each multiple of `interval`, and the last one."""
        return step // self.interval > (step - self.setup.recipe.log_every) // self.interval or step == self.setup.steps

    def check(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Adds the line of `step`, reports changed diagnoses, and returns the active alarms as text; None without one."""
        self.lines.append({"step": step, **metrics})
        findings = {f.name: f for f in diagnose(self.lines, self.baseline, step / self.setup.steps)}
        for name, finding in findings.items():
            if name not in self.active_findings:
                self.say(f"watch: {name} at step {step}: {finding.text}")
        for name in set(self.active_findings) - set(findings):
            self.say(f"watch: {name} ended at step {step}")
        self.active_findings = findings
        return "; ".join(f"{f.name}: {f.text}" for f in findings.values() if f.alarm) or None


def probe_interval(setup: Setup) -> int:
    """Steps between measurements: `watch.every`, or fewer in a short run, so that there are about twenty."""
    return min(setup.recipe.watch.every, max(setup.recipe.log_every, setup.steps // 20))
