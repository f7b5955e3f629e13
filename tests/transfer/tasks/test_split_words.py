"""Words for the parts of a split: which are mapped, and which are refused with their values."""

import itertools

import pytest

from transfer.tasks.split_words import find_parts

CLEAR = [
    ("train val test", "train val test"),
    ("Train Valid TEST", "train val test"),
    ("training validation testing", "train val test"),
    ("train dev test", "train val test"),
    ("train eval test", "train val test"),
    ("train tune test", "train val test"),
    ("train val eval", "train val test"),
    ("train dev eval", "train val test"),
    ("train valid holdout", "train val test"),
    ("tr va te", "train val test"),
    ("Train_set Valid_set Test_set", "train val test"),
    ("TrainSet ValSet TestSet", "train val test"),
    ("trainset valset testset", "train val test"),
    ("training-data validation-data test-data", "train val test"),
    ("train2017 val2017 test2017", "train val test"),
    ("nih_train nih_test", "train test"),
    ("split_train.csv split_test.csv", "train test"),
    ("train_val test", "train test"),
    ("trainval eval test", "train val test"),
    ("train train_set Training test", "train train train test"),
    ("0 1 2", "train val test"),
    ("0.0 1.0 2.0", "train val test"),
    ("train test", "train test"),
    ("train val", "train val"),
    ("train", "train"),
]
UNCLEAR = [
    *("train eval", "train holdout", "train holdout test", "train dev val test", "train dev tune test", "train eval holdout"),
    *("train external test", "A B", "train test1 test2", "fold0 fold1 fold2", "0 1", "1 2 3", "0 1 2 3", "0 2", "true false"),
    *("derivation validation", "train trainval test", "train test unlabeled", "internal_test external_test train", "development test"),
]


@pytest.mark.parametrize(("texts", "parts"), CLEAR)
def test_clear_words_are_mapped_in_any_order(texts, parts):
    want = dict(zip(texts.split(), parts.split(), strict=True))
    for order in itertools.permutations(texts.split()):
        assert find_parts(order) == want


@pytest.mark.parametrize("texts", UNCLEAR)
def test_unclear_words_are_not_mapped(texts):
    assert find_parts(texts.split()) is None


def test_parts_that_the_user_named_decide_about_the_others():
    assert find_parts(["train", "eval"], {"test"}) == {"train": "train", "eval": "val"}
    assert find_parts(["train", "eval"], {"val"}) == {"train": "train", "eval": "test"}
    assert find_parts(["train", "dev"], {"val"}) is None
    assert find_parts(["0", "1", "2"], {"test"}) is None
    assert find_parts(["0", "1", "2"], numbered=False) is None
    assert find_parts([" train ", "Test Set "]) == {" train ": "train", "Test Set ": "test"}
