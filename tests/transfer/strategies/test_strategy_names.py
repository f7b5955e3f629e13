"""How strategies are named, which settings belong to them, and that full fine-tuning is what it was without them."""

import pytest

from encoders.runtime.errors import InputError
from tests.transfer.cli.test_cli import call
from transfer.bench.bench import load_protocols
from transfer.bench.bench_arguments import parse_bench_arguments
from transfer.bench.cell import hash_protocol
from transfer.protocols import describe_protocol, finetune, protocol_order
from transfer.strategies.names import STRATEGIES, check_settings_used, expand_strategies
from transfer.strategies.registry import BUILDERS
from transfer.strategies.settings import StrategySettings


def test_the_hash_and_settings_of_full_fine_tuning_are_those_of_versions_without_strategies():
    assert hash_protocol("finetune", finetune.VERSION, finetune.Config()) == "3de2de5411660ae6"
    dumped = finetune.Config(lora={"rank": 3}).model_dump(mode="json")
    assert not {"strategy", *STRATEGIES} & set(dumped)
    assert load_protocols(["finetune", "finetune-full"], 0).keys() == {"finetune"}


def test_only_the_settings_that_a_strategy_uses_are_part_of_its_hash():
    def hashes(**settings):
        return [hash_protocol("p", 1, finetune.Config(strategy=name, **settings)) for name in STRATEGIES]

    plain = hashes()
    assert len(set(plain)) == len(STRATEGIES)
    changes = {
        "linear": {"head_lr": 3}, "last": {"count": 2}, "lpft": {"share": 0.25}, "gradual": {"share": 0.25},
        "lora": {"alpha": 1}, "l2sp": {"weight": 1}, "wise": {"alphas": [i / 10 for i in range(10)]},
    }  # fmt: skip
    assert changes.keys() == {name for name in StrategySettings.model_fields if name != "strategy"}
    for group, change in changes.items():
        moved = {name for name, a, b in zip(STRATEGIES, plain, hashes(**{group: change}), strict=True) if a != b}
        assert moved == ({"linear", "lpft"} if group == "linear" else {group})


def test_a_protocol_in_a_record_is_named_by_the_strategy_and_its_main_setting():
    named = ["finetune-last", "finetune-last=3", "finetune-lora=4", "finetune-l2sp=0.5", "finetune-lpft", "finetune"]
    loaded = load_protocols(named, 0)
    assert list(loaded) == ["finetune-last=1", *named[1:]]
    assert [loaded[n][1].last.count for n in list(loaded)[:2]] == [1, 3]
    assert loaded["finetune-lora=4"][1].lora.rank == 4
    by_setting = load_protocols(["finetune"], 0, ["finetune.strategy=last", "finetune.last.count=3"])
    assert by_setting["finetune-last=3"][1] == loaded["finetune-last=3"][1]
    assert describe_protocol("finetune-last=3") == "fine-tuning, last blocks (3)"
    assert sorted(["finetune-lora=4", "finetune", "knn", "finetune-linear"], key=protocol_order) == [
        "knn", "finetune-linear", "finetune", "finetune-lora=4",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("finetune-lptf", "strategy.*lpft"),
        ("finetune-last=0", "last.count"),
        ("finetune-last=two", "last.count"),
        ("finetune-linear=2", "strategy linear has no value"),
        ("finetune-lora=0", "lora.rank"),
        ("finetune-l2sp=-1", "l2sp.weight"),
        ("knn-linear", "protocol.*knn-linear"),
    ],
)
def test_a_wrong_strategy_or_value_is_refused_by_name(name, says):
    with pytest.raises(InputError, match=says):
        load_protocols([name], 0)


@pytest.mark.parametrize("alphas", [[], [0.5, 0.5], [1.2], [-0.1], [0.5, 1.0]])
def test_interpolation_needs_as_many_different_alphas_as_validations(alphas):
    with pytest.raises(InputError, match="alphas"):
        load_protocols(["finetune-wise"], 0, [f"finetune.wise.alphas={alphas}"])


def test_strategies_stand_in_place_of_finetune_and_none_stops_early():
    protocols, settings = expand_strategies(["knn", "finetune"], ["linear", "full", "last=2"], ["finetune.evaluations=6"])
    assert protocols == ["knn", "finetune-linear", "finetune", "finetune-last=2"]
    assert {cfg.patience for _, cfg in list(load_protocols(protocols, 0, settings).values())[1:]} == {6}
    assert expand_strategies(["finetune"], ["lpft"], ["finetune.patience=2"])[1] == ["finetune.patience=2"]
    assert expand_strategies(["finetune"], [], []) == (["finetune"], [])
    with pytest.raises(InputError, match="--protocol names knn; add finetune"):
        expand_strategies(["knn"], ["linear"], [])


def test_a_setting_of_a_strategy_that_is_not_used_is_refused():
    check_settings_used(["finetune-lora=2", "finetune"], ["finetune.lora.alpha=3", "knn.vote=majority"])
    check_settings_used(["finetune"], ["finetune.strategy=lora", "finetune.lora.alpha=3"])
    for protocol, setting in (("finetune-lpft", "strategy=last"), ("finetune-full+focal", "imbalance=ldam")):
        with pytest.raises(InputError, match="has no effect: the protocol names"):
            check_settings_used([protocol], [f"finetune.{setting}"])
    with pytest.raises(InputError, match="finetune.linear.head_lr has no effect.*--strategies linear or lpft"):
        check_settings_used(["finetune", "finetune-lora=2"], ["finetune.linear.head_lr=3"])


def test_every_strategy_and_its_value_is_in_the_help():
    assert BUILDERS.keys() == STRATEGIES.keys()
    text = " ".join(call("bench", "--help").output.split())
    for name in ("linear", "last=N", "lpft", "gradual", "full", "bitfit", "lora=R", "l2sp=W", "wise"):
        assert f"{name} (" in text
    options = parse_bench_arguments(["--encoder", "x", "--protocol", "finetune", "--strategies", "linear,lora=2"])
    assert options.strategies == "linear,lora=2"
    for group in (f for f in StrategySettings.model_fields if f != "strategy"):
        for field in StrategySettings.model_fields[group].annotation.model_fields:
            assert f"finetune.{group}.{field}" in text
