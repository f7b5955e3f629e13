"""Training an encoder on a task: what is kept equals what was trained, and its card, lineage and manifest say what it saw."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from encoders.cli.main import app as encoders_app
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.store.part import StorePart
from encoders.zoo import lineage, zoo
from encoders.zoo.card import Card
from encoders.zoo.stages import inner_network
from tests.pretrain.run.test_resume import smallest
from tests.pretrain.runs import run
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from tests.transfer.trained.cases import QUICK, START, add_task, toy_task, train
from transfer.metrics import temper
from transfer.protocols import finetune, finetune_training
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task
from transfer.trained.predict import load_trained_model
from transfer.trained.train import TrainRequest, gather_images, load_finetune_settings

BENCH = ("bench", "--protocol", "knn", "--baseline", "none", "--no-floor", "--device", "cpu")


@pytest.mark.parametrize(
    ("label", "classes", "start"),
    [
        ("sick", ("sick",), START),
        ("grade", ("high", "low", "mid"), START),
        (("sick", "rare"), ("sick", "rare"), START),
        ("sick", ("sick",), f"{START},stages=2/3"),  # features of norm 1 by stage, which the head that trains takes scaled
    ],
)
def test_the_kept_network_is_the_trained_one(tmp_path, label, classes, start):
    toy_task(tmp_path, label, "task")
    done = train(task="task", encoder=start)
    model = load_trained_model("trained")
    loaded = load_task(read_task("task"))
    images = gather_images(loaded, model.encoder, "val")
    x = model.encoder.prepare(images.store.unit_images(images.index))
    with torch.inference_mode():
        assert torch.equal(model.network(x), done.network(x))
        layer = model.network.head
        assert torch.allclose(model.encoder.forward(x) @ layer.weight.T + layer.bias, model.network(x), atol=1e-6)
    assert model.head.classes == classes
    # independently: the protocol, fitted by the bench's own settings
    encoder = zoo.load_encoder(start)
    train_set, val = (gather_images(loaded, encoder, part) for part in ("train", "val"))
    fitted = finetune.fit(load_finetune_settings(TrainRequest(start, "task", "other", overrides=QUICK)), train_set, val)
    want = temper(fitted.scores(val), model.head.temperature, loaded.task.kind)
    assert model.probabilities(x) == pytest.approx(want, abs=1e-6)
    assert (model.head.calibration_images, model.head.calibration_patients) == (len(val), len(set(val.patient)))


def test_the_same_request_gives_the_same_network_and_head(tmp_path):
    toy_task(tmp_path)
    first, second = train("first").card, train("second").card
    assert first.sha256 == second.sha256
    assert first.head == second.head
    assert first.canary == second.canary


def test_a_step_that_overflowed_does_not_spoil_the_card(tmp_path, monkeypatch):
    toy_task(tmp_path)
    real = finetune_training.training_step
    monkeypatch.setattr(finetune_training, "training_step", lambda *given: real(*given) * float("inf"))
    history = train().card.probe_history
    assert [sorted(row) for row in history] == [["score", "step"]] * 2


def test_the_strategy_linear_leaves_every_tensor_of_the_encoder(tmp_path):
    toy_task(tmp_path)
    before = inner_network(zoo.load_encoder(START).model).state_dict()
    train(strategy="linear")
    after = load_file(zoo_dir() / "trained" / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("strategy", ["lora=2", "wise", "full+focal"])
def test_what_a_strategy_adds_is_merged_into_a_plain_network(tmp_path, strategy):
    toy_task(tmp_path)
    done = train(strategy=strategy)
    assert done.card.head.strategy.startswith(strategy.partition("=")[0])
    assert load_file(zoo_dir() / "trained" / "model.safetensors").keys() == zoo.load_encoder(START).model.state_dict().keys()


def test_no_pixel_of_a_test_image_reaches_the_network(tmp_path, monkeypatch):
    toy_task(tmp_path)
    loaded = load_task(read_task("sick"))
    read, real = set(), StorePart.image

    def image(part, i):
        read.add(i)
        return real(part, i)

    monkeypatch.setattr("transfer.trained.train.require_intact", lambda store, rows: len(rows))  # hashes alone
    monkeypatch.setattr(StorePart, "image", image)
    train()
    assert read.isdisjoint(loaded.split.rows("test").tolist())
    assert set(loaded.split.rows("val").tolist()) < read


def test_a_second_stage_has_three_links_and_both_label_sets_are_known(tmp_path):
    toy_task(tmp_path)
    add_task(toys.store(tmp_path / "other.h5", patients=24, seed=9, dataset="elsewhere"), "grade")
    first = train("a").card
    card = train("b", encoder="a", task="grade", strategy="linear").card
    stages = f"b (finetune on grade, {card.steps} steps) <- a (finetune on sick, {first.steps} steps)"
    assert lineage.describe_lineage("b") == f"{stages} <- {START}"
    assert [name for name, _ in lineage.lineage_chain("b")] == ["b", "a", START]
    assert card.lineage["labels_of_init"] == ["sick (fine-tuning, 38 images)"]
    table = " ".join(call(*BENCH, "--task", "sick", "--encoder", "b").stdout.split())
    assert (
        "a was trained with the label 'sick' of 38 images (28 of 28 train images, 10 of 10 val images), which is a label of this" in table
    )
    assert "b was trained with the label 'grade' of 36 images, none of this task, which is no label of this task" in table


def test_a_label_column_of_the_same_name_in_another_task_is_another_label(tmp_path):
    add_task(toys.store(tmp_path / "a.h5", patients=24), "view", "view", positive="ap")
    add_task(toys.store(tmp_path / "b.h5", patients=24, seed=9, dataset="elsewhere"), "view", "other", positive="pa")
    card = train("a", task="view").card
    assert card.lineage["labels"]["columns"][0]["column"] == "view=ap"
    notes = []
    train("b", encoder="a", task="other", strategy="linear", log=notes.append)
    assert any("'view=ap' of 38 images, none of this task, which is no label of this task" in note for note in notes), notes
    notes.clear()
    train("c", encoder="a", task="view", strategy="linear", log=notes.append)
    assert any("'view=ap' of 38 images (" in note and "which is a label of this task" in note for note in notes), notes


def test_a_task_whose_test_images_were_trained_on_is_refused(tmp_path):
    store = toy_task(tmp_path)
    add_task(store, "sick", "resplit", split={"seed": 3})
    train("a")
    with pytest.raises(InputError) as error:
        call(*BENCH, "--task", "resplit", "--encoder", "a")
    assert "images whose label 'sick' was trained on between the pretraining of a and test" in str(error.value)
    assert "patients between the pretraining of a and test" in str(error.value)
    notes = []
    train("b", encoder="a", task="resplit", log=notes.append)
    assert any("patients between the pretraining of a and test; `transfer bench` refuses b on this task" in note for note in notes)


def test_pretraining_starts_from_the_trained_encoder(tmp_path):
    store = toy_task(tmp_path)
    train("a")
    words = [word for word in smallest("simclr") if not word.startswith(("arch=", "model_args="))]
    run(store, words, "child", "init=a", "arch=null", "watch.images=0")
    card = Card.read(zoo_dir() / "child" / "card.yaml")
    assert card.head is None
    assert card.lineage["init"] == "a"
    assert card.lineage["labels_of_init"] == ["sick (fine-tuning, 38 images)"]


def test_the_command_prints_what_was_kept_and_show_prints_the_head(tmp_path):
    from typer.testing import CliRunner

    toy_task(tmp_path)
    done = call("train", "--encoder", START, "--task", "sick", "--name", "mine", "--device", "cpu", "--no-near", *QUICK)
    assert "mine: binary task sick, strategy full; decides sick from 0." in done.stdout
    assert "step 3: loss" in done.stderr
    shown = CliRunner().invoke(encoders_app, ["show", "mine"]).stdout
    assert "# head: binary task sick, strategy full; decides sick from 0." in shown
    assert "kind: binary" in shown
    assert f"# lineage: mine (finetune on sick, {Card.read(zoo_dir() / 'mine' / 'card.yaml').steps} steps) <- {START}" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "sik"}, "no task called 'sik'; did you mean sick"),
        ({"strategy": "lpt"}, "no strategy called 'lpt'; did you mean lpft"),
        ({"strategy": "linear=3"}, "strategy linear has no value"),
        ({"encoder": "pixels"}, "pixels cannot be fine-tuned"),
        ({"encoder": f"{START}+random_test_resnet:size=32"}, "is made of several networks"),
        ({"overrides": ("epochs=3",)}, "write PROTOCOL.SETTING=VALUE, e.g. finetune.epochs=3"),
        ({"overrides": ("linear.steps=3",)}, "linear.steps=3 is no setting of fine-tuning"),
        ({"overrides": ("finetune.lora.rank=3",)}, "finetune.lora.rank has no effect"),
        ({"overrides": ("finetune.step=3",)}, "unknown key; did you mean"),
        ({"name": "random_x"}, "never stored"),
        ({"name": "a/b"}, "not a valid"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(tmp_path, change, message):
    toy_task(tmp_path)
    with pytest.raises(InputError, match=message.replace("+", r"\+").replace(".", r"\.")):
        train(**change)
    assert not zoo_dir().exists() or not list(zoo_dir().glob("*/card.yaml"))


def test_another_encoder_is_replaced_only_on_request(tmp_path):
    toy_task(tmp_path)
    first = train().card
    with pytest.raises(InputError, match="the zoo has an encoder called trained; choose another --name, or replace it with --replace"):
        train(seed=1)
    with pytest.raises(InputError, match="would replace the encoder that it starts from"):
        train(encoder="trained", replace=True)
    second = train(seed=1, replace=True).card
    assert second.sha256 != first.sha256
    assert load_trained_model("trained").head == second.head


def test_parts_of_a_task_that_share_images_stop_the_training(tmp_path, monkeypatch):
    toy_task(tmp_path)
    real = load_task(read_task("sick"))
    real.sha256[real.split.rows("val")[0]] = real.sha256[real.split.rows("train")[0]]
    monkeypatch.setattr("transfer.trained.train.load_task", lambda task: replace(real))
    with pytest.raises(InputError, match="1 identical images between train and val"):
        train()
    notes = []
    train(allow_leakage=True, log=notes.append)
    assert any("1 identical images between train and val" in note for note in notes)
