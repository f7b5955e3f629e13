"""The grid of a sweep: values as they are written, and names of runs that are readable, unique and stable."""

import itertools

import pytest

from encoders.runtime.errors import InputError
from encoders.zoo.names import split_names
from encoders.zoo.publish import check_zoo_name
from pretrain.recipe.sweep_grid import list_grid, parse_axes, parse_axis, spell_value
from pretrain.run.rundir import run_dir_for


def names(*texts, name="s"):
    return [run.name for run in list_grid(name, parse_axes(texts))]


def test_the_runs_are_all_combinations_named_by_value():
    runs = list_grid("cxr", parse_axes(["seed=0,1,2", "optim.lr=0.03,0.06"]))
    assert [run.name for run in runs] == [f"cxr_seed{s}_lr{lr}" for s, lr in itertools.product(range(3), ("0.03", "0.06"))]
    assert [run.settings for run in runs] == [[f"seed={s}", f"optim.lr={lr}"] for s in range(3) for lr in ("0.03", "0.06")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr=3e-2,.06,1e-5", ["s_lr0.03", "s_lr0.06", "s_lr1e-05"]),
        ("steps=1000,20000,100000000000000", ["s_steps1000", "s_steps20000", "s_steps100000000000000"]),
        ("arch=resnet18,test_resnet", ["s_arch-resnet18", "s_arch-test_resnet"]),
        ("method.name=moco,mae", ["s_method-moco", "s_method-mae"]),
        ("channels_last=true,false", ["s_channels_last-true", "s_channels_last-false"]),
        ("init=null,imagenet_resnet18", ["s_init-null", "s_init-imagenet_resnet18"]),
    ],
)
def test_a_name_shows_the_value(text, expected):
    assert names(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "optim.betas=[0.9,0.95],[0.9,0.99]", "model_args={a: 1, b: 2},{a: 1}", "data.store='a,b.h5',\"a b.h5\",a-b.h5", "x=-1,1",
        "x=a/b,a-b", "x='+','-'", "x=ä,a", "x=a:b,a@b,a~b,a+b", "x=" + ",".join(f"{'y' * 200}{i}" for i in range(3)), "init='null',null",
        "x='',b",
    ],
)  # fmt: skip
def test_any_value_has_a_name_of_its_own_that_runs_and_encoders_may_have(text):
    found = names(text)
    assert len(set(found)) == len(found) == len(parse_axis(text).values)
    for name in found:
        assert run_dir_for(name).name == name
        assert split_names([name]) == [check_zoo_name(name, None)] == [name]


def test_names_do_not_depend_on_the_other_values_and_keys_with_one_last_word_are_written_in_full():
    assert set(names("seed=0,1")) < set(names("seed=1,7,0"))
    assert names("optim.lr=1", "method.lr=2") == ["s_optim-lr1_method-lr2"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["seed"], "'seed' is not a setting with values; write key=a,b, e.g. --sweep seed=0,1,2"),
        (["seed:0,1"], "is not a setting with values"),
        (["=1"], "is not a setting with values"),
        (["seed="], "has an empty value"),
        (["seed=0,,1"], "has an empty value"),
        (["seed=0,1,"], "has an empty value"),
        (["seed=1,2,1.0"], "has the value 1 twice"),
        (["optim.lr=1e-3,0.001"], "has the value 1e-3 twice"),
        (["x=[1,2"], "is not YAML"),
        (["seed=0,1", "seed=2"], "--sweep seed is given twice; write its values in one: --sweep seed=0,1,2"),
    ],
)
def test_a_mistake_says_what_to_write(texts, message):
    with pytest.raises(InputError, match="^.*") as caught:
        parse_axes(texts)
    assert message in str(caught.value)


def test_a_setting_is_not_swept_and_set():
    with pytest.raises(InputError, match="seed is swept, and also set by 'seed=1'"):
        parse_axes(["seed=0,1"], ["batch=4", "seed=1"])


def test_a_value_has_one_spelling():
    assert {spell_value(text) for text in ("0.03", "3e-2", "3E-2", ".03", "0.030")} == {"0.03"}
    assert spell_value("'7'") == spell_value("7") == "7"
    assert spell_value("2.0") == "2"
    assert spell_value("null") == "null" != spell_value("'null'")
