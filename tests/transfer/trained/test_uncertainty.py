"""Ensembles, draws of dropout, prediction sets and distances of new images."""

import stat

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.neighbors import NearestNeighbors

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.store.store import Store
from encoders.zoo.export_folder import export_folder
from tests.transfer.cli.test_cli import call
from tests.transfer.metrics.test_outliers import relative_parts
from tests.transfer.trained.cases import QUICK, add_task, ingest_folder, png_folder, read_table, toy_task, train
from transfer.metrics.calibration import fit_temperature, temper
from transfer.metrics.conformal import patient_quantile
from transfer.metrics.entropy_parts import divide_entropy
from transfer.metrics.outliers import scale_to_unit
from transfer.metrics.set_rule import parse_set_rule
from transfer.protocols.finetune_config import Config
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task
from transfer.trained.dropout_samples import build_dropout_network, sample_logits
from transfer.trained.predict import load_trained_model
from transfer.trained.prediction_job import PredictRequest, prepare_predictions
from transfer.trained.prediction_table import share_below, write_predictions
from transfer.trained.reference_file import DISTANCES, REFERENCE_FILE, read_reference

VIT = "random_test_vit:size=32,channels=1"


def predicted(out, *paths, **request):
    """The rows of a table, and its job."""
    job = prepare_predictions(PredictRequest(**{"names": ["trained"], **request}))
    write_predictions(job.iterate(job.open_input(paths)), job.rule.head, out, job.extras)
    return read_table(out), job


def numbers(rows, column):
    return np.array([float(row[column]) for row in rows])


@pytest.fixture
def store(tmp_path):
    return toy_task(tmp_path)


def test_the_reference_holds_the_validation_images_and_names_none(store):
    done = train(seed=3)
    path = done.folder / REFERENCE_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded, reference = load_task(read_task("sick")), read_reference(done.folder, done.card, "a test")
    rows = loaded.split.rows("val")
    rows = rows[np.argsort(loaded.sha256[rows].astype(str))]
    assert np.array_equal(reference.validation.y, loaded.y[rows])
    names = loaded.patient[rows].astype(str)
    assert [np.unique(names[reference.validation.patient == n]).size for n in np.unique(reference.validation.patient)] == [1] * len(
        set(names)
    )
    model = load_trained_model("trained")
    images = model.encoder.prepare(loaded.store.unit_images(rows))
    with torch.inference_mode():
        assert reference.validation.logits == pytest.approx(model.network(images).numpy(), abs=1e-5)
    content = path.read_bytes()
    assert not any(name.encode() in content for name in [*loaded.patient.astype(str), *loaded.key.astype(str)] if len(name) > 3)


def test_distances_of_a_table_are_those_of_scikit_learn(store, tmp_path):
    train()
    loaded, model = load_task(read_task("sick")), load_trained_model("trained")

    def features(rows):
        with torch.inference_mode():
            return model.network.backbone(model.encoder.prepare(loaded.store.unit_images(rows))).double().numpy()

    rows = loaded.split.rows("train")
    x, new, y = features(rows), features(np.arange(len(loaded.key))), loaded.y[rows, 0].astype(int)
    square, whole = relative_parts(x, y, new)
    far = NearestNeighbors(n_neighbors=10).fit(scale_to_unit(x)).kneighbors(scale_to_unit(new))[0][:, -1]
    want = {"mahalanobis": np.sqrt(square), "relative": square - whole, "knn": far}
    for kind in DISTANCES:
        table, job = predicted(tmp_path / f"{kind}.csv", store, distance=kind)
        assert numbers(table, "distance") == pytest.approx(want[kind], rel=2e-3, abs=2e-3)
        val = job.extras.distance.validation
        own, patient = numbers(table, "distance"), job.extras.distance.patient
        low, high = (100 * share_below(own + step, val, patient) for step in (-1e-3, 1e-3))  # float32 in the file
        assert ((low <= numbers(table, "percentile") + 0.01) & (numbers(table, "percentile") - 0.01 <= high)).all()
    assert ((numbers(table, "percentile") >= 0) & (numbers(table, "percentile") <= 100)).all()


def test_percentiles_count_each_patient_once():
    validation, patient = np.array([1.0, 2, 3, 4, 10]), np.array([0, 0, 0, 0, 1])
    assert share_below(np.array([0.5, 2.5, 5, 11]), validation, patient) == pytest.approx([0, 0.25, 0.5, 1])


@pytest.mark.parametrize("label", ["sick", "grade", ["sick", "view"]])
def test_an_ensemble_is_the_mean_of_calibrated_members_with_a_temperature_of_its_own(tmp_path, label):
    store = toy_task(tmp_path, label, "task")
    for seed in range(3):
        train(f"net{seed}", task="task", seed=seed)
    names = [f"net{seed}" for seed in range(3)]
    single = [predicted(tmp_path / f"{name}.csv", store, names=[name])[0] for name in names]
    table, job = predicted(tmp_path / "all.csv", store, names=names)
    head = job.rule.head
    members = np.array([[[float(row[f"probability_{c}"]) for c in head.classes] for row in rows] for rows in single])  # (T, B, C)
    loaded = load_task(read_task("task"))
    val = loaded.split.rows("val")
    temperature = fit_temperature(loaded.y[val], members.mean(0)[val], head.kind)
    assert job.rule.temperature == pytest.approx(temperature if temperature > np.exp(-4) * 1.001 else 1, rel=1e-3)
    want = temper(members.mean(0), job.rule.temperature, head.kind)
    got = np.array([[float(row[f"probability_{c}"]) for c in head.classes] for row in table])
    assert got == pytest.approx(want, abs=1e-6)
    if head.kind == "multiclass":
        total = entropy(members.mean(0), axis=1) / np.log(len(head.classes))
        expected = entropy(members, axis=2).mean(0) / np.log(len(head.classes))
    else:
        total = entropy(np.stack([members.mean(0), 1 - members.mean(0)]), base=2).mean(1)
        expected = entropy(np.stack([members, 1 - members]), base=2).mean(0).mean(1)
    assert numbers(table, "entropy") == pytest.approx(total, abs=1e-6)
    assert numbers(table, "expected_entropy") == pytest.approx(expected, abs=1e-6)
    assert numbers(table, "mutual_information") == pytest.approx(total - expected, abs=1e-6)
    assert (numbers(table, "mutual_information") >= 0).all()
    assert any("a temperature of its own" in note for note in job.notes)


def test_members_without_equal_validation_images_keep_their_mean(store, tmp_path):
    train("one")
    train("two", seed=1)
    (zoo_dir() / "two" / REFERENCE_FILE).unlink()
    single = [numbers(predicted(tmp_path / f"{n}.csv", store, names=[n])[0], "probability_sick") for n in ("one", "two")]
    table, job = predicted(tmp_path / "both.csv", store, names=["one", "two"])
    assert numbers(table, "probability_sick") == pytest.approx(np.mean(single, axis=0), abs=1e-6)
    cuts = [load_trained_model(n).head.thresholds[0] for n in ("one", "two")]
    assert job.rule.head.thresholds[0] in (pytest.approx(np.mean(cuts)), 2)
    assert "not calibrated again" in job.notes[0]
    with pytest.raises(InputError, match="cannot be calibrated for this ensemble"):
        prepare_predictions(PredictRequest(["one", "two"], parse_set_rule("0.9")))
    with pytest.raises(InputError, match="each member of an ensemble once"):
        prepare_predictions(PredictRequest(["one", "one"]))


def test_members_with_other_classes_are_refused(store):
    train("one")
    add_task(store, "rare")
    train("two", task="rare")
    with pytest.raises(InputError, match="one predicts sick .binary. and two rare .binary.; an ensemble needs equal classes"):
        prepare_predictions(PredictRequest(["one", "two"]))


@pytest.mark.parametrize("names", [["trained"], ["trained", "again"]])
def test_sets_hold_the_classes_below_the_quantile_of_validation_patients(tmp_path, names):
    store = toy_task(tmp_path, "grade", "task")
    for seed, name in enumerate(names):
        train(name, task="task", seed=seed)
    table, job = predicted(tmp_path / "sets.csv", store, names=names, sets=parse_set_rule("lac=0.6"))
    classes = job.rule.head.classes
    p = np.array([[float(row[f"probability_{c}"]) for c in classes] for row in table])
    loaded = load_task(read_task("task"))
    val = loaded.split.rows("val")
    truth = loaded.y[val].argmax(1)
    limit = patient_quantile(1 - p[val][np.arange(len(val)), truth], loaded.patient[val], 0.6)
    inside = np.array([[int(row[f"set_{c}"]) for c in classes] for row in table])
    clear = np.abs(1 - p - limit) > 1e-6
    assert (inside == (1 - p <= limit))[clear].all()
    assert 0 < inside.mean() < 1


def test_what_is_random_of_a_set_depends_on_the_image_alone(store, tmp_path):
    train()
    rule = parse_set_rule("aps=0.7")
    table, job = predicted(tmp_path / "all.csv", store, sets=rule)
    digests = Store.open(store).column("sha256").astype(str).tolist()
    p = numbers(table, "probability_sick")[:, None]
    order = np.random.default_rng(0).permutation(len(p))
    whole, shuffled = job.extras.sets.predict(p, digests), job.extras.sets.predict(p[order], [digests[i] for i in order])
    assert np.array_equal(whole[order], shuffled)
    assert [(int(r["set_not sick"]), int(r["set_sick"])) for r in table] == [tuple(map(int, row)) for row in whole]


def test_several_labels_have_no_sets_and_a_model_without_its_reference_neither(store, tmp_path):
    add_task(store, ["sick", "view"], "both")
    train("both", task="both")
    with pytest.raises(InputError, match="several labels an image"):
        prepare_predictions(PredictRequest(["both"], parse_set_rule("0.9")))
    train()
    (zoo_dir() / "trained" / REFERENCE_FILE).unlink()
    for more in ({"sets": parse_set_rule("0.9")}, {"distance": "knn"}):
        with pytest.raises(InputError, match="exports and earlier versions have none; train it again"):
            prepare_predictions(PredictRequest(["trained"], **more))


def test_a_damaged_reference_and_that_of_another_head_are_refused(store):
    train()
    train("other", seed=1)
    own, other = (zoo_dir() / name / REFERENCE_FILE for name in ("trained", "other"))
    own.write_bytes(other.read_bytes())
    with pytest.raises(InputError, match="belongs to another training"):
        prepare_predictions(PredictRequest(["trained"], distance="knn"))
    own.write_bytes(other.read_bytes()[:200])
    with pytest.raises(InputError, match="is damaged"):
        prepare_predictions(PredictRequest(["trained"], distance="knn"))


def test_draws_of_dropout_have_the_rate_of_the_training_and_depend_on_the_image_alone(store, tmp_path):
    done = train(overrides=(*QUICK, "finetune.dropout=0.4"))
    assert done.card.config["dropout"] == 0.4
    model = load_trained_model("trained")
    noisy = build_dropout_network(model.encoder, model.network)
    images = Store.open(store)
    x, digests = model.encoder.prepare(images.unit_images(np.arange(6))), images.column("sha256").astype(str).tolist()[:6]
    with torch.inference_mode():
        whole = sample_logits(noisy, x, digests, 400, None)
        alone = torch.cat([sample_logits(noisy, x[i : i + 1], digests[i : i + 1], 400, None) for i in (3, 1)], dim=1)
        assert torch.equal(whole[:, [3, 1]], alone)
        features, weight, bias = model.network.backbone(x).double(), model.network.head.weight.double(), model.network.head.bias.double()
        mean = features @ weight.T + bias
        variance = (features**2) @ (weight**2).T * 0.4 / 0.6  # of inverted dropout: f w (mask / .6 - 1)
        error = (whole.mean(0) - mean) / (variance / 400).sqrt()
        assert error.abs().max() < 4.5
        assert whole.var(0) / variance == pytest.approx(1, abs=0.3)
    table, job = predicted(tmp_path / "mc.csv", store, dropout=20)
    assert (numbers(table, "mutual_information") > 0).all()
    assert "without dropout" in job.notes[0]
    again, _ = predicted(tmp_path / "again.csv", store, dropout=20)
    assert again == table
    with pytest.raises(InputError, match="calibrated for the network without dropout"):
        prepare_predictions(PredictRequest(["trained"], parse_set_rule("0.9"), dropout=20))


def test_a_folder_has_the_draws_of_its_store(tmp_path):
    folder = png_folder(tmp_path / "files", patients=12)
    add_task(ingest_folder(folder, tmp_path / "files.h5"))
    train(overrides=(*QUICK, "finetune.dropout=0.4"))
    options = {"dropout": 3, "distance": "mahalanobis"}
    predicted(tmp_path / "store.csv", tmp_path / "files.h5", **options)
    broken = folder / "00-9.png"
    predicted(tmp_path / "folder.csv", folder, **options)
    assert (tmp_path / "folder.csv").read_bytes() == (tmp_path / "store.csv").read_bytes()
    broken.write_bytes(b"no image")
    rows, _ = predicted(tmp_path / "broken.csv", folder, **options)
    bad = next(row for row in rows if row["key"] == "00-9.png")
    assert bad["problem"]
    assert bad["distance"] == bad["mutual_information"] == ""
    assert [row for row in rows if row is not bad] == read_table(tmp_path / "store.csv")


def test_a_batch_of_files_that_cannot_be_read_has_rows_with_reasons(store, tmp_path):
    train(overrides=(*QUICK, "finetune.dropout=0.4"))
    (tmp_path / "bad.png").write_bytes(b"no image")
    for more in ({"dropout": 3, "distance": "knn"}, {"sets": parse_set_rule("0.9")}):
        (row,), job = predicted(tmp_path / "bad.csv", tmp_path / "bad.png", **more)
        assert row["problem"]
        assert not any(row[name] for name in job.extras.names)


def test_drop_path_of_a_transformer_is_drawn_and_a_network_without_any_is_refused(store, tmp_path):
    train("vit", encoder=VIT)
    table, _ = predicted(tmp_path / "vit.csv", store, names=["vit"], dropout=5)
    assert (numbers(table, "mutual_information") > 0).any()
    train("head", encoder=VIT, strategy="linear")
    train("cnn")
    for name in ("head", "cnn"):
        with pytest.raises(InputError, match=f"{name} was trained without dropout and without drop path, .* finetune.dropout=0.2"):
            prepare_predictions(PredictRequest([name], dropout=5))
    with pytest.raises(InputError, match="at least 2"):
        prepare_predictions(PredictRequest(["vit"], dropout=1))


def test_dropout_of_the_head_is_no_setting_of_records_that_do_not_use_it():
    assert "dropout" not in Config().model_dump()
    assert Config(dropout=0.1).model_dump()["dropout"] == 0.1
    assert json_digest(Config().model_dump(mode="json", exclude={"seed"})) == "7158ce7eef554a6f"


def test_parts_of_the_entropy_in_closed_form():
    certain = np.array([[[1.0, 0]], [[0.0, 1]]])  # two certain networks that differ: all uncertainty is theirs
    assert [float(part[0]) for part in divide_entropy(certain, "multiclass")] == pytest.approx([1, 0, 1])
    agreed = np.full((3, 1, 1), 0.5)
    assert [float(part[0]) for part in divide_entropy(agreed, "binary")] == pytest.approx([1, 1, 0])


def test_the_command(store, tmp_path):
    for name, seed in (("a", "0"), ("b", "1")):
        call(
            "train",
            "--encoder",
            "random_test_resnet:size=32,channels=1",
            "--task",
            "sick",
            "--name",
            name,
            "--seed",
            seed,
            "--device",
            "cpu",
            *QUICK,
        )
    done = call("predict", "--model", "a,b", store, "--out", tmp_path / "p.csv", "--sets", "0.8", "--device", "cpu")
    assert "images by number of classes in the set" in done.stdout
    row = read_table(tmp_path / "p.csv")[0]
    assert list(row) == [
        "key", "probability_sick", "decision_sick", "uncertainty", "entropy", "expected_entropy", "mutual_information", "set_not sick",
        "set_sick", "problem",
    ]  # fmt: skip
    done = call("predict", "--model", "a", store, "--out", tmp_path / "d.csv", "--distance", "knn", "--device", "cpu")
    assert "farther from the train images than 99 %" in done.stdout
    with pytest.raises(InputError, match="name one --model"):
        call("predict", "--model", "a,b", store, "--out", tmp_path / "e.csv", "--distance", "knn")


def test_no_export_takes_the_reference_along(store, tmp_path):
    done = train()
    assert (done.folder / REFERENCE_FILE).is_file()
    export_folder("trained", tmp_path / "export")
    names = {path.name for path in (tmp_path / "export").rglob("*")}
    assert "head.safetensors" in names
    assert REFERENCE_FILE not in names
