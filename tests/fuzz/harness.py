"""Mutated inputs for every reader: each must be right, or refused with one sentence, within 20 s and 1 GB above the size of the input.

A class of inputs is an object with a name and three methods, in a file `tests/fuzz/inputs_*.py` that lists its objects in `CLASSES`:

    class StoreInputs(FuzzClass):
        name = "store, raw pixels"

        def prepare(self, folder):           # once: writes a small valid input into an empty folder, and keeps the truth in `self`
            save_store(folder / "a.h5", ...)
            self.truth = ...

        def mutate(self, folder, rng):       # for each input: changes a copy of that folder; returns what was changed, in a few words
            return mutate_file(folder / "a.h5", rng)     # of tests/fuzz/mutators.py; by default, bytes of one of the files

        def check(self, folder):             # calls the product's reading entry point, to the last value, and compares with the truth
            require_equal(Store.open(folder / "a.h5").images([0]), self.truth, "pixels")

`check` returns when the result is right. An `InputError` of the product is a refusal; it must be one line and name a file or the folder of
the input (`names_input = False` where the input is a text and no file). `check` raises `Refused("reason")` where the product refuses
otherwise: a quarantined image, an item listed as failed. `SilentlyWrong("what")`, or `require_equal`, says that a wrong value was accepted.
Everything else is a fault: any other exception (traceback), a signal (crash), 20 s of CPU time or 60 s in all (hang), 1 GB more than the
size of the input (memory).
A class whose changes all leave a valid input says `all_valid = True`; there a refusal is a wrong result.
A changed text may be right in itself: then `mutate` writes the new truth into the folder, or `check` reads it from the text in another way.

Inputs run in a child forked from a process that has imported everything and prepared the valid input (tests/fuzz/runner.py). Input `i` of a
class is always the same: `python -m tests.fuzz "NAME" --only I` repeats it, with its traceback.
`FUZZ_INPUTS` is the number of inputs of a class: 200 in `make test`, 10000 in `make fuzz`, which prints the table of all classes.
"""

import importlib
import os
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, ClassVar, NamedTuple

import numpy as np

from encoders.runtime.errors import InputError
from encoders.runtime.storage_errors import StorageError
from tests.fuzz.mutators import mutate_file

WALL_SECONDS = 60.0  # of one input; the machine may be shared
NO_MACHINE = 1 << 40  # bytes that an allocation fails for everywhere, so that this error is no matter of our limit
LONGEST_SENTENCE = 1500
VERDICTS = ("right", "refused", "wrong", "traceback", "crash", "hang", "memory")
GOOD = ("right", "refused")


class Refused(Exception):
    """The product refuses the input in another way than by an InputError."""


class SilentlyWrong(Exception):
    """The product accepts the input, and what it read is wrong."""


class FuzzClass(ABC):
    """One class of inputs; see the module's docstring."""

    name: ClassVar[str]
    names_input: ClassVar[bool] = True  # a refusal names a file, or the folder
    all_valid: ClassVar[bool] = False  # `mutate` only makes inputs that are valid, so that a refusal is wrong
    wall_seconds: float = WALL_SECONDS

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Writes a valid input into an empty folder, and keeps the truth."""

    def mutate(self, folder: Path, rng: Random) -> str:
        """Changes the input in the folder. Returns what was changed."""
        path = rng.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
        return f"{path.relative_to(folder)}: {mutate_file(path, rng)}"

    @abstractmethod
    def check(self, folder: Path) -> None:
        """Reads the input and compares it with the truth. Raises InputError, Refused or SilentlyWrong."""


class Verdict(NamedTuple):
    """How one input ended."""

    number: int
    verdict: str  # one of VERDICTS
    change: str  # what `mutate` did
    detail: str  # the sentence, the difference or the last line of the traceback


@dataclass
class Outcome:
    """The inputs of a class."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[Verdict] = field(default_factory=list)
    cpu_seconds: float = 0.0
    printed: str = ""  # to the standard error of the processes

    def describe(self, shown: int = 12) -> str:
        """The counts and the first faults, a line each."""
        lines = [", ".join(f"{self.counts[kind]} {kind}" for kind in VERDICTS)]
        lines += [f"  input {bad.number} ({bad.change}): {bad.verdict}: {bad.detail}" for bad in self.faults[:shown]]
        return "\n".join(lines) + (f"\n  and {len(self.faults) - shown} more" if len(self.faults) > shown else "")


def require_equal(found: Any, expected: Any, what: str) -> None:
    """Raises SilentlyWrong when two values, arrays or containers of them differ; NaN equals NaN."""
    if not _are_equal(found, expected):
        raise SilentlyWrong(f"{what}: {str(found)[:80]!r} instead of {str(expected)[:80]!r}".replace("\n", " "))


def find_classes() -> dict[str, FuzzClass]:
    """All classes of inputs by name, of the files `inputs_*.py` beside this one."""
    found: dict[str, FuzzClass] = {}
    for path in sorted(Path(__file__).parent.glob("inputs_*.py")):
        for one in importlib.import_module(f"tests.fuzz.{path.stem}").CLASSES:
            assert one.name not in found, f"two classes are called {one.name!r}"
            found[one.name] = one
    return found


def judge(fuzzed: FuzzClass, folder: Path) -> tuple[str, str]:
    """(verdict, detail) of the input in a folder."""
    verdict, detail = _judge_reading(fuzzed, folder)
    return ("wrong", f"a valid input is refused: {detail}") if verdict == "refused" and fuzzed.all_valid else (verdict, detail)


def _judge_reading(fuzzed: FuzzClass, folder: Path) -> tuple[str, str]:
    """(verdict, detail), where a refusal in one sentence is no fault."""
    try:
        fuzzed.check(folder)
    except SilentlyWrong as error:
        return "wrong", str(error)
    except Refused as error:
        return "refused", str(error)
    except (InputError, StorageError) as error:
        if _needed_more_memory(error):
            return "memory", str(error)
        return ("refused", str(error)) if (wrong := _describe_bad_sentence(fuzzed, folder, str(error))) is None else ("traceback", wrong)
    except MemoryError as error:
        return "memory", _last_line(error)
    except BaseException as error:  # noqa: BLE001 (that is what is looked for)
        return "traceback", _last_line(error)
    return "right", ""


def _describe_bad_sentence(fuzzed: FuzzClass, folder: Path, text: str) -> str | None:
    """What is wrong with the sentence of a refusal; None if nothing is."""
    if "\n" in text.strip() or not text.strip() or len(text) > LONGEST_SENTENCE:
        return f"the refusal is not one sentence: {text}"
    if fuzzed.names_input and not any(path.name in text for path in [folder, *folder.rglob("*")]):
        return f"the refusal does not name the input: {text}"
    return None


def _needed_more_memory(error: BaseException) -> bool:
    """Whether a refusal comes from an allocation that a larger machine grants."""
    seen: list[BaseException] = []
    now: BaseException | None = error
    while now is not None and now not in seen:
        if isinstance(now, MemoryError):
            shape, dtype = getattr(now, "shape", ()), getattr(now, "dtype", None)  # of NumPy
            size = float(np.prod(np.array(shape, dtype=float))) * dtype.itemsize if dtype is not None else 0.0
            return size < NO_MACHINE
        seen.append(now)
        now = now.__cause__ or now.__context__
    return False


def _last_line(error: BaseException) -> str:
    """The exception and the place in the project's code where it was raised."""
    if os.environ.get("FUZZ_TRACEBACK"):
        traceback.print_exception(error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    place = f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:200]}"


def _are_equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_are_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(_are_equal(x, y) for x, y in zip(a, b, strict=True))
    x, y = np.asarray(a), np.asarray(b)
    if x.shape != y.shape or (x.dtype.kind != y.dtype.kind and not {x.dtype.kind, y.dtype.kind} <= set("iufb")):
        return False
    return bool(np.array_equal(x, y, equal_nan=x.dtype.kind in "fc" and y.dtype.kind in "fc"))
