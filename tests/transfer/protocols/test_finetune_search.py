"""A search of fine-tuning: every trial is a training of its settings, and the winner is the training of its own."""

import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.zoo import load_encoder
from tests.forked import run_forked
from tests.transfer import toys
from tests.transfer.stop_at import StopAt
from tests.transfer.trained.cases import START
from transfer.bench.cell import hash_protocol
from transfer.protocols import describe_protocol, finetune, finetune_search, finetune_training, protocol_order, resolve_protocol
from transfer.protocols.common import ImageSet, validation_score
from transfer.protocols.finetune_checkpoint import TrainingFile, TrainingPaused
from transfer.protocols.finetune_config import Config
from transfer.protocols.fit_place import FitPlace
from transfer.search.halving import count_trainings, plan_rungs
from transfer.strategies.names import name_in_tables, protocol_of_strategy, split_protocol

FAST = {"min_steps": 9, "max_steps": 9, "evaluations": 9, "patience": 9, "batch": 8, "augment": {"preset": "none"}}
NINE = {**FAST, "search": {"space": "lr,weight_decay", "trials": 9}}
THREE = {**FAST, "min_steps": 6, "max_steps": 6, "evaluations": 3, "search": {"space": "lr,head_lr", "trials": 3}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Train and validation rows of 24 patients, read by a tiny network."""
    return read_parts(toys.store(tmp_path_factory.mktemp("toys") / "toy.h5", patients=24))


def read_parts(path):
    store, encoder = Store.open(path), load_encoder(START)
    y = np.asarray(store.labels("sick"), dtype=np.float32)[:, None]
    key, patient = (np.asarray(store.column(name)).astype(str) for name in ("key", "patient"))
    split = (np.arange(30), np.arange(30, 48))
    return [ImageSet(store, encoder, rows, y[rows], key[rows], patient[rows], "binary") for rows in split]


def count_calls(monkeypatch):
    """A list that grows with every training step: the step's learning rate."""
    taken, real = [], finetune_training.training_step

    def step(network, optimizer, *rest):
        taken.append(optimizer.param_groups[0]["lr"])
        return real(network, optimizer, *rest)

    monkeypatch.setattr(finetune_training, "training_step", step)
    return taken


def without_search(selection):
    return {name: value for name, value in selection.items() if name != "search"}


@pytest.mark.parametrize("strategy", ["full", "lpft", "wise", "linear"])
def test_the_winner_is_the_training_of_its_settings(parts, strategy):
    cfg = Config(**THREE, strategy=strategy)
    found = finetune_search.fit(cfg, *parts)
    search = found.selection["search"]
    trial = finetune_search.list_trials(cfg, 30)[search["chosen"]]
    alone = finetune.fit(trial.cfg, *parts)
    assert without_search(found.selection) == alone.selection
    assert all(torch.equal(a, b) for a, b in zip(found.network.state_dict().values(), alone.network.state_dict().values(), strict=True))
    np.testing.assert_array_equal(found.scores(parts[1]), alone.scores(parts[1]))


def test_each_trial_scores_as_the_beginning_of_its_whole_training(parts):
    cfg = Config(**NINE)
    found = finetune_search.fit(cfg, *parts).selection["search"]
    trials = finetune_search.list_trials(cfg, 30)
    assert [row["settings"] for row in found["table"][:9]] == [trial.settings for trial in trials]
    assert found["table"][0]["settings"] == {}
    for row in (found["table"][4], found["table"][9]):  # of the first and of the second rung
        table = finetune.fit(trials[row["trial"]].cfg, *parts).selection["table"]
        assert row["score"] == max(look["score"] for look in table if look["step"] <= row["step"])
    assert found["chosen"] == found["table"][-1]["trial"]


def test_images_and_validations_are_those_of_the_closed_form(parts, monkeypatch):
    taken = count_calls(monkeypatch)
    found = finetune_search.fit(Config(**NINE), *parts)
    trainings = count_trainings(plan_rungs(9, 3, 9))  # 9 x 1/9 + 3 x 2/9 + 1 x 6/9
    assert trainings == pytest.approx(21 / 9)
    assert len(taken) == round(9 * trainings) == 21
    search = found.selection["search"]
    assert search["images_seen"] == search["budget_images"] == found.cost["images_seen"] == 21 * 8
    assert search["validations"] == found.cost["validations"] == 21
    assert found.cost["trials"] == 9
    assert [row["step"] for row in search["table"]] == [1] * 9 + [3] * 3 + [9]


def test_all_trials_of_a_rung_have_equally_many_images_whatever_their_schedules(parts):
    settings = {**FAST, "min_steps": 1, "max_steps": 10_000, "evaluations": 9, "search": {"space": "epochs=1.2..12", "trials": 6}}
    trials = finetune_search.list_trials(Config(**settings), 300)
    largest = max(trial.images for trial in trials)
    assert len({trial.steps for trial in trials}) == 6
    for rung in plan_rungs(6, 3, 9):
        budget = rung.share * largest
        for trial in trials:
            step = trial.pause_step(budget)
            checks = {round(trial.steps * (i + 1) / 9) for i in range(9)}
            images = trial.images if step is None else step * 8
            assert step is None or step in checks
            assert images <= max(budget, trial.images / 9) + 8
            assert images == trial.images or images > budget - trial.images / 9 - 8, "at its last validation within the budget"


def test_a_search_is_a_function_of_its_settings_and_seed(parts):
    first, again = (finetune_search.fit(Config(**THREE), *parts).selection["search"] for _ in range(2))
    for row in (*first["table"], *again["table"], first, again):
        row.pop("seconds")
    assert first == again
    other = Config(**{**THREE, "search": {**THREE["search"], "seed": 1}})
    assert [t.settings for t in finetune_search.list_trials(other, 30)] != [row["settings"] for row in first["table"][:3]]


def test_a_planted_learning_rate_is_found(parts):
    """Of learning rates from 1e-9 to 1e-3, only the upper ones change a network in a few steps."""
    cfg = Config(**{**NINE, "search": {"space": "lr=1e-9..1e-3", "trials": 9}, "ema": 0.0})
    cfg = cfg.model_copy(update={"optim": cfg.optim.model_copy(update={"lr": 1e-9})})
    found = finetune_search.fit(cfg, *parts).selection
    assert found["search"]["settings"]["optim.lr"] > 3e-5
    assert found["score"] > finetune.fit(cfg, *parts).selection["score"] + 0.1


def test_a_trial_that_diverges_loses_and_is_counted(parts, monkeypatch):
    cfg = Config(**THREE)
    trials = finetune_search.list_trials(cfg, 30)
    real = finetune_training.predict_images

    def predict(network, *rest):
        scores = real(network, *rest)
        return scores * np.nan if diverges(network) else scores

    bad = {trials[1].cfg.optim.lr}
    current = []
    real_fit = finetune.fit_from_file
    monkeypatch.setattr(finetune, "fit_from_file", lambda file, cfg, *rest: (current.append(cfg.optim.lr), real_fit(file, cfg, *rest))[1])

    def diverges(network):
        return current[-1] in bad

    monkeypatch.setattr(finetune_training, "predict_images", predict)
    found = finetune_search.fit(cfg, *parts).selection["search"]
    assert found["table"][1]["score"] is None
    assert found["table"][1]["images"] == 2 * 8
    assert found["chosen"] != 1
    bad |= {trial.cfg.optim.lr for trial in trials}
    with pytest.raises(InputError, match="none of the 3 trials of the search has a validation score; search lower learning rates"):
        finetune_search.fit(cfg, *parts)


def test_a_training_that_diverges_has_no_score_whatever_the_order_of_its_images(parts, monkeypatch):
    monkeypatch.setattr(finetune_training, "predict_images", lambda *given: np.full((18, 1), np.nan))
    with pytest.raises(InputError, match="training diverged; lower finetune.optim.lr"):
        finetune.fit(Config(**{**FAST, "min_steps": 2, "max_steps": 2, "evaluations": 2, "patience": 2}), *parts)


@pytest.mark.parametrize(("strategy", "stop"), [("full", 4), ("full", 8), ("lpft", 7), ("wise", 9)])
def test_an_interrupted_search_repeats_no_finished_trial_and_ends_the_same(parts, tmp_path, monkeypatch, strategy, stop):
    cfg = Config(**THREE, strategy=strategy)
    whole = finetune_search.fit(cfg, *parts)
    place = FitPlace(tmp_path / "state.pt", (reports := []).append)
    monkeypatch.setattr(finetune_training, "training_step", first := StopAt(stop))
    with pytest.raises(KeyboardInterrupt):
        finetune_search.fit_resumable(place, cfg, *parts)
    done = len(reports)
    assert place.is_used
    rest = StopAt(-1)
    rest.real = first.real
    monkeypatch.setattr(finetune_training, "training_step", rest)
    again = finetune_search.fit_resumable(place, cfg, *parts)
    assert len(reports) == 4, "three trials, and the one that goes on; those before the interruption were reported then"
    assert done == {4: 1, 8: 3, 7: 3, 9: 3}[stop]
    assert rest.taken == 3 * 2 + 4 - (stop - 1) // 2 * 2, "from the last validation"
    assert without_search(again.selection) == without_search(whole.selection)
    assert again.selection["search"]["chosen"] == whole.selection["search"]["chosen"]
    assert again.cost == whole.cost
    np.testing.assert_array_equal(again.scores(parts[1]), whole.scores(parts[1]))
    place.remove()
    assert not place.is_used


def killed_search(path, place):
    finetune_training.training_step = StopAt(9, kill=True)
    finetune_search.fit_resumable(FitPlace(place), Config(**THREE), *read_parts(path))


@pytest.mark.slow
def test_a_killed_search_goes_on(tmp_path):
    path = toys.store(tmp_path / "toy.h5", patients=24)
    parts, place = read_parts(path), tmp_path / "state.pt"
    died = run_forked(killed_search, path, place, logs=tmp_path / "log")
    assert died.status == -signal.SIGKILL, died.errors
    again = finetune_search.fit_resumable(FitPlace(place, (reports := []).append), Config(**THREE), *parts)
    assert len(reports) == 1, "only the trial of the last rung"
    whole = finetune_search.fit(Config(**THREE), *parts)
    assert without_search(again.selection) == without_search(whole.selection)
    np.testing.assert_array_equal(again.scores(parts[1]), whole.scores(parts[1]))


def test_a_pause_is_at_a_validation_and_costs_nothing_to_find_again(parts, tmp_path):
    cfg, states = Config(**FAST), []
    for _ in range(2):
        with pytest.raises(TrainingPaused) as paused:
            finetune.fit_from_file(TrainingFile(tmp_path / "state.pt", pause=3), cfg, *parts)
        states.append((paused.value.score, paused.value.step, paused.value.cost.images_seen, paused.value.cost.validations))
    assert states[0] == states[1]
    assert states[0][1:] == (3, 24, 3)


def test_no_more_states_are_kept_than_can_be_promoted(parts, tmp_path):
    place, most = FitPlace(tmp_path / "state.pt", lambda report: most.append(len(list(place.folder.glob("*.pt"))))), []
    finetune_search.fit_resumable(place, Config(**NINE), *parts)
    assert max(most) <= 3 + 1


def test_strategies_are_searched_by_the_same_draws_and_without_settings_they_do_not_have():
    space = {"search": {"space": "lr,lora.rank,lora.lr", "trials": 5}}
    lora, full = (Config(**FAST, **space, strategy=name) for name in ("lora", "full"))
    assert lora.search == full.search
    trials = [finetune_search.list_trials(cfg, 30) for cfg in (lora, full)]
    assert [t.settings["optim.lr"] for t in trials[0][1:]] == [t.settings["optim.lr"] for t in trials[1][1:]]
    assert {len(t.settings) for t in trials[0][1:]} == {3}
    assert {len(t.settings) for t in trials[1][1:]} == {1}
    assert {t.cfg.lora.rank for t in trials[0]} > {2, 32}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("batch=1|32", "with batch=1: batch: Input should be greater than or equal to 2"),
        ("drop_path=0.5..1", "drop_path: Input should be less than 1"),
        ("optim.rate=1|2", "optim.rate: unknown key"),
        ("optim.kind=adam|sgd", "optim.kind: Input should be"),
        ("batch=16|32", "have 2 combinations; give at most --trials 3"),
        ("augment_strength", "RandAugment is off; turn it on with finetune.augment.preset=randaugment_cxr"),
        ("augment.rotat=0..20", "augment.rotat: unknown key"),
        ("augment.flip=0..2", "augment.flip: Input should be less than or equal to 1"),
    ],
)
def test_a_wrong_range_is_an_error_before_anything_is_trained(space, message):
    with pytest.raises(ValueError, match="Value error") as error:
        Config(search={"space": space, "trials": 4})
    assert message in str(error.value)


def test_settings_without_a_search_keep_their_dump_their_hash_and_their_protocol():
    plain = Config()
    assert "search" not in plain.model_dump()
    assert resolve_protocol("finetune", plain) is finetune
    searched = Config(search={"space": "lr", "trials": 20})
    assert resolve_protocol("finetune", searched) is finetune_search
    hashes = {hash_protocol("finetune", 2, plain)}
    for change in ({}, {"trials": 21}, {"factor": 4}, {"seed": 1}, {"space": "lr=1e-5..1e-3"}):
        hashes.add(hash_protocol("finetune", 2, Config(search={**searched.search.model_dump(), **change})))
    assert len(hashes) == 6
    same = Config(search={"space": " optim.lr=0.00003..3e-3:log", "trials": 20})
    assert hash_protocol("finetune", 2, same) == hash_protocol("finetune", 2, searched)


def test_the_name_of_a_searched_protocol_says_so_everywhere():
    name = protocol_of_strategy(Config(strategy="last", last={"count": 2}, search={"space": "lr", "trials": 20}))
    assert name == "finetune-last=2~best20"
    assert split_protocol(name) == ("finetune", "last=2")
    assert describe_protocol(name) == "fine-tuning, last blocks (2), best of 20 by validation"
    assert name_in_tables(name) == "finetune-last=2, best of 20 by validation"
    full = protocol_of_strategy(Config(search={"space": "lr", "trials": 20}))
    assert (full, split_protocol(full), describe_protocol(full)) == (
        "finetune~best20", ("finetune", ""), "fine-tuning, best of 20 by validation",
    )  # fmt: skip
    small = protocol_of_strategy(Config(strategy="l2sp", l2sp={"weight": 1e-5}, search={"space": "lr", "trials": 9}))
    assert split_protocol(small) == ("finetune", "l2sp=1e-05")
    assert protocol_order("finetune") < protocol_order(full) < protocol_order("mil")


@pytest.mark.parametrize("strategy", ["full", "wise"])
def test_every_validation_is_counted_and_no_train_row_is_scored(parts, strategy):
    seen = []

    def select(y, scores):
        seen.append(len(y))
        return validation_score(y, scores)

    found = finetune_search.fit(Config(**THREE, strategy=strategy), *parts, select)
    again = 3 if strategy == "wise" else 0  # the blends of the winner, when its network is built again
    assert len(seen) == found.selection["search"]["validations"] + again
    assert set(seen) == {18}


def test_too_few_images_are_refused_as_without_a_search(parts):
    train = replace(parts[0].at(np.arange(1)))
    with pytest.raises(InputError, match="at least two labeled train images"):
        finetune_search.fit(Config(**THREE), train, parts[1])
