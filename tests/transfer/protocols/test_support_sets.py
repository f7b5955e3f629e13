"""Support sets: which train images an episode is given."""

from dataclasses import replace

import numpy as np
import pytest

from transfer.protocols.common import Features
from transfer.protocols.support_sets import draw_supports, group_rows_by_class, hash_supports


def cohort(kind="multilabel", patients=30, seed=0):
    """Patients with 1 to 6 images each; a patient may have images of several classes."""
    rng = np.random.default_rng(seed)
    patient = np.repeat([f"p{i}" for i in range(patients)], rng.integers(1, 7, patients))
    n = len(patient)
    y = np.eye(3, dtype=np.float32)[rng.integers(0, 3, n)] if kind == "multiclass" else (rng.random((n, 3)) < 0.4).astype(np.float32)
    y[::7] = np.nan
    key = np.array([f"image{i:03d}" for i in rng.permutation(n)])
    return Features(rng.normal(size=(n, 4)).astype(np.float32), y, key, patient, kind)


def keys(train, unit="patient", shots=4, episodes=50, seed=0):
    return [train.key[s] for s in draw_supports(group_rows_by_class(train, unit), shots, episodes, seed)]


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("unit", ["patient", "image"])
def test_every_support_row_has_the_class_that_it_stands_for_and_no_image_or_patient_twice(kind, unit):
    train = cohort(kind)
    supports = draw_supports(group_rows_by_class(train, unit), 5, 200, seed=1)
    assert [s.shape for s in supports] == ([(200, 3, 5)] if kind == "multiclass" else [(200, 2, 5)] * 3)
    for number, support in enumerate(supports):
        for value in range(support.shape[1]):
            rows = support[:, value]
            assert (train.y[rows, value] == 1).all() if kind == "multiclass" else (train.y[rows, number] == value).all()
            assert all(len(set(one)) == 5 for one in rows.tolist())
            distinct_patients = [len(set(train.patient[one])) for one in rows]
            assert min(distinct_patients) == 5 if unit == "patient" else min(distinct_patients) < 5


def test_patients_are_drawn_with_equal_probability_and_their_images_too():
    patient = np.array(["a"] * 8 + ["b"] + ["c"] * 2 + ["d"] * 20)
    y = np.array([1] * 11 + [0] * 20, dtype=np.float32)[:, None]
    train = Features(np.zeros((31, 2), np.float32), y, np.arange(31).astype(str), patient, "binary")
    (support,) = draw_supports(group_rows_by_class(train, "patient"), 1, 12000, seed=0)
    count = np.bincount(support[:, 1, 0], minlength=31) / 12000
    np.testing.assert_allclose(count[:11], [1 / 24] * 8 + [1 / 3] + [1 / 6] * 2, atol=0.015)
    (support,) = draw_supports(group_rows_by_class(train, "image"), 1, 12000, seed=0)
    np.testing.assert_allclose(np.bincount(support[:, 1, 0], minlength=31)[:11] / 12000, 1 / 11, atol=0.015)


@pytest.mark.parametrize("unit", ["patient", "image"])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_episodes_depend_neither_on_the_features_nor_on_the_order_of_the_rows(kind, unit):
    train = cohort(kind)
    order = np.random.default_rng(5).permutation(len(train))
    other = replace(train.at(order), x=np.ones((len(train), 9), np.float32))
    for a, b in zip(keys(train, unit), keys(other, unit), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_digest_changes_with_every_change_of_the_support_sets():
    train = cohort()

    def digest(t, unit="patient", shots=4, episodes=50, seed=0):
        return hash_supports(draw_supports(group_rows_by_class(t, unit), shots, episodes, seed), t.key)

    order = np.random.default_rng(5).permutation(len(train))
    assert digest(train) == digest(train.at(order)) == digest(replace(train, x=train.x + 1))
    others = [
        digest(train, seed=1),
        digest(train, shots=3),
        digest(train, episodes=51),
        digest(train, unit="image"),
        digest(train.at(np.arange(len(train) - 3))),
        digest(replace(train, y=1 - train.y)),
        digest(replace(train, key=np.char.add(train.key, "x"))),
        digest(replace(train, patient=train.key)),
    ]
    assert len({digest(train), *others}) == 9
