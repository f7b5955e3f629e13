"""The watchdog of a run: probes the encoder at intervals, diagnoses what is wrong, and gives advice."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.json_types import Json
from encoders.runtime.metrics_log import to_json_number
from encoders.runtime.npz_file import load_npz
from pretrain.loop.setup import Setup
from pretrain.recipe.config import augmentation
from pretrain.watch.best import count_probes_since_best, find_best, probes
from pretrain.watch.diagnose import Finding, MetricsLine, diagnose
from pretrain.watch.knn import OnlineKnn
from pretrain.watch.probe import Probe
from pretrain.watch.time_budget import TimeBudget

FEWEST_PROBE_IMAGES = 16  # in runs of few steps
SHORT_RUN_PROBES = 6  # probes for whose images a short run has time: the first, the last, and PATIENCE others with one to spare
STEP_PASSES = 3  # forward passes that take as long as the forward and backward pass of a training step


class RollbackRequested(RuntimeError):
    """An alarm of a run with watch.policy=rollback; the message is the diagnosis."""


class Watchdog:
    """Measures at intervals and reports each diagnosis when it begins and when it ends. It does not change the run.

    Where nothing acts on its measurements, it takes at most the share `watch.max_share` of the session's time."""

    def __init__(
        self,
        setup: Setup,
        lines: Sequence[MetricsLine],
        baseline: Mapping[str, float],
        say: Callable[[str], None],
        alert: Callable[[Finding], None] = lambda finding: None,
    ):
        """lines: of metrics.jsonl so far.  baseline: metrics of the untrained network.  say: prints a sentence.  alert: is called with each
        diagnosis that begins."""
        self.alert = alert
        cfg = setup.recipe.watch
        self.setup, self.cfg, self.lines, self.baseline, self.say = setup, cfg, list(lines), dict(baseline), say
        self.interval = probe_interval(setup)
        self.budget = TimeBudget(1.0 if cfg.acts else cfg.max_share)
        self.diagnosing = TimeBudget(self.budget.share)
        self.is_postponed = False  # whether a measurement is due that did not fit
        self.active_findings = self._find_active() if lines else {}  # of a resumed run, they were reported by an earlier session
        pixels, device, corpus = setup.card.preprocess, setup.device, setup.corpus
        with self.budget.spend():
            self.probe = Probe(corpus.store, corpus.index, count_probe_images(setup), pixels, device) if cfg.images else None
            self.knn = OnlineKnn(cfg.labeled, cfg.label, cfg.k, pixels, device) if cfg.labeled and cfg.label else None

    def _find_active(self) -> dict[str, Finding]:
        """The diagnoses from the lines so far, by name."""
        last = int(self.lines[-1]["step"])
        return {finding.name: finding for finding in diagnose(self.lines, self.baseline, last / self.setup.steps)}

    def measure(self, step: int) -> dict[str, float]:
        """The metrics of the method as it is at `step`; their names begin with `watch/`."""
        self.is_postponed = False
        with self.budget.spend():
            metrics = self.probe.measure(self.setup.method, step / self.setup.steps) if self.probe else {}
            return metrics | (self.knn.measure(self.setup.method) if self.knn else {})

    def measure_start(self, file: Path) -> dict[str, float]:
        """The metrics at step 0. Later measurements are compared with this one; `file` receives what they need for that."""
        metrics = self.measure(0)
        arrays: dict[str, Array] = {}
        if self.probe and self.probe.features is not None and self.setup.recipe.init is not None:
            arrays |= {"probe_rows": self.probe.rows, "probe_features": self.probe.features}
        if self.knn and self.knn.correct is not None:
            arrays |= {"knn_rows": self.knn.rows, "knn_correct": self.knn.correct}
        with atomic_write(file) as part, part.open("wb") as opened:
            np.savez(opened, allow_pickle=False, **arrays)
        self.use_start(arrays)
        return metrics

    def load_start(self, file: Path) -> None:
        """Compares with the start that `measure_start` wrote."""
        if not file.exists():
            self.use_start({})
            return
        try:
            arrays = load_npz(file, "drift and gain over the start are not logged")
        except InputError as error:
            self.say(f"watch: {error}")
            arrays = {}
        self.use_start(arrays)

    def use_start(self, arrays: Mapping[str, Array]) -> None:
        """Sets the start to compare with. A probe of other images than at step 0 is not compared, and a line says so."""
        if self.probe and self.setup.recipe.init is not None:
            if np.array_equal(arrays.get("probe_rows", ()), self.probe.rows):
                self.probe.start = arrays["probe_features"]
            else:
                self.say("watch: the features of step 0 are unknown or of other images: drift and overlap are not logged")
        if self.knn:
            if np.array_equal(arrays.get("knn_rows", ()), self.knn.rows):
                self.knn.start = arrays["knn_correct"]
            else:
                self.say("watch: the k-NN probe of step 0 is unknown or of other images: the gain over the start is not logged")

    def best_step(self, steps: Sequence[int] | None = None) -> int | None:
        """The step with the best k-NN probe, among `steps` if they are given; None without a probe."""
        best = find_best(self.lines, steps)
        return None if best is None else int(best["step"])

    def describe_choice(self, step: int | None) -> dict[str, Json]:
        """What the card says about a step that was chosen by the k-NN probe."""
        scores = {int(line["step"]): round(float(line["watch/knn"]), 4) for line in probes(self.lines)}
        return {
            "step": step,
            "by": "online k-NN probe",
            "store": Path(str(self.cfg.labeled)).name,
            "label": self.cfg.label,
            "knn": None if step is None else scores[step],
            "knn_at_start": to_json_number(round(self.baseline.get("watch/knn", math.nan), 4)),
            "probes": len(scores),
        }

    def is_past_best(self) -> bool:
        """Whether `watch.stop_at_best` ends the run now."""
        return bool(self.cfg.stop_at_best) and count_probes_since_best(self.lines) >= self.cfg.stop_at_best

    def is_due(self, step: int) -> bool:
        """Whether to measure with this line: the first one at or after each multiple of `interval` whose measurement fits into the budget
        together with that of the last step; and the last one."""
        self.is_postponed |= step // self.interval > (step - self.setup.recipe.log_every) // self.interval
        return (self.is_postponed and self.budget.fits(reserved=1)) or step == self.setup.steps

    def report_share(self) -> None:
        """Says so when measurements that decide the run, which are never postponed, took more than `watch.max_share`."""
        if self.cfg.acts and (share := self.budget.used_share()) > self.cfg.max_share:
            self.say(
                f"watch: probes took {100 * share:.0f} % of this session's time; as watch.policy or watch.stop_at_best acts on them, none "
                f"is postponed: raise watch.every or lower watch.images for faster runs"
            )

    def check(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Adds the line of `step`, reports changed diagnoses, and returns the active alarms as text; None without one.

        Diagnosing reads all lines: it takes its time from the budget too, and lines between measurements may be left to a later call."""
        self.lines.append({"step": step, **metrics})
        measured = any(name.startswith("watch/") for name in metrics)
        if not (measured or step == self.setup.steps or self.diagnosing.fits()):
            return None
        with self.diagnosing.spend():
            findings = self._find_active()
        for name, finding in findings.items():
            if name not in self.active_findings:
                self.say(f"watch: {name} at step {step}: {finding.text}")
                self.alert(finding)
        for name in set(self.active_findings) - set(findings):
            self.say(f"watch: {name} ended at step {step}")
        self.active_findings = findings
        return "; ".join(f"{f.name}: {f.text}" for f in findings.values() if f.alarm) or None


def probe_interval(setup: Setup) -> int:
    """Steps between measurements: `watch.every`, or fewer in a short run, so that there are about twenty."""
    return min(setup.recipe.watch.every, max(setup.recipe.log_every, setup.steps // 20))


def count_probe_images(setup: Setup) -> int:
    """Images of a probe: `watch.images`, or fewer in a run whose steps are too few for SHORT_RUN_PROBES of that size within
    `watch.max_share`. It depends on settings only, so that a resumed run probes the same images."""
    cfg, recipe = setup.recipe.watch, setup.recipe
    if cfg.acts or cfg.max_share >= 1:
        return cfg.images
    passes = STEP_PASSES * len(setup.method.views(augmentation(recipe))) * recipe.batch * setup.steps
    return min(cfg.images, max(FEWEST_PROBE_IMAGES, int(cfg.max_share * passes / SHORT_RUN_PROBES)))
