"""The results of a search in progress, so that after an interruption no finished trial is repeated."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from encoders.runtime.files import atomic_write
from transfer.search.halving import Results, TrialResult


@dataclass(frozen=True)
class SearchFolder:
    """A folder with the results (`results.json`) and the state of each trial (`trial-007.pt`)."""

    path: Path

    @property
    def results_file(self) -> Path:
        """JSON: [rung, trial, result] for each."""
        return self.path / "results.json"

    def trial_file(self, trial: int) -> Path:
        """Where the training of a trial keeps its state."""
        return self.path / f"trial-{trial:03d}.pt"

    def load(self) -> Results:
        """The results; none without a file, or with one that cannot be read: then the search starts again."""
        try:
            rows = json.loads(self.results_file.read_text())
            return {(int(rung), int(trial)): TrialResult(**result) for rung, trial, result in rows}
        except (OSError, ValueError, TypeError):
            return {}

    def save(self, results: Results) -> None:
        """Replaces the results, atomically."""
        with atomic_write(self.results_file) as part:
            part.write_text(json.dumps([[rung, trial, asdict(result)] for (rung, trial), result in results.items()]))
