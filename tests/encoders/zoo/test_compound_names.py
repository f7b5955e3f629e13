"""Names made of several: `+`, `~statistics=`, `~weights=` and `stages=`, also where names and numbers contain these signs."""

import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import runs_dir, zoo_dir
from encoders.zoo import zoo
from encoders.zoo.names import parse_name, short_name, split_parts, split_stages, split_swap
from tests.encoders.zoo.small import tiny_card, tiny_network

A, B = "random_resnet10t:size=64,channels=1", "random_resnet10t:seed=1,size=64,channels=1"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a", ["a"]),
        ("a+b+c", ["a", "b", "c"]),
        ("a + b", ["a", "b"]),
        ("runs/x@10+imagenet_r:size=64,std=1e-3+c", ["runs/x@10", "imagenet_r:size=64,std=1e-3", "c"]),
        ("m:model.x=1e+3+b", ["m:model.x=1e+3", "b"]),
        ("m:mean=0.5/1e+0,size=64+b", ["m:mean=0.5/1e+0,size=64", "b"]),
        ("run1e+2b", ["run1e", "2b"]),  # a name, not a number: no option
        ("c++/card.yaml+b", ["c++/card.yaml", "b"]),
        ("b+c++/card.yaml", ["b", "c++/card.yaml"]),
    ],
)
def test_plus_separates_encoders_but_not_the_parts_of_a_path_or_number(text, parts):
    assert split_parts(text, lambda name: name == "c++/card.yaml") == parts


@pytest.mark.parametrize("text", ["a+", "+a", "a++b", "a+ +b"])
def test_an_empty_part_is_an_error(text):
    with pytest.raises(InputError, match="the name of one is empty; write A.B"):
        zoo.find_encoder(text)


def test_a_card_or_run_whose_name_contains_a_plus_is_found(tmp_path):
    zoo.publish_encoder("mine", tiny_network(), tiny_card())
    (zoo_dir() / "mine").rename(tmp_path / "c++")
    (runs_dir() / "a+b").parent.mkdir(parents=True)
    card = str(tmp_path / "c++" / "card.yaml")
    assert zoo.find_encoder(card).card.name == "mine"
    assert [p.card.name for p in zoo.find_encoder(f"{card}+{A}").parts] == ["mine", A]
    zoo.publish_encoder("again", tiny_network(), tiny_card())
    (zoo_dir() / "again").rename(runs_dir() / "a+b")
    (runs_dir() / "a+b" / "encoder").mkdir()
    for file in ("card.yaml", "model.safetensors"):
        (runs_dir() / "a+b" / file).rename(runs_dir() / "a+b" / "encoder" / file)
    assert zoo.find_encoder("runs/a+b").card.name == "runs/a+b"
    assert [p.card.name for p in zoo.find_encoder(f"{A}+runs/a+b").parts] == [A, "runs/a+b"]


@pytest.mark.parametrize(
    ("text", "rest", "stages"),
    [
        ("a:stages=2/3/4", "a", (2, 3, 4)),
        ("a:stages=2,3,4", "a", (2, 3, 4)),
        ("a:stages=pooled/3/2,size=64", "a:size=64", (2, 3, "pooled")),
        ("a:size=64,stages=10/9,seed=3", "a:size=64,seed=3", (9, 10)),
        ("runs/x@10:stages=0", "runs/x@10", (0,)),
        ("a:size=64", "a:size=64", None),
    ],
)
def test_stages_are_read_from_any_place_of_the_options(text, rest, stages):
    assert split_stages(text) == (rest, stages)


def test_the_canonical_name_keeps_the_stages():
    assert str(parse_name("random_x:stages=3,2,size=64")) == "random_x:size=64,stages=2/3"
    assert parse_name("random_x:stages=2,3").seed == 0  # the 3 is a stage, not the seed


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("random_resnet10t:stages=last", "'last' is no stage"),
        ("random_resnet10t:stages=", "'' is no stage"),
        ("random_resnet10t:stages=-1", "'-1' is no stage"),
        ("random_resnet10t:stages=2/2", "named twice"),
        ("random_resnet10t:stages=2/9", r"has the stages 0 to 4 \(widths .*\) and `pooled`, so there is no stage 9"),
        (f"{A}+{A}", "more than once"),
        (f"{A}+{B}+nobody", "no encoder called 'nobody'"),
        ("random_resnet10t:size=64:stages=2", "separated by commas"),
        (f"{A}~statistics=", "write A~statistics=B"),
        (f"{A}~weights={B}~weights={B}", "write A~weights=B"),
        (f"{A}~weights=random_resnet18:channels=1", "name encoders of the same network"),
        (f"{A}~statistics=pixels", "name encoders of the same network"),
        ("pixels:size=64", "pixels has no options; write pixels"),
        ("pixels:stages=1", "it is not one network"),
        ("random_resnet10t:size=64,3", "not an option"),
    ],
)
def test_the_error_for_a_wrong_compound_name_says_what_to_write(text, says):
    with pytest.raises(InputError, match=says):
        zoo.find_encoder(text)


def test_a_stored_encoder_made_of_parts_has_no_variants():
    from encoders.zoo.combine import combine_encoders

    combine_encoders([A, B], "ab")
    for name in ("ab:size=64", "ab:stages=2"):
        with pytest.raises(InputError, match=r"write ab|leave stages out"):
            zoo.find_encoder(name)
    assert [p.card.name for p in zoo.find_encoder("ab+pixels").parts] == [A, B, "pixels"]


def test_short_names_leave_out_the_options_of_every_part():
    assert short_name("a:size=64,mean=0.1/0.2+runs/b@3:stages=1/2~weights=c:size=64") == "a+runs/b@3~weights=c"
    assert split_swap("runs/x@4~statistics=imagenet_r:size=64,channels=1") == ("runs/x@4", "statistics", "imagenet_r:size=64,channels=1")
    assert split_swap("~/zoo/card.yaml") is None
