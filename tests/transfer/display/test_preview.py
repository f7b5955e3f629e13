"""`transfer preview`: its columns are what the training of the same settings sees, and it reads train images only."""

import stat

import matplotlib.image
import numpy as np
import pytest
import torch

from encoders.augment.picture import to_pictures
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo import zoo
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import normalise_input
from tests.transfer.cli.test_cli import call
from tests.transfer.trained.cases import QUICK, START, toy_task, train
from transfer.display.preview import (
    build_train_columns,
    describe_labels,
    draw_finetune_preview,
    find_first_mixes,
    read_first_step,
    write_finetune_preview,
)
from transfer.protocols import finetune_training
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task
from transfer.trained.train import TrainRequest, load_finetune_settings

AUGMENTED = (*QUICK[:-1], "finetune.augment.preset=randaugment_cxr")
MIXED = (*AUGMENTED, "finetune.mixup.alpha=0.4", "finetune.cutmix.alpha=1")


def first_step(overrides=AUGMENTED, encoder=START, draws=3, task="sick", seed=0):
    cfg = load_finetune_settings(TrainRequest(encoder, task, "x", overrides=tuple(overrides), seed=seed))
    return read_first_step(cfg, zoo.find_encoder(encoder).card, load_task(read_task(task)), draws)


def columns(n=4, **more):
    return {column.title: column for column in build_train_columns(first_step(**more), n)}


@pytest.mark.parametrize("more", [(), ("finetune.imbalance=balanced_sampling",)])
def test_the_first_draw_is_what_the_training_gets(tmp_path, monkeypatch, more):
    toy_task(tmp_path)
    seen, real = [], finetune_training.training_step

    def step(network, optimizer, scaler, images, *rest):
        seen.append(images.clone())
        return real(network, optimizer, scaler, images, *rest)

    monkeypatch.setattr(finetune_training, "training_step", step)
    train(overrides=(*AUGMENTED, *more), seed=3)
    assert torch.equal(first_step((*AUGMENTED, *more), seed=3).make_views(0), seen[0])
    card = zoo.find_encoder(START).card
    seen.clear()
    train("mixed", overrides=(*MIXED, *more), seed=3)
    own = first_step((*MIXED, *more), seed=3)
    firsts = dict(find_first_mixes(own.cfg, 32))
    assert 0 in firsts
    name = "mixup, as in step 0" if firsts[0].box is None else "CutMix, as in step 0"
    shown = {column.title: column for column in build_train_columns(own, 8)}[name]
    np.testing.assert_array_equal(shown.pictures, to_pictures(seen[0], card.preprocess))


def test_only_train_images_are_read(tmp_path, monkeypatch):
    toy_task(tmp_path)
    read, real = [], Store.compact_images
    loaded = load_task(read_task("sick"))
    monkeypatch.setattr(Store, "compact_images", lambda self, rows: read.extend(np.atleast_1d(rows).tolist()) or real(self, rows))
    monkeypatch.setattr(Store, "unit_images", lambda self, rows: pytest.fail("images were read in another way"))
    write_finetune_preview(TrainRequest(START, "sick", "x", overrides=MIXED), tmp_path / "p.png", 4)
    assert read
    assert set(read) <= set(loaded.split.rows("train").tolist())


def test_the_columns_are_those_of_the_settings(tmp_path):
    store = Store.open(toy_task(tmp_path))
    plain = columns(overrides=QUICK)
    assert list(plain) == ["stored train image", "as validation and test\nsee it", "draw 1", "draw 2", "draw 3"]
    assert all(column.pictures.shape == (4, 32, 32, 1) for column in plain.values())
    np.testing.assert_allclose(plain["draw 1"].pictures, plain["stored train image"].pictures, atol=1e-5)  # no augmentation, 32 px
    own = columns(overrides=(*MIXED, "finetune.tta.flip=true", "finetune.tta.crops=[0.8]"))
    titles = [title.partition(", as in")[0] for title in own]
    assert titles[5:] == [
        "mixup",
        "CutMix",
        "test-time view:\nflip",
        "test-time view:\ncrop 0.8 centre",
        "test-time view:\ncrop 0.8 centre, flip",
    ]
    seen = own["as validation and test\nsee it"].pictures
    np.testing.assert_allclose(own["test-time view:\nflip"].pictures, seen[:, :, ::-1], atol=1e-6)
    index = first_step().draws[0].index.numpy()[:4]
    np.testing.assert_allclose(own["stored train image"].pictures, store.unit_images(index), atol=1e-6)
    different = [own[f"draw {i}"].pictures for i in (1, 2, 3)]
    assert not np.array_equal(different[0], different[1])
    assert not np.array_equal(different[1], different[2])


def test_the_captions_name_labels_and_shares(tmp_path):
    toy_task(tmp_path)
    own = first_step(MIXED)
    labels = ["sick" if value == 1 else "no sick" for value in own.y[:, 0]]
    shown = {column.title: column for column in build_train_columns(own, 4)}
    assert shown["stored train image"].notes == labels[:4]
    for number, mix in find_first_mixes(own.cfg, 32):
        name = "mixup" if mix.box is None else "CutMix"
        notes = shown[f"{name}, as in step {number}"].notes
        assert notes[1] == f"{mix.share:.2f} {labels[1]}\n{1 - mix.share:.2f} {labels[-2]}"


def test_many_test_time_views_are_cut(tmp_path):
    toy_task(tmp_path)
    own = list(columns(overrides=(*QUICK, "finetune.tta.flip=true", "finetune.tta.turn=true", "finetune.tta.crops=[0.8,0.9]")))
    assert len(own) == 5 + 8
    assert own[-1].endswith("(and 15 more)")


def test_the_figure_has_a_row_for_each_image_and_outlines_of_all_draws(tmp_path):
    toy_task(tmp_path)
    figure = draw_finetune_preview(first_step(draws=2), 3)
    assert len(figure.axes) == 3 * 4
    assert all(len(figure.axes[4 * row].lines) == 2 for row in range(3))
    assert len(draw_finetune_preview(first_step(draws=1), 100).axes) == 8 * 3  # no more images than the step has


def test_the_command_writes_a_file_for_its_user_alone(tmp_path):
    toy_task(tmp_path)
    out = tmp_path / "out.png"
    done = call("preview", "--encoder", START, "--task", "sick", *MIXED, "--out", str(out), "-n", "2", "--draws", "1")
    assert done.exit_code == 0
    assert "for you alone: it shows images of patients" in done.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert matplotlib.image.imread(out).shape[2] == 4
    first = out.read_bytes()
    call("preview", "--encoder", START, "--task", "sick", *MIXED, "--out", str(out), "-n", "2", "--draws", "1")
    assert out.read_bytes() == first


def test_an_encoder_of_parts_and_colour_images_have_a_preview(tmp_path):
    toy_task(tmp_path)
    both = "random_test_resnet:size=32,channels=1+random_resnet10t:size=40,channels=3"
    own = build_train_columns(first_step(MIXED, both), 2)
    assert own[2].pictures.shape == (2, 40, 40, 3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--task", "sick"], "--encoder is required"),
        (["--encoder", START], "--task is required"),
        (["--encoder", START, "--task", "sick", "--out", "x.jpg"], "use a name like x.png"),
        (["--encoder", START, "--task", "sick", "finetune.mixup.alfa=1"], r"mixup\.alfa: unknown key; did you mean alpha"),
        (["--encoder", START, "--task", "sick", "finetune.augment.preset=randaugment_xcr"], "did you mean randaugment_cxr"),
        (["--encoder", "pixels", "--task", "sick"], "pixels cannot be fine-tuned: pixels has no weights"),
        (["--encoder", START, "--task", "sick", "knn.k=3"], "knn.k=3 is no setting of fine-tuning"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, given, message):
    toy_task(tmp_path)
    with pytest.raises(InputError, match=message):
        call("preview", *given)


def test_labels_in_words():
    assert describe_labels(np.array([1.0]), "binary", ("mass",)) == "mass"
    assert describe_labels(np.array([0.0]), "binary", ("mass",)) == "no mass"
    assert describe_labels(np.array([np.nan]), "binary", ("mass",)) == "unknown"
    assert describe_labels(np.array([0.0, 1.0, 1.0]), "multilabel", ("a", "b", "c")) == "b, c"
    assert describe_labels(np.array([0.0, np.nan]), "multilabel", ("a", "b")) == "no label"
    assert describe_labels(np.array([0.0, 1.0]), "multiclass", ("low", "high")) == "high"
    assert len(describe_labels(np.ones(20), "multilabel", tuple(f"finding {i}" for i in range(20)))) == 24


@pytest.mark.parametrize("value_range", [None, (-1.0, 1.0)])
def test_a_picture_is_the_view_before_it_was_normalised(value_range):
    prep = Preprocess(size=8, channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), value_range=value_range)
    images = torch.rand(2, 3, 8, 8)
    np.testing.assert_allclose(to_pictures(normalise_input(images, prep), prep), images.permute(0, 2, 3, 1), atol=1e-6)
