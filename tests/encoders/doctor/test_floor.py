"""The floor against scikit-learn, on planted shortcuts and on labels without one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from encoders.doctor import floor
from encoders.doctor.checks import examine_store
from encoders.doctor.report import HIGH_FLOOR
from encoders.store.store import Store
from encoders.store.write import save_store


def store(tmp_path, brighter: float, patients: int = 80, each: int = 2, name: str = "s.h5") -> Store:
    """A store whose images of `sick` patients are brighter; `noise` is a random label, `site` text with three values."""
    draw = np.random.default_rng(0)
    who = np.repeat(np.arange(patients), each)
    sick = (who % 2).astype(float)
    level = 100 + brighter * sick + draw.normal(0, 10, patients)[who]
    pixels = np.clip(draw.normal(0, 20, (len(who), 32, 32)) + level[:, None, None], 0, 255).astype(np.uint8)[..., None]
    labels = {"sick": sick, "noise": draw.permutation(patients)[who] % 2.0, "site": np.array(["a", "b", "c"])[who % 3]}
    return Store.open(save_store(tmp_path / name, pixels, patient=[f"p{i}" for i in who], labels=labels))


def test_the_fit_equals_that_of_scikit_learn():
    draw = np.random.default_rng(0)
    x = np.concatenate([draw.normal(size=(120, 20)), np.ones((120, 1))], axis=1)  # the last feature is constant
    y = x[:, 0] + 0.5 * draw.normal(size=120) > 0.3
    own = floor.fit_logistic(x, y)(x)
    scaled = StandardScaler().fit_transform(x)
    reference = LogisticRegression(C=1 / floor.PENALTY, tol=1e-10, max_iter=1000).fit(scaled, y).decision_function(scaled)
    assert np.allclose(own, reference, atol=1e-5)


def test_the_area_equals_that_of_scikit_learn_with_ties():
    draw = np.random.default_rng(0)
    scores, y = draw.integers(0, 5, 60).astype(float), draw.random(60) < 0.4
    assert floor.area_under_curve(y, scores) == pytest.approx(roc_auc_score(y, scores), abs=1e-12)


def test_no_patient_is_in_two_folds_and_every_fold_has_both_classes():
    people = np.repeat([f"p{i}" for i in range(45)], 3)
    y = np.isin(people, [f"p{i}" for i in range(20)])
    fold = floor.deal_patients(y, people)
    assert all(len(set(fold[people == p])) == 1 for p in set(people))
    assert all(0 < y[fold == f].mean() < 1 for f in range(floor.FOLDS))


def test_patients_that_identify_themselves_do_not_raise_the_floor():
    """Features that tell patients apart but not classes: folds by image would give an AUROC near 1."""
    draw = np.random.default_rng(1)
    people = np.repeat(np.arange(60), 6)
    x = draw.normal(size=(60, 40))[people] + 0.01 * draw.normal(size=(360, 40))
    y = draw.permutation(60)[people] % 2 == 0
    assert abs(roc_auc_score(y, floor.cross_validated_scores(x, y, people.astype(str))) - 0.5) < 0.2


def test_a_planted_shortcut_is_found_and_a_random_label_is_not(tmp_path):
    report = examine_store(store(tmp_path, brighter=30), seconds=0.01)
    areas = {f["label"]: f["auroc"] for f in report["floors"]}
    assert set(areas) == {"sick", "noise", "site"}
    assert areas["sick"] > 0.9
    assert max(areas["noise"], areas["site"]) < HIGH_FLOOR
    (finding,) = [f for f in report["findings"] if f["finding"] == "acquisition shortcut"]
    assert finding["count"] == 1
    assert f"sick {areas['sick']:.2f}" in finding["meaning"]
    calm = examine_store(store(tmp_path, brighter=0, name="calm.h5"), seconds=0.01)
    assert not [f for f in calm["findings"] if f["finding"] == "acquisition shortcut"]


def test_few_patients_are_not_judged_and_labels_can_be_chosen(tmp_path):
    few = store(tmp_path, brighter=60, patients=30, name="few.h5")
    assert floor.measure_floors(few) == []
    many = store(tmp_path, brighter=60)
    assert [f["label"] for f in floor.measure_floors(many, ["noise"])] == ["noise"]
    assert floor.measure_floors(many, ["sick"], sample=100)[0]["images"] == 100
    assert examine_store(many, seconds=0.01, floor=False)["floors"] == []
