"""The watchdog of a run: a fixed look at intervals, diagnoses with advice, and what the policy makes of them."""

from collections.abc import Callable, Mapping
from typing import Any

from pretrain.loop.setup import Setup
from pretrain.watch.diagnose import Finding, diagnose
from pretrain.watch.knn import OnlineKnn
from pretrain.watch.probe import Probe


class RollbackRequested(RuntimeError):
    """A run that its policy wants rolled back, with the diagnosis."""


class Watchdog:
    """Looks, remembers the record's lines, and says what is new. The run's numbers do not depend on it."""

    def __init__(self, made: Setup, lines: list[dict[str, Any]], baseline: Mapping[str, float], say: Callable[[str], None]):
        """lines: the record so far, of a run that goes on.  baseline: what the first look at the untrained network gave."""
        cfg = made.recipe.watch
        self.made, self.cfg, self.lines, self.baseline, self.say = made, cfg, lines, dict(baseline), say
        self.every = probe_interval(made)
        self.holding: dict[str, Finding] = {}
        self.probe = Probe(made.corpus.store, made.corpus.index, cfg.images, made.card.preprocess, made.device) if cfg.images else None
        self.knn = OnlineKnn(cfg.labeled, cfg.label, cfg.k, made.card.preprocess, made.device) if cfg.labeled and cfg.label else None

    def look(self, step: int) -> dict[str, float]:
        """The numbers of this moment."""
        progress = step / self.made.steps
        seen = self.probe.look(self.made.method, progress) if self.probe else {}
        return seen | (self.knn.look(self.made.method) if self.knn else {})

    def due(self, step: int) -> bool:
        """Whether this line of the record comes with a look: the first one at or after each multiple of `every`, and the last."""
        return step // self.every > (step - self.made.recipe.log_every) // self.every or step == self.made.steps

    def heed(self, step: int, numbers: Mapping[str, float]) -> str | None:
        """Takes the line of `step` into account, says what is new, and returns the alarms in words where there are any."""
        self.lines.append({"step": step, **numbers})
        found = {f.name: f for f in diagnose(self.lines, self.baseline, step / self.made.steps)}
        for name, finding in found.items():
            if name not in self.holding:
                self.say(f"watch: {name} at step {step}: {finding.text}")
        for name in set(self.holding) - set(found):
            self.say(f"watch: {name} is over at step {step}")
        self.holding = found
        return "; ".join(f"{f.name}: {f.text}" for f in found.values() if f.alarm) or None


def probe_interval(made: Setup) -> int:
    """Steps between looks: as asked, or for a short run so many that there are twenty."""
    return min(made.recipe.watch.every, max(made.recipe.log_every, made.steps // 20))
