"""YAML that a user or a downloaded file brings, read with limits: a few hundred bytes of aliases can stand for gigabytes of values."""

from pathlib import Path
from typing import Any

import yaml

MAX_KEY_SHOWN = 60  # characters in a message
MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000  # after every alias is replaced by what it stands for
MAX_YAML_DEPTH = 50
NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# What PyYAML itself raises, e.g. for 2001-99-99.
OF_PYYAML = (ValueError, TypeError, OverflowError, RecursionError, AttributeError, IndexError, KeyError)


class LimitedComposer(yaml.composer.Composer):
    """Composes a document with limits of size, depth and values; a key that is given twice is an error. A base class of loaders."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node. Raises YAMLError when it lies too deep."""
        self.depth += 1
        if self.depth > MAX_YAML_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_YAML_DEPTH} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        """The next mapping. Raises YAMLError when it has a key twice: one of the two values would be lost."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        if (again := find_repeated_key(node)) is not None:
            raise yaml.YAMLError(f"the key {again.value[:MAX_KEY_SHOWN]!r} is given twice, again in line {again.start_mark.line + 1}")
        return node

    def compose_scalar_node(self, anchor: dict[Any, yaml.Node]) -> yaml.ScalarNode:
        """The next value. Raises YAMLError for a number that YAML 1.1 reads as most readers do not: 1:30 as 90, 010 as 8."""
        node: yaml.ScalarNode = super().compose_scalar_node(anchor)
        if (base := find_base(node)) not in (None, 10):
            where = f"{node.value[:MAX_KEY_SHOWN]} in line {node.start_mark.line + 1}"
            raise yaml.YAMLError(f"{where} is a number of base {base} in YAML; write it in base 10, or in quotes if it is a text")
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The whole document. Raises YAMLError when its aliases stand for too many values, or contain themselves."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None and count_values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return node


class LimitedLoader(LimitedComposer, yaml.SafeLoader):
    """The safe loader with limits."""


class LimitedTextLoader(LimitedComposer, yaml.BaseLoader):
    """The loader that leaves every value as the text that was written, with limits."""


def find_base(node: yaml.Node) -> int | None:
    """The base of a number, 10 also for one that says its base as 0x10 does; None for any other value."""
    if not isinstance(node, yaml.ScalarNode) or node.tag not in NUMBER_TAGS:
        return None
    digits = node.value.lstrip("+-").replace("_", "")
    return 60 if ":" in digits else 8 if len(digits) > 1 and digits[0] == "0" and digits.isdigit() else 10


def find_repeated_key(node: yaml.MappingNode) -> yaml.ScalarNode | None:
    """The first key of a mapping that stood in it before."""
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if (key.tag, key.value) in seen:
                return key
            seen.add((key.tag, key.value))
    return None


def count_values(node: yaml.Node, counted: dict[int, int]) -> int:
    """The number of nodes in a node with every alias replaced.  counted: those known by identity, extended."""
    if id(node) not in counted:
        counted[id(node)] = MAX_VALUES + 1  # an alias to a node that is still being counted: it contains itself
        counted[id(node)] = 1 + sum(count_values(child, counted) for child in list_children(node))
    return counted[id(node)]


def list_children(node: yaml.Node) -> list[yaml.Node]:
    """The elements of a list, or the keys and values of a mapping; [] for a scalar."""
    if isinstance(node, yaml.SequenceNode):
        return list(node.value)
    return [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else []


def parse_yaml(text: str, loader: type[LimitedLoader] | type[LimitedTextLoader] = LimitedLoader) -> object:
    """The value of a YAML document. Raises yaml.YAMLError for what is malformed or exceeds a limit."""
    if len(text) > MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
    try:
        return load_document(loader(text))
    except OF_PYYAML as error:
        raise yaml.YAMLError(str(error) or type(error).__name__) from error


def parse_written_yaml(text: str) -> object:
    """The value of a YAML document as `parse_yaml` reads it, five times as fast for a large one that isograft wrote.

    libyaml reads what has no aliases and is within the limits; all else, and what it refuses, is left to `parse_yaml`."""
    if not yaml.__with_libyaml__ or len(text) > MAX_CHARACTERS:
        return parse_yaml(text)
    depth = values = 0
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):  # libyaml composes any depth, until the stack ends the process
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            values += isinstance(event, yaml.NodeEvent)
            if isinstance(event, yaml.AliasEvent) or depth > MAX_YAML_DEPTH or values > MAX_VALUES:
                return parse_yaml(text)
        loader = yaml.CSafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is not None and not is_ambiguous(node):
                value: object = loader.construct_document(node)
                return value
        finally:
            loader.dispose()
    except (yaml.YAMLError, *OF_PYYAML):
        pass
    return parse_yaml(text)


def is_ambiguous(node: yaml.Node) -> bool:
    """Whether a mapping in a node has a key twice, or a number is of another base than it seems to be."""
    if isinstance(node, yaml.MappingNode) and find_repeated_key(node) is not None:
        return True
    return find_base(node) not in (None, 10) or any(map(is_ambiguous, list_children(node)))


def load_document(loader: LimitedLoader | LimitedTextLoader) -> object:
    """The value of the only document of a stream."""
    try:
        value: object = loader.get_single_data()
        return value
    finally:
        loader.dispose()


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file in UTF-8. Raises yaml.YAMLError for a file that exceeds the limit, which is not read to its end."""
    with path.open("rb") as file:
        data = file.read(4 * MAX_CHARACTERS + 1)  # bytes of a character in UTF-8
    if len(data) > 4 * MAX_CHARACTERS:
        raise yaml.YAMLError(f"it has more than {4 * MAX_CHARACTERS:,} bytes, at most {MAX_CHARACTERS:,} characters are read")
    return data.decode("utf-8-sig")
