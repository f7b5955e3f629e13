"""The names of strategies: in options, as protocols of records (`finetune-last=2`), and the settings that belong to each.

`finetune` is full fine-tuning. Any other strategy is a protocol of its own in records and tables, so that its rows stand beside the others.
Nothing heavy is imported here.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from encoders.runtime.command_line import COMMA_LIST
from encoders.runtime.errors import InputError, unknown_name_error
from transfer.losses.settings import IMBALANCE_GROUPS, IMBALANCE_NAMES, PLAIN
from transfer.search.settings import SEARCH_KEY, SearchSettings
from transfer.search.space import parse_space
from transfer.strategies.settings import StrategySettings

FINETUNE = "finetune"  # the protocol whose settings a strategy is
FULL = "full"
GROUPS = tuple(name for name in StrategySettings.model_fields if name != "strategy")


@dataclass(frozen=True)
class StrategyEntry:
    """A strategy of the registry. title: in reports.  help: one line.  groups: the settings it uses.

    main: the setting that `NAME=VALUE` sets, as `group.field`; "" for none.  source: the publication."""

    title: str
    help: str
    source: str
    groups: tuple[str, ...] = ()
    main: str = ""


STRATEGIES: dict[str, StrategyEntry] = {
    "linear": StrategyEntry("head only", "the head alone, on augmented images; the network is frozen", "", ("linear",)),
    "last": StrategyEntry("last blocks", "the head and the last N blocks or stages", "", ("last",), "last.count"),
    "lpft": StrategyEntry("head, then all", "the head alone, then everything", "Kumar et al. 2022, arXiv:2202.10054", ("linear", "lpft")),
    "gradual": StrategyEntry(
        "gradual unfreezing",
        "the head, then one more block or stage at a time, from the top",
        "Howard and Ruder 2018, arXiv:1801.06146",
        ("gradual",),
    ),
    FULL: StrategyEntry("everything", "the whole network and the head", ""),
    "bitfit": StrategyEntry("biases", "the head and all biases", "Ben Zaken et al. 2022, arXiv:2106.10199"),
    "lora": StrategyEntry(
        "low-rank updates",
        "the head and an update of rank R of each attention and MLP weight, or 1x1 convolution",
        "Hu et al. 2022, arXiv:2106.09685",
        ("lora",),
        "lora.rank",
    ),
    "l2sp": StrategyEntry(
        "decay towards the start",
        "everything, with weight decay W towards the start instead of 0",
        "Li et al. 2018, arXiv:1802.01483",
        ("l2sp",),
        "l2sp.weight",
    ),
    "wise": StrategyEntry(
        "interpolation with the start",
        "everything; then the mean of start and end weights that validation chooses",
        "Wortsman et al. 2022, arXiv:2109.01903",
        ("wise",),
    ),
}


def strategy_help() -> str:
    """The strategies with their values and one-line help, for an option of the command line."""
    return "; ".join(f"{strategy_usage(name)} ({entry.help})" for name, entry in STRATEGIES.items())


def list_settings() -> list[tuple[str, str, str]]:
    """(name, default, description) of every setting of a strategy, as on the command line."""
    dumped = StrategySettings().model_dump(mode="json")
    return [
        (f"{FINETUNE}.{group}.{name}", "null" if dumped[group][name] is None else f"{dumped[group][name]:g}", field.description or "")
        for group in GROUPS
        for name, field in type(getattr(StrategySettings(), group)).model_fields.items()
    ]


def strategy_usage(name: str) -> str:
    """The name of a strategy with its value, as it is written on the command line: `last=N`."""
    main = STRATEGIES[name].main
    letter = {"last.count": "=N", "lora.rank": "=R", "l2sp.weight": "=W"}
    return name + letter.get(main, "")


StrategyNames = Annotated[
    str | None,
    typer.Option(
        metavar=COMMA_LIST,
        help=f"with --protocol finetune: what is trained, a row each, with equal images and validations: {strategy_help()}. "
        f"NAME+APPROACH also does something about rare classes, e.g. full+focal: {', '.join(IMBALANCE_NAMES)}. Settings: "
        + ", ".join(f"{name}={value} ({text})" for name, value, text in list_settings()),
    ),
]


def parse_strategy(text: str) -> list[str]:
    """`last=2` as settings: ["strategy=last", "last.count=2"]; `full+focal` as ["strategy=full", "imbalance=focal"].

    Raises InputError for an unknown strategy or approach to imbalance, or a value for one that has none."""
    own, imbalance = split_imbalance(text)
    if imbalance and imbalance not in IMBALANCE_NAMES:
        raise unknown_name_error("approach to imbalance", imbalance, IMBALANCE_NAMES)
    name, equals, value = own.partition("=")
    if name not in STRATEGIES:
        raise unknown_name_error("strategy", name, STRATEGIES)
    main = STRATEGIES[name].main
    if equals and not main:
        raise InputError(f"strategy {name} has no value, and {text!r} gives it one; write {name}")
    return [f"strategy={name}", *([f"{main}={value}"] if equals else []), *([f"imbalance={imbalance}"] if imbalance else [])]


def split_imbalance(text: str) -> tuple[str, str]:
    """The strategy and the approach to imbalance: `full+focal` is (`full`, `focal`), `l2sp=1e+3` is (`l2sp=1e+3`, "")."""
    own, plus, approach = text.rpartition("+")
    return (own, approach) if plus and not approach.isdecimal() else (text, "")


def strategy_label(settings: StrategySettings) -> str:
    """The strategy with the value of its main setting, and the approach to imbalance unless it is the plain one: `last=2`, `full+focal`."""
    group, _, field = STRATEGIES[settings.strategy].main.partition(".")
    own = f"{settings.strategy}={getattr(getattr(settings, group), field):g}" if group else settings.strategy
    approach = str(getattr(settings, "imbalance", PLAIN))
    return own if approach == PLAIN else f"{own}+{approach}"


def protocol_of_strategy(settings: StrategySettings) -> str:
    """The name of the protocol in records: `finetune` for plain full fine-tuning, otherwise `finetune-last=2`.

    With a search of 20 trials, `finetune~best20` or `finetune-last=2~best20`."""
    label = strategy_label(settings)
    search = getattr(settings, "search", None)
    searched = f"~best{search.trials}" if isinstance(search, SearchSettings) and search.space else ""
    return f"{FINETUNE}{'' if label == FULL else f'-{label}'}{searched}"


def split_protocol(name: str) -> tuple[str, str]:
    """The protocol of the registry and the strategy of a name: (`finetune`, `last=2`), or (name, "") for another protocol."""
    base, _, strategy = split_search(name)[0].partition("-")
    return (base, strategy) if base == FINETUNE else (name, "")


def split_search(name: str) -> tuple[str, int]:
    """The name of a protocol without its search, and the number of trials, 0 without a search: (`finetune-last=2`, 20)."""
    found = re.fullmatch(rf"({FINETUNE}(?:-.*)?)~best(\d+)", name)
    return (found[1], int(found[2])) if found else (name, 0)


def describe_search(name: str) -> str:
    """How a protocol's settings were chosen: `best of 20 by validation`, or "" for settings that were given."""
    trials = split_search(name)[1]
    return f"best of {trials} by validation" if trials else ""


def name_in_tables(protocol: str) -> str:
    """The name of a protocol in tables, which says that its settings were searched: `finetune, best of 20 by validation`."""
    own, trials = split_search(protocol)
    return f"{own}, {describe_search(protocol)}" if trials else own


def strategy_order(protocol: str) -> int:
    """Sorts the protocols of strategies in the order of the registry, which is that of how much they train; others come first."""
    strategy = split_imbalance(split_protocol(protocol)[1])[0].partition("=")[0] or FULL
    names = list(STRATEGIES)
    return names.index(strategy) if strategy in names else -1


def title_with_strategy(name: str, title: str) -> str:
    """The title of a protocol with its strategy: `fine-tuning, gradual unfreezing`.  title: of the registry's protocol."""
    label, approach = split_imbalance(split_protocol(name)[1])
    strategy, _, value = label.partition("=")
    if not strategy:
        return ", ".join(filter(None, (title, describe_search(name))))
    own = STRATEGIES[strategy].title if strategy in STRATEGIES else strategy
    parts = (title, f"{own}{f' ({value})' if value else ''}", approach, describe_search(name))
    return ", ".join(filter(None, parts))


def own_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The dumped settings without the groups that the strategy does not use, and without the strategy if it is `full`.

    So settings of full fine-tuning, and their hash, are those of versions without strategies."""
    strategy = settings.get("strategy", FULL)
    unused = set(GROUPS) - set(STRATEGIES[strategy].groups) | ({"strategy"} if strategy == FULL else set())
    return {name: value for name, value in settings.items() if name not in unused}


def expand_strategies(protocols: Sequence[str], strategies: Sequence[str], overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The protocols with one for each strategy in place of `finetune`, and the overrides with what gives them the same validation looks.

    Early stopping would give strategies different numbers of images, so it is off unless finetune.patience is given."""
    if not strategies:
        return list(protocols), list(overrides)
    if FINETUNE not in protocols:
        raise InputError(f"--strategies is about fine-tuning, and --protocol names {', '.join(protocols)}; add {FINETUNE} to it")
    for strategy in strategies:
        parse_strategy(strategy)  # raises for what is wrong with it
    each = [FINETUNE if strategy == FULL else f"{FINETUNE}-{strategy}" for strategy in strategies]
    expanded = [name for protocol in protocols for name in (each if protocol == FINETUNE else [protocol])]
    given = {text.partition("=")[0]: text.partition("=")[2] for text in overrides}
    looks = given.get(f"{FINETUNE}.evaluations", "")
    if f"{FINETUNE}.patience" in given:
        return expanded, list(overrides)
    return expanded, [*overrides, f"{FINETUNE}.patience={looks or 10}"]


def check_settings_used(protocols: Sequence[str], overrides: Sequence[str]) -> None:
    """Raises InputError for a setting of a strategy or of an approach to imbalance, as `finetune.lora.rank=4`, that no protocol uses."""
    given = {text.partition("=")[0]: text.partition("=")[2] for text in overrides}
    given |= {f"{FINETUNE}.{parameter.setting}": "" for parameter in parse_space(given.get(f"{SEARCH_KEY}.space", ""))}
    labels = [split_imbalance(split_protocol(name)[1]) for name in protocols if split_protocol(name)[0] == FINETUNE]
    for key, place in (("strategy", 0), ("imbalance", 1)):
        if f"{FINETUNE}.{key}" in given and labels and all(label[place] for label in labels):
            named = next(label[place] for label in labels)
            raise InputError(f"{FINETUNE}.{key} has no effect: the protocol names {named}; leave one of them out")
    chosen = [label.partition("=")[0] or given.get(f"{FINETUNE}.strategy", FULL) for label, _ in labels]
    used = {group for name in chosen if name in STRATEGIES for group in STRATEGIES[name].groups}
    approaches = {approach or given.get(f"{FINETUNE}.imbalance", PLAIN) for _, approach in labels}
    for text, path in ((text, text.split(".")) for text in given):
        if path[0] == FINETUNE and path[1:2] and path[1] in {*IMBALANCE_GROUPS, "class_weight"}:
            approach = PLAIN if path[1] == "class_weight" else path[1]
            if approach not in approaches:
                raise InputError(
                    f"{text} has no effect: it belongs to {FINETUNE}.imbalance={approach}, and imbalance is {', '.join(approaches)}"
                )
    for text, path in ((text, text.split(".")) for text in given):
        if path[0] == FINETUNE and path[1:2] and path[1] in GROUPS and path[1] not in used:
            users = [name for name, entry in STRATEGIES.items() if path[1] in entry.groups]
            raise InputError(f"{text} has no effect: no strategy of this benchmark uses it; add --strategies {' or '.join(users)}")
