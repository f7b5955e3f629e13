"""What decides about images: the head of one trained encoder, or of several whose calibrated probabilities are averaged.

Members of one task and split have the same validation images. Their average then has a temperature and thresholds of its own, fitted on
these images: the mean of calibrated members is too modest (Rahaman and Thiery 2021, arXiv:2007.08792). Otherwise the average stays as it
is, and the thresholds are the mean of the members' thresholds.

Shapes: V validation images, B images, T members, C labels or classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.zoo.head_card import NEVER, Head
from transfer.metrics import temper
from transfer.metrics.calibration import TINY
from transfer.trained.calibrate import calibrate_head, calibrated_probabilities
from transfer.trained.predict import PredictedBatch, TrainedModel
from transfer.trained.reference_file import ValidationRows, read_reference


@dataclass(frozen=True)
class CalibrationImages:
    """The validation images of a rule.  probability: (V, C) as it predicts them.  y: (V, C), NaN = unknown.  patient: (V,) numbers."""

    probability: FloatArray
    y: FloatArray
    patient: IntArray


@dataclass(frozen=True)
class DecisionRule:
    """head: classes and thresholds.  temperature: of the mean probability of several members.  images: None where members differ in them.

    notes: sentences for the user."""

    head: Head
    temperature: float = 1.0
    images: CalibrationImages | None = None
    notes: list[str] = field(default_factory=list)


def calibration_images(model: TrainedModel, purpose: str) -> CalibrationImages:
    """The validation images of one encoder. Raises InputError without its reference.  purpose: for the message."""
    rows = read_reference(model.folder, model.encoder.card, purpose).validation
    return CalibrationImages(calibrated_probabilities(rows.logits, model.head.temperature, model.head.kind), rows.y, rows.patient)


def ensemble_rule(models: Sequence[TrainedModel]) -> DecisionRule:
    """The rule of several encoders. Raises InputError for one named twice, and for different classes."""
    first, names = models[0].head, [model.name for model in models]
    if len(set(names)) < len(names):
        raise InputError(f"--model names {', '.join(names)}; name each member of an ensemble once")
    for model in models[1:]:
        if (model.head.kind, model.head.classes) != (first.kind, first.classes):
            raise InputError(
                f"{names[0]} predicts {', '.join(first.classes)} ({first.kind}) and {model.name} {', '.join(model.head.classes)} "
                f"({model.head.kind}); an ensemble needs equal classes in equal order"
            )
    found = _read_shared_rows(models)
    if isinstance(found, str):
        mean = (
            None if first.thresholds is None else tuple(map(_mean_threshold, zip(*(m.head.thresholds or () for m in models), strict=True)))
        )
        note = f"{found}: the mean probability is not calibrated again, and thresholds are the means of those of the members"
        return DecisionRule(first.model_copy(update={"thresholds": mean}), notes=[note])
    probabilities = [calibrated_probabilities(v.logits, m.head.temperature, first.kind) for v, m in zip(found, models, strict=True)]
    pooled, rows = np.asarray(np.mean(probabilities, axis=0)), found[0]
    fitted = calibrate_head(rows.y, to_logits(pooled, first.kind), first.kind, first.classes)
    thresholds = None if fitted.threshold is None else tuple(float(cut) for cut in fitted.threshold)
    images = CalibrationImages(temper(pooled, fitted.temperature, first.kind), rows.y, rows.patient)
    note = f"the mean of {len(models)} calibrated members has a temperature of its own, {fitted.temperature:.3g}, from validation images"
    return DecisionRule(first.model_copy(update={"thresholds": thresholds}), fitted.temperature, images, [note, *fitted.notes])


def _read_shared_rows(models: Sequence[TrainedModel]) -> list[ValidationRows] | str:
    """The validation images of each member, which are the same; or why they are not."""
    digests = {(m.head.task_digest, m.head.labels_digest, m.head.split_digest) for m in models}
    if len(digests) > 1:
        return "the members were trained on different tasks or splits"
    try:
        rows = [read_reference(m.folder, m.encoder.card, "the calibration of an ensemble").validation for m in models]
    except InputError as error:
        return str(error)
    same = all(np.array_equal(rows[0].y, r.y, equal_nan=True) and np.array_equal(rows[0].patient, r.patient) for r in rows)
    return rows if same else "the members have different validation images"


def _mean_threshold(cuts: tuple[float, ...]) -> float:
    return NEVER if NEVER in cuts else float(np.mean(cuts))


def to_logits(p: Array, kind: str) -> FloatArray:
    """(M, C) logits of which p (M, C) are the probabilities."""
    p = np.clip(np.asarray(p, dtype=np.float64), TINY, 1 - TINY)
    return np.asarray(np.log(p) if kind == "multiclass" else np.log(p) - np.log1p(-p))


def average_batches(
    streams: Sequence[Iterator[PredictedBatch]], models: Sequence[TrainedModel], rule: DecisionRule
) -> Iterator[PredictedBatch]:
    """Yields the batches of an ensemble from those of its members, which go through the images together."""
    seen = frozenset(chain.from_iterable(model.trained_on for model in models))
    for batches in zip(*streams, strict=True):
        first = batches[0]
        problems = {i: why for batch in batches for i, why in batch.problems.items()}
        samples = np.stack([batch.probability for batch in batches])  # (T, B, C)
        p = temper(samples.mean(axis=0), rule.temperature, rule.head.kind) if rule.temperature != 1 else samples.mean(axis=0)
        trained_on = sum(bytes.fromhex(digest) in seen for digest in first.sha256 if digest)
        yield PredictedBatch(first.keys, p, problems, trained_on, first.sha256, samples, slides=first.slides)
