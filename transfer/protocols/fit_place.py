"""Where a fit that takes long keeps its state, and who hears of the trials of a search. Nothing heavy is imported here."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrialReport:
    """A trial at the end of a rung. trial, rung: counted from 0.  trials: of this rung.  settings: in words.  score: None if it diverged.

    looks, images: validations and images of this rung.  best, best_trial: of all trials of the rung so far."""

    trial: int
    trials: int
    rung: int
    rungs: int
    settings: str
    score: float | None
    looks: int
    images: int
    best: float | None
    best_trial: int | None

    def __str__(self) -> str:
        score = "diverged" if self.score is None else f"validation score {self.score:.4f}"
        best = "" if self.best is None or self.best_trial == self.trial else f" (best so far: {self.best:.4f}, trial {self.best_trial})"
        trials = f"{self.trials} trial{'' if self.trials == 1 else 's'}"
        return f"rung {self.rung + 1} of {self.rungs} ({trials}), trial {self.trial}: {self.settings}: {score}{best}"


def ignore_trial(report: TrialReport) -> None:
    """Takes a report and does nothing."""


@dataclass(frozen=True)
class FitPlace:
    """The file in which an interrupted fit keeps its state; a search has a folder beside it. Its name says what is fitted.

    on_trial: hears of every trial of a search."""

    path: Path
    on_trial: Callable[[TrialReport], None] = ignore_trial

    @property
    def folder(self) -> Path:
        """The folder of a search."""
        return self.path.with_suffix("")

    @property
    def is_used(self) -> bool:
        """Whether an interrupted fit has left its state."""
        return self.path.is_file() or self.folder.is_dir()

    def remove(self) -> None:
        """Deletes the state: the result of the fit is kept elsewhere."""
        self.path.unlink(missing_ok=True)
        if self.folder.is_dir():
            shutil.rmtree(self.folder)
