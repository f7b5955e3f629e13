"""One command in a process that is forked from this one, which has imported the packages once."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """How a process ended.  status: exit status, negative for a signal."""

    status: int
    printed: str
    errors: str

    def describe_fault(self) -> str:
        """What is wrong with a command whose storage failed, in words; "" for one sentence with exit status 1."""
        sentences = [line for line in self.errors.splitlines() if line.startswith("error: ")]
        if "Traceback" in self.errors:
            return "a traceback"
        if self.status != 1:
            return f"exit status {self.status}"
        return "" if len(sentences) == 1 else f"{len(sentences)} sentences"


def run_in_fork(folder: Path, work: Callable[[], None], timeout_s: float = 240) -> Outcome:
    """Calls `work` in `folder`, as its working folder and `ISOGRAFT_HOME`, in a process of its own."""
    out, err = folder.parent / f"{folder.name}.out", folder.parent / f"{folder.name}.err"
    child = os.fork()
    if not child:
        _work_and_exit(folder, work, out, err)
    end = time.monotonic() + timeout_s
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, 9)
        time.sleep(0.005)
    return Outcome(os.waitstatus_to_exitcode(done[1]), out.read_text(), err.read_text())


def _work_and_exit(folder: Path, work: Callable[[], None], out: Path, err: Path) -> None:
    status = 70
    try:
        os.chdir(folder)
        os.environ["ISOGRAFT_HOME"] = str(folder)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        work()
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 1
    except BaseException:  # noqa: BLE001 (of whatever kind: it is printed, and the process ends here)
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
