"""Fine-tuning whose settings are searched: trials by successive halving, on train and validation rows; the fit is that of the best trial.

Every trial is a training of `finetune` under its own settings, with the seed of the benchmark: equal rows, order, head and augmentation
wherever the settings do not change them. At the end of a rung a trial stops at one of its validations, and a promoted trial goes on from
its saved state. Its schedule has the length of its whole training from the start, so that what is continued is exactly the longer training,
and the winner equals `finetune.fit` of its settings. So trials are compared before their learning rate has fallen, by averaged weights.
The other way, a shortened schedule for every rung, compares finished trainings, but none is the beginning of a longer one: each promotion
would train from the start.

The budget of a rung is a number of images, the same for all trials: with `epochs` in the search, a trial with few of them is further
along its schedule. A strategy that chooses its weights at the end (`wise`) is ranked by its trained weights until then.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from transfer.protocols import finetune
from transfer.protocols.common import ImageSet, find_labeled_rows, validation_score
from transfer.protocols.contract import Log, Needs, Select
from transfer.protocols.finetune import Fitted
from transfer.protocols.finetune_checkpoint import TrainingFile, TrainingPaused
from transfer.protocols.finetune_config import Config
from transfer.protocols.finetune_training import NoValidationScore
from transfer.protocols.fit_place import FitPlace, TrialReport
from transfer.protocols.search_space import draw_settings, list_own_parameters, with_settings
from transfer.search.halving import Results, Rung, TrialResult, count_trainings, plan_rungs, rank_trials, run_halving
from transfer.search.search_file import SearchFolder
from transfer.search.space import describe_settings
from transfer.strategies.registry import build_strategy

if TYPE_CHECKING:
    from transfer.search.draws import Settings

SEARCH_VERSION = 1
VERSION = 100 * finetune.VERSION + SEARCH_VERSION
NEEDS: Needs = "images"


@dataclass(frozen=True)
class SearchTrial:
    """A trial. settings: dotted, those that differ from the given ones.  steps, images: of its whole training."""

    number: int
    settings: "Settings"
    cfg: Config
    steps: int
    images: int

    def pause_step(self, budget: float) -> int | None:
        """The step of the last validation within a budget of images; None if the whole training is within it."""
        looks = max(1, int(self.cfg.evaluations * budget / self.images + 1e-9))
        return None if looks >= self.cfg.evaluations else round(self.steps * looks / self.cfg.evaluations)


def list_trials(cfg: Config, images: int) -> list[SearchTrial]:
    """The trials, the first with the settings as given.  images: labeled train images.

    Raises InputError for a parameter that is no setting, or for values that it does not take."""
    space = list_own_parameters(cfg.strategy, cfg.imbalance, cfg.search.parameters)
    trials = []
    for number, settings in enumerate(draw_settings(Config, space, cfg.search.trials, cfg.search.seed)):
        own = Config.model_validate(with_settings(Config, cfg.model_dump(), settings))
        steps, batch = finetune.count_steps(own, images)
        trials.append(SearchTrial(number, settings, own, steps, steps * batch))
    return trials


def plan_search(cfg: Config) -> list[Rung]:
    """The rungs of a search."""
    return plan_rungs(cfg.search.trials, cfg.search.factor, cfg.evaluations)


def fit(cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None) -> Fitted:
    """The fit of the best of `cfg.search.trials` trials; `log` receives the validations of its last part.

    Raises InputError for what `finetune.fit` refuses, and when no trial has a validation score."""
    with tempfile.TemporaryDirectory(prefix="isograft-search-") as folder:
        return fit_resumable(FitPlace(Path(folder) / "search.pt"), cfg, train, val, select, log)


def fit_resumable(
    place: FitPlace, cfg: Config, train: ImageSet, val: ImageSet, select: Select = validation_score, log: Log | None = None
) -> Fitted:
    """As `fit`. After an interruption, finished trials are not repeated, and the one in training goes on from its last validation."""
    images = int(np.count_nonzero(find_labeled_rows(train.y, train.kind)))
    trials, rungs, folder = list_trials(cfg, max(images, 1)), plan_search(cfg), SearchFolder(place.folder)
    results, largest = folder.load(), max(trial.images for trial in trials)

    def run(rung: int, number: int) -> TrialResult:
        before = results.get((rung - 1, number))
        if before is not None and before.complete:
            return before
        trial = trials[number]
        file = TrainingFile(folder.trial_file(number), trial.pause_step(rungs[rung].share * largest))
        return run_trial(trial, file, train, val, select, before)

    def finished(rung: int, number: int, result: TrialResult) -> None:
        folder.save(results)
        place.on_trial(build_report(trials, results, rungs, rung, number))

    winner = run_halving(rungs, results, run, finished, lambda number: folder.trial_file(number).unlink(missing_ok=True))
    if winner is None:
        raise InputError(f"none of the {len(trials)} trials of the search has a validation score; search lower learning rates")
    fitted = finetune.fit_from_file(TrainingFile(folder.trial_file(winner)), trials[winner].cfg, train, val, select, log)
    return add_search(fitted, cfg, trials, results, rungs, winner, largest)


def run_trial(
    trial: SearchTrial, file: TrainingFile, train: ImageSet, val: ImageSet, select: Select, before: TrialResult | None
) -> TrialResult:
    """Trains until the pause of the file, or to the end.  before: its result in the rung before."""
    started, complete = time.monotonic(), True
    try:
        fitted = finetune.fit_from_file(file, trial.cfg, train, val, select)
        score, cost, step = float(fitted.selection["score"]), fitted.cost, int(fitted.selection["stopped"])
    except TrainingPaused as paused:
        score, cost, step, complete = paused.score, paused.cost.as_record(), paused.step, False
    except NoValidationScore as diverged:
        if not np.isfinite(val.y).any():  # then no trial has a score
            raise
        score, cost, step = float("nan"), diverged.cost.as_record(), trial.steps
    images, looks, memory = (_read_count(cost, name) for name in ("images_seen", "validations", "memory_bytes"))
    if before is not None and not build_strategy(trial.cfg).validates_while_training:
        looks += before.looks  # those of its pauses, which are not among the validations that it chooses by
    spent = round(time.monotonic() - started + (0.0 if before is None else before.seconds), 3)
    return TrialResult(score if np.isfinite(score) else None, images, looks, step, trial.steps, memory, spent, complete)


def _read_count(cost: Mapping[str, Json], name: str) -> int:
    value = cost.get(name)
    return value if isinstance(value, int) else 0


def build_report(trials: list[SearchTrial], results: Results, rungs: list[Rung], rung: int, number: int) -> TrialReport:
    """What is said about a result."""
    result, before = results[rung, number], results.get((rung - 1, number))
    best = next(iter(rank_trials(results, rung)), None)
    return TrialReport(
        trial=number,
        trials=rungs[rung].trials,
        rung=rung,
        rungs=len(rungs),
        settings=describe_settings(list(trials[number].settings.items())),
        score=result.score,
        looks=result.looks - (before.looks if before else 0),
        images=result.images - (before.images if before else 0),
        best=None if best is None else results[rung, best].score,
        best_trial=best,
    )


def add_search(
    fitted: Fitted, cfg: Config, trials: list[SearchTrial], results: Results, rungs: list[Rung], winner: int, largest: int
) -> Fitted:
    """The fit with all trials in its selection, and with the images and validations of all of them in its cost.

    The winner's own are in the row of its trial."""
    last = {number: result for (_, number), result in sorted(results.items())}
    images, looks = (sum(getattr(result, name) for result in last.values()) for name in ("images", "looks"))
    search: Mapping[str, Json] = {
        "space": cfg.search.space,
        "trials": len(trials),
        "seed": cfg.search.seed,
        "factor": cfg.search.factor,
        "rungs": [asdict(rung) for rung in rungs],
        "budget_images": round(count_trainings(rungs) * largest),
        "images_seen": images,
        "validations": looks,
        "seconds": round(sum(result.seconds for result in last.values()), 3),
        "chosen": winner,
        "settings": trials[winner].settings,
        "table": [
            {"trial": number, "rung": rung, "settings": trials[number].settings, **asdict(result)}
            for (rung, number), result in sorted(results.items())
        ],
    }
    memory = max(result.memory_bytes for result in last.values())
    cost = {**fitted.cost, "images_seen": images, "validations": looks, "memory_bytes": memory, "trials": len(trials)}
    return replace(fitted, selection={**fitted.selection, "search": search}, cost=cost)
