"""The seal: no test row before the selection is frozen, and a line in the ledger for every use."""

from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from tests.transfer import toys
from transfer.bench import cell
from transfer.protocols import FittedProtocol
from transfer.protocols.common import validation_score
from transfer.records import record
from transfer.records.ledger import ledger_path, read_ledger
from transfer.records.record_ids import hide_names
from transfer.records.scored_images import identify_images, read_scored_images
from transfer.records.test_seal import Seal, SealedError
from transfer.tasks import load, task

IMAGES = identify_images("t", ["a", "b"], ["0" * 64, "1" * 64])


def fitted(**selection):
    return SimpleNamespace(selection=selection)


def sealed(**about):
    return Seal("the test split", IMAGES, {"split": "s", "encoder": "e", "protocol": "knn", "protocol_hash": "h", **about})


def test_opening_a_seal_before_freezing_raises_and_is_not_logged():
    seal = sealed()
    with pytest.raises(SealedError, match="before the selection is frozen"):
        seal.open(fitted(k=3))
    assert read_ledger() == []
    assert issubclass(SealedError, RuntimeError)


def test_the_frozen_fit_opens_the_seal_and_the_use_is_logged():
    seal, choice = sealed(), fitted(k=3)
    seal.freeze(choice)
    assert seal.open(choice) == "the test split"
    (line,) = read_ledger()
    assert (line["split"], line["test_set"]) == ("s", IMAGES.digest)
    assert read_scored_images(IMAGES.digest, [ledger_path().parent]).ids.tolist() == IMAGES.ids.tolist()


def test_a_selection_changed_after_freezing_does_not_open_the_seal():
    seal, choice = sealed(), fitted(k=3)
    seal.freeze(choice)
    choice.selection["k"] = 5
    with pytest.raises(SealedError, match="not the selection"):
        seal.open(choice)


def test_another_fit_with_an_equal_selection_does_not_open_the_seal():
    seal, choice = sealed(), fitted(k=3)
    seal.freeze(choice)
    with pytest.raises(SealedError, match="not the selection"):
        seal.open(fitted(k=3))


def test_an_empty_selection_cannot_be_frozen_and_freezing_is_final():
    seal = sealed()
    with pytest.raises(SealedError, match="chosen nothing"):
        seal.freeze(fitted())
    seal.freeze(fitted(k=1))
    with pytest.raises(SealedError, match="frozen already"):
        seal.freeze(fitted(k=2))


def test_the_test_split_is_not_an_attribute_one_can_read():
    seal = sealed()
    assert "the test split" not in [getattr(seal, name, None) for name in ("test", "_test", "data")]


def test_without_a_ledger_no_test_split_is_scored(tmp_path):
    (tmp_path / "file").write_text("")
    seal, choice = Seal("x", IMAGES, {"split": "s"}, ledger=tmp_path / "file" / "ledger.jsonl"), fitted(k=1)
    seal.freeze(choice)
    with pytest.raises(InputError, match="no test split may be scored"):
        seal.open(choice)


class Cfg(Config):
    seed: int = 0


def spy(seen):
    """A protocol that records which rows it receives, and when."""

    class Fitted(FittedProtocol):
        selection: ClassVar = {"chosen": 1}

        def scores(self, rows):
            seen.append(("scores", len(rows)))
            return np.full((len(rows), 1), 0.5)

    def fit(cfg, train, val, select, log):
        seen.append(("fit", {*train.key, *val.key}))
        return Fitted()

    return SimpleNamespace(VERSION=1, NEEDS="pooled", Config=Cfg, fit=fit)


def test_a_protocol_sees_no_test_row_until_it_has_chosen(tmp_path):
    where = toys.store(tmp_path / "toy.h5", patients=20)
    loaded = load.load_task(task.Task(name="t", store=[str(where)], labels=["sick"], kind="binary", classes=["sick"]))
    seen, split = [], loaded.split
    base = dict.fromkeys(("store", "labels", "encoder", "encoder_sha256", "card", "protocol", "protocol_hash"), "x")
    identity = record.Identity(task="t", split=split.hash, partition=split.hash, **base)
    one = cell.Cell(identity, "encoder", "resnet18", 32, loaded, split, spy(seen), Cfg())
    (made,) = cell.run_cells([one], None, lambda: np.zeros((len(loaded.key), 3), np.float32), validation_score)
    test = set(loaded.key[split.rows("test")])
    assert made.meta.status == "ok", made.meta.traceback
    assert seen[0][0] == "fit"
    assert not seen[0][1] & test
    assert {*made.arrays["test_key"]} == {*hide_names(np.array(sorted(test)))}
    (line,) = read_ledger()
    rows = split.rows("test")
    assert line["test_set"] == made.meta.test_set == identify_images("t", loaded.key[rows], loaded.sha256[rows]).digest
