"""YAML that a user or a downloaded file brings, read with limits: a few hundred bytes of aliases can stand for gigabytes of values."""

import yaml

MAX_CHARACTERS = 1_000_000
MAX_VALUES = 100_000  # after every alias is replaced by what it stands for
MAX_YAML_DEPTH = 50


class LimitedLoader(yaml.SafeLoader):
    """The safe loader with limits of size, depth and values."""

    def __init__(self, text: str):
        if len(text) > MAX_CHARACTERS:
            raise yaml.YAMLError(f"it has {len(text):,} characters, at most {MAX_CHARACTERS:,} are read")
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """The next node. Raises YAMLError when it lies too deep."""
        self._depth += 1
        if self._depth > MAX_YAML_DEPTH:
            raise yaml.YAMLError(f"it is nested more than {MAX_YAML_DEPTH} deep")
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        """The whole document. Raises YAMLError when its aliases stand for too many values, or contain themselves."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None and count_values(node, {}) > MAX_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {MAX_VALUES:,} values")
        return node


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


def parse_yaml(text: str) -> object:
    """The value of a YAML document. Raises yaml.YAMLError for what is malformed or exceeds a limit."""
    try:
        loader = LimitedLoader(text)
        try:
            value: object = loader.get_single_data()
            return value
        finally:
            loader.dispose()
    except (ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:  # of PyYAML itself, e.g. for 2001-99-99
        raise yaml.YAMLError(str(error) or type(error).__name__) from error
