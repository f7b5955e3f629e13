"""Pickles, read without calling anything they name.

The reader interprets the opcodes itself. A pickle can name a function and ask to call it, to build an object or to set its state; here each
of these makes an InertRecord, except for the names in the table `rebuilders`, which are functions of this project that check their
arguments.  Source: the opcodes in Python's `pickletools`.
"""

import pickletools
import re
from collections.abc import Callable, Mapping
from typing import BinaryIO, cast

from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.importing.limits import MAX_INT_BYTES, MAX_OPCODES, MAX_VALUE_BYTES, check_limit

Rebuilder = Callable[[tuple[object, ...]], object]
FindStored = Callable[[object], object]

_VALUES = frozenset(
    opcode.name
    for opcode in pickletools.opcodes
    if re.fullmatch(r"(SHORT_)?(BIN)?(INT|LONG|STRING|BYTES|UNICODE|FLOAT|BYTEARRAY)\d?", opcode.name)
)
_CONSTANTS: dict[str, object] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_CONTAINERS: dict[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}
_NO_EFFECT = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})
_PYTHON2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class BoundedFile:
    """A binary file whose reads are limited, so that a length in a pickle cannot ask for more memory than the limit."""

    def __init__(self, file: BinaryIO):
        self.file = file

    def read(self, n: int) -> bytes:
        check_limit(n, MAX_VALUE_BYTES, f"a value of the pickle claims {n:,} bytes")
        return self.file.read(n)

    def readline(self) -> bytes:
        line = self.file.readline(MAX_VALUE_BYTES + 1)
        check_limit(len(line), MAX_VALUE_BYTES, "a line of the pickle is longer than allowed, in bytes")
        return line

    def tell(self) -> int:
        return self.file.tell()


def read_pickle(file: BinaryIO, rebuilders: Mapping[str, Rebuilder], find_stored: FindStored) -> object:
    """The content of the pickle at the position of the file, which then stands behind it.

    rebuilders: what to do for the call of a name.  find_stored: the object of a persistent id.
    Raises UnreadableCheckpoint if it is malformed or exceeds a limit."""
    try:
        return _Machine(rebuilders, find_stored).run(file)
    except UnreadableCheckpoint:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RuntimeError, MemoryError) as error:
        raise UnreadableCheckpoint(f"the pickle is malformed ({type(error).__name__}: {str(error)[:120]})") from error


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, rebuilders: Mapping[str, Rebuilder], find_stored: FindStored):
        self.rebuilders, self.find_stored = rebuilders, find_stored
        self.stack: list[object] = []
        self.below: list[list[object]] = []  # the stacks below each mark
        self.memo: dict[int, object] = {}  # a dict, because a pickle may write at any index
        self.unfinished: dict[int, list[int]] = {}  # id of an array without its data -> its places in the memo

    def run(self, file: BinaryIO) -> object:
        for count, (opcode, arg, _) in enumerate(pickletools.genops(cast(BinaryIO, BoundedFile(file)))):
            check_limit(count, MAX_OPCODES, "the pickle has too many instructions")
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, arg)
        raise ValueError("it has no end")

    def step(self, name: str, arg: object) -> None:
        stack = self.stack
        if name in _VALUES:
            if isinstance(arg, int):
                check_limit(arg.bit_length() // 8, MAX_INT_BYTES, f"an integer has {arg.bit_length() // 8:,} bytes")
            stack.append(arg)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            stack.append(_CONTAINERS[name]())
        elif name in _TUPLES:
            n = _TUPLES[name]
            stack[-n:] = [tuple(stack[-n:])] if len(stack) >= n else [stack[n]]  # the second raises IndexError
        elif name in _NO_EFFECT:
            return
        else:
            self.step_other(name, arg)

    def step_other(self, name: str, arg: object) -> None:
        match name:
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP":
                self.stack.pop() if self.stack else self.pop_mark()
            case "POP_MARK":
                self.pop_mark()
            case "DUP":
                self.stack.append(self.stack[-1])
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                assert isinstance(arg, int)
                self.remember(arg)
            case "MEMOIZE":
                self.remember(len(self.memo))
            case "GET" | "BINGET" | "LONG_BINGET":
                assert isinstance(arg, int)
                self.stack.append(self.memo[arg])
            case "LIST" | "TUPLE" | "FROZENSET":
                values = self.pop_mark()
                self.stack.append(tuple(values) if name == "TUPLE" else values)
            case "DICT":
                values = self.pop_mark()
                self.stack.append({})
                self.set_items(values)
            case "APPEND":
                self.extend([self.stack.pop()])
            case "APPENDS" | "ADDITEMS":
                self.extend(self.pop_mark())
            case "SETITEM":
                value, key = self.stack.pop(), self.stack.pop()
                self.set_items([key, value])
            case "SETITEMS":
                self.set_items(self.pop_mark())
            case "PERSID" | "BINPERSID":
                self.stack.append(self.find_stored(arg if name == "PERSID" else self.stack.pop()))
            case _:
                self.step_object(name, arg)

    def step_object(self, name: str, arg: object) -> None:
        """What would import a name, call it or set the state of an object."""
        match name:
            case "GLOBAL":
                module, _, attribute = str(arg).partition(" ")
                self.stack.append(_named(module, attribute))
            case "STACK_GLOBAL":
                attribute, module = _text(self.stack.pop()), _text(self.stack.pop())
                self.stack.append(_named(module, attribute))
            case "EXT1" | "EXT2" | "EXT4":
                self.stack.append(InertRecord(f"copyreg extension {arg}", called=False))
            case "REDUCE":
                args, callee = self.stack.pop(), self.stack.pop()
                self.stack.append(self.call(callee, _as_tuple(args)))
            case "NEWOBJ":
                args, kind = self.stack.pop(), self.stack.pop()
                self.stack.append(self.call(kind, _as_tuple(args)))
            case "NEWOBJ_EX":
                options, args, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
                record = InertRecord(_record(kind).name, _as_tuple(args))
                record.items = {"keyword arguments": options} if options else {}
                self.stack.append(record)
            case "INST":
                module, _, attribute = str(arg).partition(" ")
                values = self.pop_mark()
                self.stack.append(self.call(_named(module, attribute), tuple(values)))
            case "OBJ":
                kind, *values = self.pop_mark()
                self.stack.append(self.call(kind, tuple(values)))
            case "BUILD":
                state = self.stack.pop()
                self.set_state(state)
            case _:  # NEXT_BUFFER and opcodes of later protocols
                raise ValueError(f"it uses {name}, whose data is not in the file")

    def call(self, callee: object, args: tuple[object, ...]) -> object:
        """What stands for `callee(*args)`: the value of a rebuilder of this project, or a record of the call."""
        record = _record(callee)
        if record.called:
            return InertRecord(f"{record.name}(...)", (record, *args))
        rebuild = self.rebuilders.get(record.name)
        if rebuild is None:
            return InertRecord(record.name, args)
        try:
            return rebuild(args)
        except UnreadableCheckpoint:
            raise
        except (ValueError, TypeError, LookupError, OverflowError, AttributeError, RuntimeError, MemoryError) as error:
            raise UnreadableCheckpoint(f"{record.name} has arguments that do not describe a value ({str(error)[:200]})") from error

    def set_state(self, state: object) -> None:
        owner = self.stack[-1]
        if isinstance(owner, dict):
            return  # attributes of an OrderedDict, such as the `_metadata` of a state dict
        record = _record(owner)
        finish = self.rebuilders.get(f"{record.name}.__setstate__") if record.called else None
        if finish is None:
            record.state = state
            return
        self.stack[-1] = finish(_as_tuple(state))
        for index in self.unfinished.pop(id(owner), []):
            self.memo[index] = self.stack[-1]

    def remember(self, index: int) -> None:
        value = self.stack[-1]
        self.memo[index] = value
        if isinstance(value, InertRecord) and f"{value.name}.__setstate__" in self.rebuilders:
            self.unfinished.setdefault(id(value), []).append(index)

    def pop_mark(self) -> list[object]:
        values, self.stack = self.stack, self.below.pop()
        return values

    def extend(self, values: list[object]) -> None:
        owner = self.stack[-1]
        target = owner if isinstance(owner, list) else _record(owner).elements
        target.extend(values)

    def set_items(self, values: list[object]) -> None:
        owner = self.stack[-1]
        target = owner if isinstance(owner, dict) else _record(owner).items
        if len(values) % 2:
            raise ValueError("a dict has a key without a value")
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_hashable(key)] = value


def _named(module: str, attribute: str) -> InertRecord:
    return InertRecord(f"{_PYTHON2.get(module, module)}.{attribute}", called=False)


def _record(value: object) -> InertRecord:
    if not isinstance(value, InertRecord):
        raise ValueError(f"it calls or changes a {type(value).__name__}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"a name is a {type(value).__name__}")
    return value


def _as_tuple(value: object) -> tuple[object, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"arguments are a {type(value).__name__}, expected a tuple")
    return value


def _hashable(key: object) -> object:
    """`key`, if hashing it is safe: nested tuples would overflow the stack of the interpreter."""
    flat = key if isinstance(key, tuple) else (key,)
    if not all(value is None or isinstance(value, str | bytes | int | float | complex | InertRecord) for value in flat):
        raise ValueError(f"a key of a dict is a {type(key).__name__} of other values than numbers and text")
    return key
