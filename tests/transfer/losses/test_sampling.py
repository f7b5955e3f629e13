"""Draws by class and patient: their shares against counting, and the shift of the scores that they need."""

import numpy as np
import pytest

from transfer.losses.sampling import assign_classes, draw_weights, prevalence_shift

CLASS = np.array([0] * 12 + [1] * 4 + [2] * 2)
PATIENT = np.array([f"p{i}" for i in [0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 8]])  # 6, 2 and 1 patients


def shares(weight):
    return [weight[c == CLASS].sum() for c in range(3)]


@pytest.mark.parametrize(("power", "expected"), [(0.0, [1 / 3] * 3), (0.5, np.sqrt([6, 2, 1]) / np.sqrt([6, 2, 1]).sum())])
def test_classes_are_drawn_equally_or_by_the_root_of_their_patients(power, expected):
    weight = draw_weights(np.eye(3)[CLASS], "multiclass", PATIENT, power)
    assert weight.sum() == pytest.approx(1)
    assert shares(weight) == pytest.approx(list(expected))
    of_patient = [weight[f"p{i}" == PATIENT].sum() for i in range(6)]
    assert of_patient == pytest.approx([expected[0] / 6] * 6)  # seven images of p0 weigh what one of p1 does


def test_a_row_of_several_labels_is_drawn_by_its_rarest():
    y = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [np.nan, 0, 1]], dtype=float)
    assert assign_classes(y, "multilabel").tolist() == [0, 0, 1, 1, 3, 2]
    weight = draw_weights(y, "multilabel", np.arange(6), 0.0)
    assert weight == pytest.approx([1 / 8, 1 / 8, 1 / 8, 1 / 8, 1 / 4, 1 / 4])


def test_the_shift_is_the_log_ratio_of_what_was_drawn():
    y = np.eye(3)[CLASS]
    weight = draw_weights(y, "multiclass", PATIENT, 0.0)
    assert prevalence_shift(y, "multiclass", weight) == pytest.approx(np.log([(1 / 3) / (n / 18) for n in (12, 4, 2)]))
    label = y[:, [2]]
    label[0] = np.nan
    weight = draw_weights(label, "binary", PATIENT, 0.0)
    known = ~np.isnan(label[:, 0])
    after = np.average(label[known, 0], weights=weight[known])
    before = label[known, 0].mean()
    assert prevalence_shift(label, "binary", weight) == pytest.approx([np.log(after / (1 - after)) - np.log(before / (1 - before))])
    uniform = np.full(18, 1 / 18)
    assert prevalence_shift(y, "multiclass", uniform) == pytest.approx([0, 0, 0], abs=1e-12)
    assert prevalence_shift(np.ones((18, 1)), "binary", uniform).tolist() == [0.0]
