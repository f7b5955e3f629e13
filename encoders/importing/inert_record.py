"""What stands in a checkpoint for a Python object: its name and what was stored with it. No code of the object runs."""

from dataclasses import dataclass, field

from encoders.runtime.errors import InputError


class UnreadableCheckpoint(InputError):
    """A file that is damaged, is not a checkpoint, or exceeds a limit of the reader."""


@dataclass(eq=False, repr=False)
class InertRecord:
    """An object, class or function of a pickle that is not a tensor, number, string or plain container.

    A function that the pickle asks to call is a record, too: its arguments are stored and the call is not made."""

    name: str  # module and qualified name, e.g. argparse.Namespace
    args: tuple[object, ...] = ()  # of its construction
    state: object = None  # its attributes: a dict, or what the object defined itself
    items: dict[object, object] = field(default_factory=dict)  # of a subclass of dict, e.g. yacs.config.CfgNode
    elements: list[object] = field(default_factory=list)  # of a subclass of list, or of a deque
    called: bool = True  # False: only the class or function was named

    def __repr__(self) -> str:
        return f"InertRecord({self.name!r})"

    def fields(self) -> dict[str, object]:
        """Its items and attributes by name; of attributes in slots, those that are set. Keys that are no strings are left out."""
        states = self.state if isinstance(self.state, tuple) else (self.state,)
        merged = {**self.items}
        for state in states:
            merged |= state if isinstance(state, dict) else {}
        return {key: value for key, value in merged.items() if isinstance(key, str)}
