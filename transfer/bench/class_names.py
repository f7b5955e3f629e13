"""How a user may write the classes of a task: in full, or shorter where that is clear."""

from collections import Counter

from encoders.runtime.errors import InputError, unknown_name_error
from transfer.tasks.task import Task

NO_CLASS = "-"


def list_spellings(task: Task) -> dict[str, str]:
    """Spelling -> class of `task`. Full names come first; others only where they mean one class.

    The positive class of a column of texts has a full name of the form `label=pneumonia`; it may be written `pneumonia` or `label`."""
    short: list[tuple[str, str]] = []
    for name in task.classes:
        short += [(part, name) for label in task.labels if name.startswith(f"{label}=") for part in (name[len(label) + 1 :], label)]
    full = {name: name for name in task.classes}
    counts = Counter(spelling for spelling, _ in short)
    return full | {spelling: name for spelling, name in short if counts[spelling] == 1 and spelling not in full}


def find_class_name(text: str, task: Task) -> str | None:
    """The class of `task` that `text` means, upper and lower case aside where that is clear; `-` for `-`; None if it means none."""
    if text == NO_CLASS:
        return NO_CLASS
    spellings = list_spellings(task)
    similar = {name for spelling, name in spellings.items() if spelling.casefold() == text.casefold()}
    return spellings.get(text) or (similar.pop() if len(similar) == 1 else None)


def describe_classes(task: Task) -> str:
    """The classes of a task with their shorter spellings, for messages."""
    spellings = list_spellings(task)
    words = []
    for name in task.classes:
        others = [s for s, meant in spellings.items() if meant == name and s.casefold() != name.casefold() and s in name]
        words.append(name + (f" (or {others[0]})" if others else ""))
    return ", ".join(words)


def unknown_class_error(text: str, task: Task) -> InputError:
    """The error for a class that `task` does not have."""
    hint = f"(classes of {task.name}: {describe_classes(task)}"
    if task.kind == "binary":
        hint += "; a binary task has one class, the positive one, and its other value needs no entry"
    return unknown_name_error(f"class of {task.name}", text, [*list_spellings(task), NO_CLASS], hint + ")")
