"""What `transfer predict` was asked for, put together: models, rule, batches and columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from encoders.runtime.errors import InputError
from transfer.metrics.outliers import OutlierScore
from transfer.metrics.set_rule import SetRule
from transfer.trained.decision_rule import DecisionRule, average_batches, calibration_images, ensemble_rule
from transfer.trained.predict import (
    PredictedBatch,
    PredictionInput,
    TrainedModel,
    add_distance,
    add_dropout,
    iterate_predictions,
    load_trained_model,
    open_prediction_input,
)
from transfer.trained.prediction_sets import calibrate_predictor
from transfer.trained.prediction_table import ExtraColumns


@dataclass(frozen=True)
class PredictRequest:
    """names: of the trained encoders; several are an ensemble.  dropout: draws of each image; 0: none."""

    names: Sequence[str]
    sets: SetRule | None = None
    dropout: int = 0
    distance: OutlierScore | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class PredictionJob:
    """Loaded models, the rule that decides, and the columns of the table.  notes: sentences for the user."""

    models: list[TrainedModel]
    rule: DecisionRule
    extras: ExtraColumns
    notes: list[str] = field(default_factory=list)

    def open_input(self, paths: Sequence[Path], slides: bool = False, slide_mpp: float | None = None) -> list[PredictionInput]:
        """The images, for each model, with the warnings about its preprocessing.  slides: the files are whole slides.  slide_mpp: see
        `open_prediction_input`.

        Raises InputError for slides that the members of an ensemble would tile differently."""
        given = [open_prediction_input(paths, model, slides, slide_mpp) for model in self.models]
        if len({repr(each.slides and each.slides.settings) for each in given}) > 1:
            raise InputError("the members of the ensemble were trained on tiles of different kinds; predict on stores of tiles instead")
        return given

    def iterate(
        self, given: Sequence[PredictionInput], workers: int = 0, progress: Callable[[int], None] = lambda n: None
    ) -> Iterator[PredictedBatch]:
        """Yields the predictions, a batch at a time. The members of an ensemble read each batch in turn."""
        first, *others = (
            iterate_predictions(model, images, workers, progress if i == 0 else lambda n: None)
            for i, (model, images) in enumerate(zip(self.models, given, strict=True))
        )
        return average_batches([first, *others], self.models, self.rule) if others else first


def prepare_predictions(request: PredictRequest) -> PredictionJob:
    """Loads the models. Raises InputError for an encoder without what was asked for, and for options that exclude each other."""
    several = len(request.names) > 1
    check_request(request, several)
    models = [load_trained_model(name, request.device) for name in request.names]
    if request.dropout:
        models = [add_dropout(models[0], request.dropout)]
    if request.distance is not None:
        models = [add_distance(models[0], request.distance)]
    rule = ensemble_rule(models) if several else DecisionRule(models[0].head)
    sets, notes = None, list(rule.notes)
    if request.sets is not None:
        images = rule.images if several else calibration_images(models[0], "--sets")
        if images is None:
            raise InputError(f"--sets cannot be calibrated for this ensemble: {rule.notes[0]}")
        sets = calibrate_predictor(request.sets, rule.head, images)
    if request.dropout:
        notes.append("temperature and thresholds are those of the network without dropout")
    return PredictionJob(models, rule, ExtraColumns(several or request.dropout > 0, sets, models[0].distance), notes)


def check_request(request: PredictRequest, several: bool) -> None:
    """Raises InputError for options that exclude each other."""
    if request.dropout == 1:
        raise InputError("--mc-dropout is 1; one draw has no variation: give at least 2, e.g. 20")
    if request.dropout and several:
        raise InputError("--mc-dropout is for one network, and --model names several: the members of an ensemble vary by themselves")
    if request.dropout and request.sets is not None:
        raise InputError("--sets are calibrated for the network without dropout; predict without --mc-dropout, or without --sets")
    if request.distance is not None and several:
        raise InputError("--distance is from the train images of one network; name one --model")
