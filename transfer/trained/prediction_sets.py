"""Prediction sets of new images, calibrated on the validation patients of a trained encoder, or of an ensemble with equal ones.

Shapes: V validation images, B images, K classes of a set: of a binary task also the negative one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator, uniform
from encoders.zoo.head_card import Head
from transfer.metrics.conformal import calibrate_sets, predict_sets, score_classes, spread_classes
from transfer.metrics.set_rule import SetRule
from transfer.trained.decision_rule import CalibrationImages


@dataclass(frozen=True)
class SetPredictor:
    """names: of the K classes.  limits: (K,) the largest score with which a class is in a set."""

    rule: SetRule
    names: tuple[str, ...]
    limits: FloatArray

    def predict(self, p: Array, sha256: Sequence[str]) -> BoolArray:
        """(B, K) the sets of images.  p: (B, C) probabilities.  sha256: of their pixels, by which what is random of a set is drawn."""
        _, spread, _ = spread_classes(np.zeros_like(p), p)
        drawn = uniform(0, Purpose.SETS, np.array([int(digest[:15], 16) for digest in sha256], dtype=np.uint64))[:, 0]
        return predict_sets(score_classes(spread, self.rule.score, drawn), self.limits)

    def describe(self) -> str:
        """What the sets promise, as a sentence without a full stop; and which classes are in all of them."""
        text = (
            f"sets hold the true class of {self.rule.promise} of a new patient of the same population with probability {self.rule.level:g}"
        )
        always = [name for name, limit in zip(self.names, self.limits.tolist(), strict=True) if limit == float("inf")]
        return f"{text}; too few validation patients to leave out {', '.join(always)}" if always else text


def calibrate_predictor(rule: SetRule, head: Head, images: CalibrationImages) -> SetPredictor:
    """The sets of a head. Raises InputError for several labels an image."""
    if head.kind == "multilabel":
        raise InputError("--sets needs a head whose classes exclude each other; this one has several labels an image")
    truth, p, known = spread_classes(images.y, images.probability)
    drawn = generator(0, Purpose.SETS, 0).random(len(p))
    scores = score_classes(p, rule.score, drawn)
    names = (f"not {head.classes[0]}", head.classes[0]) if len(head.classes) == 1 else head.classes
    return SetPredictor(rule, names, calibrate_sets(scores[known], truth[known], images.patient[known], rule.level, rule.by_class))
