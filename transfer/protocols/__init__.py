"""The registry of protocols. A new protocol is a module with the members of `contract.TransferProtocol` and an entry here.

Entries stand in the order of how far a protocol adapts to the labels. Help texts and report titles are made from them.
"""

from typing import TYPE_CHECKING

from encoders.runtime.errors import unknown_name_error
from transfer.protocols.contract import AnyProtocol, FittedProtocol, ProtocolEntry, TransferProtocol
from transfer.strategies.names import parse_strategy, split_protocol, split_search, strategy_order, title_with_strategy

if TYPE_CHECKING:
    from encoders.runtime.config import Config


def _load_knn() -> AnyProtocol:
    from transfer.protocols import knn

    return knn


def _load_fewshot() -> AnyProtocol:
    from transfer.protocols import fewshot

    return fewshot


def _load_linear() -> AnyProtocol:
    from transfer.protocols import linear

    return linear


def _load_finetune() -> AnyProtocol:
    from transfer.protocols import finetune

    return finetune


def _load_mil() -> AnyProtocol:
    from transfer.protocols import mil

    return mil


PROTOCOLS: dict[str, ProtocolEntry] = {
    "knn": ProtocolEntry("k-NN", "weighted vote of the nearest train images", _load_knn),
    "fewshot": ProtocolEntry("few-shot probe", "nearest class mean from 1 to 16 patients per class", _load_fewshot),
    "linear": ProtocolEntry("linear probe", "logistic regression on frozen features", _load_linear),
    "finetune": ProtocolEntry("fine-tuning", "trains a copy of the encoder with a linear head", _load_finetune),
    "mil": ProtocolEntry("slides, MIL", "scores slides from their tiles", _load_mil, slides=True),
}


def resolve_protocol(name: str, cfg: "Config") -> AnyProtocol:
    """The protocol that runs `cfg`: `augmented_probe` for the presets of `linear` that augment images, `finetune_search` for fine-tuning
    whose settings are searched, otherwise the entry's own module."""
    from transfer.protocols import finetune_config, linear_config

    if isinstance(cfg, linear_config.Config) and cfg.preset in linear_config.PUBLISHED_BUDGETS:
        from transfer.protocols import augmented_probe

        return augmented_probe
    if isinstance(cfg, finetune_config.Config) and cfg.search.space:
        from transfer.protocols import finetune_search

        return finetune_search
    return find_protocol(name).load()


def protocol_order(name: str) -> tuple[int, int, int]:
    """Sorts protocols in the order of the registry, and strategies of fine-tuning in theirs, searched ones after those with given settings.

    Unknown ones come last."""
    names = list(PROTOCOLS)
    base = split_protocol(name)[0]
    return names.index(base) if base in names else len(names), strategy_order(name), split_search(name)[1]


def find_protocol(name: str) -> ProtocolEntry:
    """The entry of a protocol, `finetune` for `finetune-last=2`. Raises InputError for an unknown protocol or strategy."""
    base, strategy = split_protocol(name)
    if base not in PROTOCOLS:
        raise unknown_name_error("protocol", name, PROTOCOLS)
    if strategy:
        parse_strategy(strategy)
    return PROTOCOLS[base]


def scores_slides(name: str) -> bool:
    """Whether a protocol scores slides instead of images; False for a name that the registry does not have."""
    return name in PROTOCOLS and PROTOCOLS[name].slides


def describe_protocol(name: str) -> str:
    """The title of a protocol in reports, with its strategy; its name when the registry does not have it."""
    base = split_protocol(name)[0]
    return title_with_strategy(name, PROTOCOLS[base].title) if base in PROTOCOLS else name


def protocol_help() -> str:
    """The names of all protocols with their one-line help, for an option of the command line."""
    return "; ".join(f"{name} ({entry.help})" for name, entry in PROTOCOLS.items())


__all__ = [
    "PROTOCOLS",
    "FittedProtocol",
    "ProtocolEntry",
    "TransferProtocol",
    "describe_protocol",
    "find_protocol",
    "protocol_help",
    "protocol_order",
    "resolve_protocol",
    "scores_slides",
]
