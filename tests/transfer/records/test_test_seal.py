"""The seal: no test row before the selection is frozen, and every use in the ledger."""

import threading
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
from transfer.records import record, test_seal
from transfer.records.test_seal import Seal, SealedError
from transfer.tasks import load, task


def fitted(**selection):
    return SimpleNamespace(selection=selection)


def sealed(**about):
    return Seal("the test split", {"split": "s", "encoder": "e", "protocol": "knn", "protocol_hash": "h", **about})


def test_opening_a_seal_before_freezing_raises_and_is_not_logged():
    seal = sealed()
    with pytest.raises(SealedError, match="before the selection is frozen"):
        seal.open(fitted(k=3))
    assert test_seal.count_split_usage("s").times == 0
    assert issubclass(SealedError, RuntimeError)


def test_the_frozen_fit_opens_the_seal_and_the_use_is_logged():
    seal, choice = sealed(), fitted(k=3)
    seal.freeze(choice)
    assert seal.open(choice) == "the test split"
    assert test_seal.count_split_usage("s").times == 1


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


def test_the_ledger_counts_uses_by_split_encoder_and_protocol():
    for encoder, protocol, split in (("a", "knn", "s"), ("a", "linear", "s"), ("b", "knn", "s"), ("a", "knn", "other")):
        seal, choice = sealed(encoder=encoder, protocol=protocol, split=split), fitted(k=1)
        seal.freeze(choice)
        seal.open(choice)
    found = test_seal.count_split_usage("s")
    assert (found.times, found.encoders, found.protocols) == (3, ("a", "b"), ("knn:h", "linear:h"))
    assert str(found) == "scored 3 times (2 encoders, 2 protocols)"


def test_uses_from_many_threads_are_all_logged_and_an_incomplete_line_is_skipped():
    path = test_seal.ledger_path()
    threads = [threading.Thread(target=test_seal.append_to_ledger, args=({"split": "s", "encoder": str(i)}, path)) for i in range(20)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    with open(path, "a") as file:
        file.write('{"split": "s", "enc')
    assert test_seal.count_split_usage("s").times == 20


def test_without_a_ledger_no_test_split_is_scored(tmp_path):
    (tmp_path / "file").write_text("")
    seal, choice = Seal("x", {"split": "s"}, ledger=tmp_path / "file" / "ledger.jsonl"), fitted(k=1)
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
    assert {*made.arrays["test_key"]} == test
    assert test_seal.count_split_usage(split.hash).times == 1
