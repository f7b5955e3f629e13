"""The space of a search as the user writes it."""

import pytest

from encoders.runtime.errors import InputError
from transfer.protocols.finetune_config import Config
from transfer.search.parameters import SEARCHED, SHORT_NAMES
from transfer.search.settings import expand_search, search_help
from transfer.search.space import canonical_space, parse_space


def test_equal_spaces_have_one_text_which_is_read_again():
    written = "lr, weight_decay=0.010..1e-1,finetune.layer_decay=0.65|.75|0.90"
    text = canonical_space(written)
    assert text == "layer_decay=0.65|0.75|0.9,optim.lr=3e-05..0.003:log,optim.weight_decay=0.01..0.1:log"
    assert canonical_space(text) == text
    assert canonical_space("optim.weight_decay=.01..0.1,layer_decay=.65|.75|.9,lr=3e-5..3e-3") == text
    assert canonical_space("") == ""


def test_a_range_has_the_scale_of_its_setting_or_the_one_that_is_written():
    (lr, mixed, narrow, share) = parse_space("lr=1e-4..2e-4,mixup.alpha=0.1..1,optim.lr_end=0.1..0.5,warmup=0..0.3")
    assert {p.setting: p.scale for p in (lr, mixed, narrow, share)} == {
        "mixup.alpha": "log",
        "optim.lr": "log",
        "optim.lr_end": "linear",
        "warmup": "linear",
    }
    assert parse_space("lr=1e-4..1e-2:linear")[0].scale == "linear"


def test_values_are_numbers_words_or_null():
    assert parse_space("layer_decay=null|0.75,freeze_bn,augment.preset=none|auto,batch=16|32")[1].choices == (16, 32)
    assert parse_space("layer_decay=null|0.75")[0].choices == (None, 0.75)
    assert parse_space("freeze_bn")[0].choices == (False, True)
    assert parse_space("augment.preset=none|auto")[0].choices == ("none", "auto")


@pytest.mark.parametrize("setting", SEARCHED)
def test_every_range_of_its_own_is_one_that_the_setting_takes(setting):
    strategy = next((name for name in ("linear", "last", "lpft", "gradual", "lora", "l2sp") if setting.startswith(f"{name}.")), "full")
    imbalance = next((i for i in ("effective", "focal", "asymmetric", "logit_adjustment", "ldam") if setting.startswith(f"{i}.")), None)
    augment = {"preset": "randaugment_cxr"}
    cfg = Config(strategy=strategy, imbalance=imbalance or "class_weight", augment=augment, search={"space": setting, "trials": 3})
    assert cfg.search.space == canonical_space(setting)
    assert setting not in SHORT_NAMES


def test_the_help_names_all_of_them():
    assert all(f"{name} (" in search_help() for name in ("lr", "weight_decay", "epochs", "layer_decay", "lora.rank"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate", "no setting to search called 'learning_rate'"),
        ("optim.lr_end", "it has no range of its own; give one, e.g. optim.lr_end=0..1"),
        ("lr,optim.lr=1|2", "--search names lr more than once"),
        ("lr=1e-3..1e-5", "the lower end must be below the upper one"),
        ("lr=0..1e-3", "a logarithmic range starts above 0"),
        ("lr=1e-5..1e-3:cubic", "the scale is 'cubic'; write :log or :linear"),
        ("lr=1e-3", "at least two different values"),
        ("batch=16|16", "at least two different values"),
        ("lr=a..b", "expected two numbers"),
        ("lr=", "has no value"),
        ("seed=1|2", "every trial has the seed of the benchmark"),
        ("search.trials=1|2", "a search does not search itself"),
        ("batch=16|{a: 1}", "'{a: 1}' is no value"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(InputError) as error:
        parse_space(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("search", "trials", "protocols", "message"),
    [
        (None, 5, ["finetune"], "say what is searched with --search"),
        ("lr", None, ["knn", "linear"], "--search is about fine-tuning, and --protocol names knn, linear"),
        (" , ", None, ["finetune"], "--search is empty"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(search, trials, protocols, message):
    with pytest.raises(InputError) as error:
        expand_search(search, trials, protocols, [])
    assert message in str(error.value)
