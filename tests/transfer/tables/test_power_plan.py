"""`transfer power`: pilots from records, planned differences, and what the command prints, writes and refuses."""

import csv
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer.records.test_record import identity
from transfer.cli.main import app
from transfer.records.record import Meta, Record, write_record
from transfer.stats.planned_repeats import estimate_factor_sizes
from transfer.stats.planned_verdict import VerdictRule
from transfer.stats.required_patients import power_limit
from transfer.tables.pilot_records import PilotChoice, find_pilot, fraction_text
from transfer.tables.power_plan import PowerOptions, plan_power
from transfer.tables.power_table import describe_assumptions, describe_required

CHOICE = PilotChoice("mine", "imagenet_resnet18")
QUICK = partial(PowerOptions, repeats=200)


def rows(patients=60, positives=24, images=2, labels=1, seed=0):
    """Keys, patients and labels of test images; images of a patient share their label."""
    patient = np.repeat(np.arange(patients), images)
    y = np.stack([np.roll(np.arange(patients), 7 * c)[patient] < positives for c in range(labels)], axis=1).astype(np.float32)
    noise = np.random.default_rng(seed).normal(size=(patients, labels))[patient]
    return np.array([f"k{i:04}" for i in range(len(patient))]), np.array([f"p{p}" for p in patient]), y, noise


def record(encoder, skill, test=None, classes=("sick",), role="encoder", leakage=(), salt=0, **fields):
    key, patient, y, noise = test or rows(labels=len(classes))
    own = np.random.default_rng([salt, fields.get("draw", 0), *map(ord, encoder)]).normal(size=y.shape)
    scores = 1 / (1 + np.exp(-(skill * np.nan_to_num(y) + noise + 0.7 * own)))
    arrays = {}
    for part in ("val", "test"):
        arrays |= {f"{part}_key": key, f"{part}_patient": patient, f"{part}_y": y, f"{part}_scores": scores}
    who = identity(**{"task": "lungs", "encoder": encoder, "encoder_sha256": encoder, "protocol": "linear"} | fields)
    kind = "binary" if len(classes) == 1 else "multilabel"
    return Record(Meta(identity=who, kind=kind, classes=list(classes), role=role, arch="resnet18", leakage=list(leakage)), arrays)


def pair(**more):
    return [record("mine", 1.9, **more), record("imagenet_resnet18:size=64", 1.5, role="imagenet", **more)]


def test_a_pilot_has_the_rows_of_both_records_in_one_order():
    ours, theirs = pair()
    mixed = np.random.default_rng(1).permutation(120)
    theirs = Record(theirs.meta, {k: v[mixed] if k.startswith("test_") else v for k, v in theirs.arrays.items()})
    pilot = find_pilot([ours, theirs], CHOICE)
    for s, source in ((pilot.rows.a, ours), (pilot.rows.b, theirs)):
        assert roc_auc_score(pilot.rows.y[:, 0], s[0, :, 0]) == pytest.approx(
            roc_auc_score(source.arrays["test_y"][:, 0], source.arrays["test_scores"][:, 0]), abs=1e-12
        )
    assert pilot.versus == "imagenet_resnet18:size=64", "a name without options is enough where one encoder has it"
    (planned,) = plan_power(pilot, QUICK(patients=(100,)))
    assert planned.observed
    assert planned.difference == pytest.approx(pilot.observed.value)
    assert planned.population.differences()[0] == pytest.approx(pilot.observed.value, abs=1e-12)


def test_every_planned_difference_is_simulated_and_has_a_required_number():
    pilot = find_pilot(pair(), CHOICE)
    small, large = plan_power(pilot, QUICK((0.04, 0.08), prevalence=0.2))
    assert small.required.patients > 2 * large.required.patients
    for planned in (small, large):
        assert planned.population.prevalence == pytest.approx(0.2)
        assert planned.points[0].share(planned.wanted) <= 0.8 <= planned.points[-1].share(planned.wanted)
        assert planned.pilot_range[0] < planned.required.patients < planned.pilot_range[1]
        assert all(p.positive == round(0.2 * p.patients) for p in planned.points)
    strict = plan_power(pilot, QUICK((0.08,), prevalence=0.2, rule=VerdictRule(comparisons=10)))[0]
    assert strict.required.patients > 1.3 * large.required.patients


def test_one_image_a_patient_needs_more_patients_than_several():
    pilot = find_pilot(pair(test=rows(images=4)), CHOICE)
    (several,) = plan_power(pilot, QUICK((0.06,)))
    (single,) = plan_power(pilot, QUICK((0.06,), images=1))
    assert single.required.patients > several.required.patients


def test_given_numbers_of_patients_are_simulated_as_they_are():
    pilot = find_pilot(pair(), CHOICE)
    (planned,) = plan_power(pilot, QUICK((0.05,), patients=(30, 100, 200)))
    assert [p.patients for p in planned.points] == [30, 100, 200]
    assert planned.points[0].verdicts == {"insufficient patients": 200}
    assert planned.required.bound == "more than"
    assert "more than 200 test patients" in describe_required(planned, QUICK())
    (few,) = plan_power(pilot, QUICK((0.05,), patients=(30,)))
    assert few.required is None
    assert "no verdict below 50 test patients" in describe_required(few, QUICK())


def test_at_no_difference_the_table_shows_false_verdicts():
    pilot = find_pilot(pair(), CHOICE)
    (planned,) = plan_power(pilot, QUICK((0.0,), patients=(300,)))
    assert planned.wanted == ("better", "worse")
    assert planned.points[0].share(planned.wanted) <= 0.1
    assert "nothing to find" in describe_required(planned, QUICK())


def test_a_margin_plans_for_equivalence_at_no_difference():
    pilot = find_pilot(pair(), CHOICE)
    options = QUICK(rule=VerdictRule(margin=0.05), goal="equivalent")
    (planned,) = plan_power(pilot, options)
    assert planned.difference == 0
    assert planned.wanted == ("equivalent",)
    assert not planned.observed
    (inferior,) = plan_power(pilot, QUICK(rule=VerdictRule(margin=0.05), goal="not-inferior"))
    assert inferior.required.patients < planned.required.patients


def test_draws_of_the_labeled_patients_enter_and_one_draw_is_refused():
    shares = [r for draw in range(3) for r in pair(draw=draw, fraction=0.1)]
    pilot = find_pilot(shares, CHOICE)
    assert pilot.draws == 3
    assert pilot.rows.sampled_labels
    (planned,) = plan_power(pilot, QUICK((0.1,), patients=(400,), draws=6))
    assert any("6 draws of the labeled patients" in line for line in describe_assumptions(pilot, QUICK(draws=6), [planned]))
    with pytest.raises(InputError, match="insufficient draws"):
        plan_power(pilot, QUICK(draws=1))
    with pytest.raises(InputError, match="one draw of the labeled patients"):
        plan_power(find_pilot(pair(fraction=0.1), CHOICE), QUICK())
    with pytest.raises(InputError, match="leave --draws out"):
        plan_power(find_pilot(pair(), CHOICE), QUICK(draws=5))


def test_draws_that_vary_too_much_end_the_search_with_the_number_of_draws_that_is_enough():
    varying = []
    for draw in range(4):
        varying.append(record("mine", 1.9 + 0.8 * (-1) ** draw, draw=draw, fraction=0.1))
        varying.append(record("imagenet_resnet18", 1.5, draw=draw, fraction=0.1))
    pilot = find_pilot(varying, CHOICE)
    (planned,) = plan_power(pilot, QUICK((0.08,)))
    assert planned.required is None
    assert planned.limit < 0.8
    text = describe_required(planned, QUICK())
    assert "no number of test patients has a power of 80%: the variation between draws of the labeled patients" in text
    assert f"limits it to {planned.limit:.0%}" in text
    assert f"plan at least {planned.fewest_draws} draws" in text
    assert power_limit(0.08, "different", VerdictRule(), estimate_factor_sizes(pilot.rows), planned.fewest_draws) >= 0.8


def test_all_labels_are_the_default_fraction_and_others_are_chosen():
    records = [*pair(), *(r for draw in range(2) for r in pair(draw=draw, fraction=0.1, patients=20))]
    assert {fraction_text(r.identity) for r in records} == {"100%", "20p"}
    assert not find_pilot(records, CHOICE).rows.sampled_labels
    assert find_pilot(records, PilotChoice("mine", "imagenet_resnet18", fraction="20p")).draws == 2
    with pytest.raises(InputError, match="the records have 100%, 20p"):
        find_pilot(records, PilotChoice("mine", "imagenet_resnet18", fraction="5%"))


def test_folds_are_joined_by_ranks_and_keep_their_patients():
    key, patient, y, noise = rows()
    folds = []
    for fold in range(3):
        own = np.isin(patient, [f"p{p}" for p in range(60) if p % 3 == fold])
        test = key[own], patient[own], y[own], noise[own]
        for r in pair(test=test, fold=fold, folds=3):
            far = r.arrays["test_scores"] + 10 * fold  # scores of two folds are on different scales
            folds.append(Record(r.meta, {**r.arrays, "test_scores": far}))
    pilot = find_pilot(folds, CHOICE)
    assert pilot.rows.patients == 60
    (planned,) = plan_power(pilot, QUICK(patients=(200,)))
    assert planned.population.differences()[0] == pytest.approx(pilot.observed.value, abs=1e-9)
    assert planned.population.areas(planned.population.rows.b)[0] == pytest.approx(
        np.mean([roc_auc_score(r.arrays["test_y"][:, 0], r.arrays["test_scores"][:, 0]) for r in folds[1::2]]), abs=0.05
    )
    assert any("joined by the ranks" in line for line in describe_assumptions(pilot, QUICK(), [planned]))


def test_labels_with_too_few_pilot_patients_are_left_out_by_name():
    key, patient, y, noise = rows(labels=2)
    y[:, 1] = patient == "p3"
    pilot = find_pilot(pair(test=(key, patient, y, noise), classes=("sick", "rare")), CHOICE)
    assert pilot.labels == ("sick",)
    assert any("left out: rare" in note for note in pilot.notes)
    both = find_pilot(pair(classes=("sick", "other")), CHOICE)
    assert both.labels == ("sick", "other")
    with pytest.raises(InputError, match="--prevalence is for one label"):
        plan_power(both, QUICK(prevalence=0.1))
    (planned,) = plan_power(both, QUICK((0.05,), patients=(200,)))
    assert planned.points[0].positive is None
    alone = find_pilot(pair(classes=("sick", "other")), PilotChoice("mine", "imagenet_resnet18", label="other"))
    assert alone.labels == ("other",)


def test_patients_without_a_known_label_are_counted_and_leaks_are_stated():
    key, patient, y, noise = rows()
    y[patient == "p5"] = np.nan
    pilot = find_pilot(pair(test=(key, patient, y, noise), leakage=["2 patients in train and test"]), CHOICE)
    assert pilot.rows.patients == 59
    assert "1 test patients without a known label are left out" in pilot.notes
    assert "LEAKAGE ALLOWED: 2 patients in train and test" in pilot.notes


@pytest.mark.parametrize(
    ("records", "choice", "message"),
    [
        ([], CHOICE, "no pilot records.*transfer bench --encoder mine --baseline imagenet_resnet18"),
        (pair(shift="noise", strength=1), CHOICE, "no pilot records"),
        (pair(), PilotChoice("mien", "imagenet_resnet18"), "did you mean mine"),
        (pair(), PilotChoice("mine", "mine"), "name two encoders"),
        ([*pair(), *pair(task="other")], CHOICE, "several tasks; choose one with --task: lungs, other"),
        ([*pair(), *pair(protocol="knn")], CHOICE, "several protocols; choose one with --protocol: knn, linear"),
        ([pair()[0], record("imagenet_resnet18", 1, protocol="knn")], CHOICE, "no protocol in common"),
        ([pair()[0], record("imagenet_resnet18", 1, rows(patients=50))], CHOICE, "different test images"),
        ([*pair(), *pair(partition="again")], CHOICE, "2 different splits"),
        ([*pair(), record("mine", 1.5, encoder_sha256="later")], CHOICE, "2 different weights of mine"),
        ([*pair(), record("imagenet_resnet18:size=32", 1.5)], CHOICE, "start of several encoders"),
        ([*pair(), record("mine", 1.5, seed=1)], CHOICE, "2 and imagenet_resnet18 1 records.*same options"),
        (pair(test=rows(positives=9)), CHOICE, "9 test patients with a positive image.*error of the pilot dominates"),
        (pair(), PilotChoice("mine", "imagenet_resnet18", label="sik"), "did you mean sick"),
    ],
)
def test_what_is_no_pilot_is_refused_with_the_way_out(records, choice, message):
    with pytest.raises(InputError, match=message):
        find_pilot(records, choice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"goal": "equivalent"}, "needs --margin"),
        ({"goal": "equivalent", "rule": VerdictRule(margin=0.01), "differences": (0.02,)}, "not within the margin"),
        ({"goal": "not-inferior", "rule": VerdictRule(margin=0.01), "differences": (-0.02,)}, "worse by the margin"),
        ({"differences": (0.4,)}, "not possible"),
    ],
)
def test_plans_that_contradict_themselves_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        plan_power(find_pilot(pair(), CHOICE), QUICK(**options))


def call(*words):
    done = CliRunner().invoke(app, ["power", *map(str, words)])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_the_command_prints_the_number_with_its_assumptions_and_writes_csv(tmp_path):
    for r in pair():
        write_record(r)
    names = ("--encoder", "mine", "--versus", "imagenet_resnet18")
    done = call(*names, "--difference", "0.05,0.08", "--prevalence", 0.2, "--repeats", 100, "--csv", tmp_path / "a.csv")
    text = " ".join(done.stdout.split())
    assert done.exit_code == 0
    for part in (
        "60 test patients, 120 images; 24 patients with a positive image, 36 with a negative one",
        "True difference +0.050:",
        "test patients for a power of 80% (95 %: Monte Carlo",
        "given the size of the pilot",
        "20.0% of the test patients have a positive image (--prevalence)",
        "2.0 images a patient",
    ):
        assert part in text
    assert "winner's curse" not in text
    lines = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert (records_dir() / "power.csv").read_text() == (tmp_path / "a.csv").read_text()
    assert {line["difference"] for line in lines} == {"0.050000", "0.080000"}
    for line in lines:
        assert 0 <= float(line["power"]) <= 1
        assert line["power"] == line["better"]
        assert int(line["positive_patients"]) == round(0.2 * int(line["patients"]))
    again = call(*names, "--patients", "60,200", "--repeats", 100)
    assert "winner's curse" in " ".join(again.stdout.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--difference", "big"), "--difference big is not a list of numbers"),
        (("--difference", "3"), "between -1 and 1"),
        (("--patients", "100,many"), "whole numbers above 0"),
        (("--prevalence", "5"), "share of patients between 0 and 1"),
        ((), "no pilot records"),
    ],
)
def test_mistakes_of_the_command_line_are_input_errors(words, message):
    with pytest.raises(InputError, match=message):
        call("--encoder", "mine", "--versus", "other", *words)


def test_the_help_shows_examples():
    text = call("--help").output
    assert "--difference 0.03" in text
    assert "transfer power --encoder cxr_moco --versus imagenet_resnet50 --patients 200" in text
