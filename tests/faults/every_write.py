"""Makes writes of commands fail, one after another, and prints what came of it as JSON.

    LD_PRELOAD=fail_nth.so python -m tests.faults.every_write fail_nth.so FOLDER WRITES CASE ...

Each case is run once as it is, which counts its operations on files. Then WRITES of these, spread over the command, fail with one of the
reasons in turn: once, as an error of the medium does, or for good, as a full disk does. After each, the fault is gone, and the command (or
the one that resumes it) is run again.
"""

import ctypes
import errno
import json
import random
import shutil
import sys
from pathlib import Path

import transfer.bench.bench  # noqa: F401 (imported once, for all forks)
from tests.faults.commands import CASES, Case, call
from tests.faults.trial import Outcome, run_in_fork

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
WHOLE = (
    ".h5",
    ".safetensors",
    ".npz",
    ".csv",
    ".md",
    ".tex",
    ".onnx",
)  # files with the same bytes in every run of a case (checkpoints hold its id)
RESUME = ("pretrain", "resume", "small", "--device", "cpu")


def main() -> None:
    """Prints one JSON object per line for each fault of each case."""
    library, root, writes, *names = sys.argv[1:]
    faults = ctypes.CDLL(library)
    faults.fault_arm.argtypes = [ctypes.c_char_p, ctypes.c_long, ctypes.c_int, ctypes.c_int]
    faults.fault_count.restype = ctypes.c_long
    for name in names:
        for line in try_case(faults, name, CASES[name], Path(root), int(writes)):
            print(json.dumps({"case": name, **line}), flush=True)


def try_case(faults, name: str, case: Case, root: Path, writes: int):  # type: ignore[no-untyped-def]
    base, full, broken = (root / f"{part}-{name}" for part in ("base", "full", "broken"))
    base.mkdir(parents=True)
    prepared = run_in_fork(base, lambda: case.prepare(base))
    assert prepared.status == 0, prepared
    shutil.copytree(base, full)

    def count() -> None:
        faults.fault_arm(f"{full}/".encode(), -1, 0, 0)
        try:
            call(*case.words)
        finally:
            (root / f"count-{name}").write_text(str(faults.fault_count()))

    usual = run_in_fork(full, count)
    operations = int((root / f"count-{name}").read_text())
    rng = random.Random(name)
    for i in range(writes):
        number, for_good = NUMBERS[i % len(NUMBERS)], i % 2
        at = rng.randint(1 + operations * i // writes, max(operations * (i + 1) // writes, 1 + operations * i // writes))
        shutil.copytree(base, broken)

        def fail(at: int = at, number: int = number, for_good: int = for_good) -> None:
            faults.fault_arm(f"{broken}/".encode(), at, number, for_good)
            call(*case.words)

        outcome = run_in_fork(broken, fail)
        yield {
            "at": at, "of": operations, "errno": errno.errorcode[number], "for_good": bool(for_good), "status": outcome.status,
            "usual": usual.status, "errors": outcome.errors[-2000:], "fault": describe(outcome, usual),
            "torn": list_torn(base, full, broken), "again": run_again(name, case, broken).status,
        }  # fmt: skip
        shutil.rmtree(broken)
    shutil.rmtree(base)
    shutil.rmtree(full)


def describe(outcome: Outcome, usual: Outcome) -> str:
    """What is wrong with the end of a command. A file that it can do without, such as a cache or the overview, may be missing."""
    return "" if outcome.status == usual.status and "Traceback" not in outcome.errors else outcome.describe_fault()


def list_torn(base: Path, full: Path, broken: Path) -> list[str]:
    """The files that are neither as before the command nor as after it."""
    torn = []
    for path in (path for path in broken.rglob("*") if path.is_file() and path.suffix in WHOLE and not path.name.startswith(".")):
        name = path.relative_to(broken)
        allowed = [(other / name).read_bytes() for other in (base, full) if (other / name).is_file()]
        if not (path.read_bytes() in allowed or ".shards" in str(name) or ".cache" in str(name)):
            torn.append(str(name))
    return torn


def run_again(name: str, case: Case, folder: Path) -> Outcome:
    """The command once more, without a fault; a run that has started is resumed."""
    words = RESUME if name == "pretrain" and (folder / "runs" / "small" / "run.json").exists() else case.words
    return run_in_fork(folder, lambda: call(*words))


if __name__ == "__main__":
    main()
