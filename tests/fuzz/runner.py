"""Runs the inputs of a class in forked processes, with limits of time and memory, and prints the table of how they ended.

A child runs many inputs, each within the limits; when one kills it, a new child goes on with the next input.
"""

import argparse
import faulthandler
import gc
import json
import os
import pickle
import resource
import select
import shutil
import signal
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.forked import run_forked
from tests.fuzz.harness import GOOD, VERDICTS, FuzzClass, Outcome, Verdict, find_classes, judge

INPUTS = int(os.environ.get("FUZZ_INPUTS", "200"))  # of each class
CPU_SECONDS = 20  # of one input
MEMORY = 1 << 30  # bytes above the size of the input
INPUTS_A_CHILD = 500
IN_MEMORY = Path("/dev/shm")  # a file system without a disk: an input is a few files that are deleted a moment later


def run_class(fuzzed: FuzzClass, numbers: Sequence[int] = range(INPUTS)) -> Outcome:
    """Runs the inputs of a class in forked processes. Raises RuntimeError when the unchanged input is not right."""
    with tempfile.TemporaryDirectory(prefix="isograft-fuzz-", dir=IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None) as name:
        folder = Path(name)
        result = folder / "verdicts"
        ended = run_forked(_run_inputs, fuzzed, folder, list(numbers), result, logs=folder / "run", timeout=120 + 60 * len(numbers))
        if ended.status:
            raise RuntimeError(f"{fuzzed.name}: {ended.errors[-3000:]}")
        verdicts, cpu_seconds = pickle.loads(result.read_bytes())
    outcome = Outcome(fuzzed.name, cpu_seconds=cpu_seconds, printed=ended.errors)
    for verdict in verdicts:
        outcome.counts[verdict.verdict] += 1
        if verdict.verdict not in GOOD:
            outcome.faults.append(verdict)
    return outcome


def print_table(outcomes: Sequence[Outcome]) -> None:
    """Prints a row a class: the number of inputs with each verdict."""
    width = max([len(one.name) for one in outcomes] + [5])
    print(" ".join(["class".ljust(width), *(f"{kind:>9}" for kind in VERDICTS), f"{'CPU s':>9}"]))
    total = Outcome("all", sum((one.counts for one in outcomes), Counter()), cpu_seconds=sum(one.cpu_seconds for one in outcomes))
    for one in [*outcomes, total]:
        cells = [f"{one.counts[kind]:9,}" for kind in VERDICTS]
        print(" ".join([one.name.ljust(width), *cells, f"{one.cpu_seconds:9.1f}"]), flush=True)


def main(arguments: Sequence[str]) -> int:
    """`python -m tests.fuzz [CLASS ...] [--only NUMBER] [--inputs N]`: runs classes whose names contain a word; prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Mutated inputs for every reader.")
    parser.add_argument("names", nargs="*", help="words of the names of classes; all classes without one")
    parser.add_argument("--only", type=int, help="one input by its number, with its traceback")
    parser.add_argument("--inputs", type=int, default=INPUTS, help="inputs of each class (default: FUZZ_INPUTS, or 200)")
    given = parser.parse_args(arguments)
    chosen = [one for name, one in find_classes().items() if not given.names or any(word in name for word in given.names)]
    numbers = range(given.inputs) if given.only is None else [given.only]
    if given.only is not None:
        os.environ["FUZZ_TRACEBACK"] = "1"
    outcomes = []
    for fuzzed in chosen:
        outcomes.append(run_class(fuzzed, numbers))
        print(f"{fuzzed.name}: {outcomes[-1].describe()}", flush=True)
        if given.only is not None:
            print(outcomes[-1].printed)
    print()
    print_table(outcomes)
    return int(any(one.faults for one in outcomes))


def _run_inputs(fuzzed: FuzzClass, folder: Path, numbers: list[int], result: Path) -> None:
    """Prepares the valid input, then runs the numbered inputs in children of this process; writes the verdicts to `result`."""
    import torch

    faulthandler.enable()
    torch.set_num_threads(1)  # a forked process has no threads of its parent
    warnings.simplefilter("ignore")
    valid = folder / "valid"
    valid.mkdir()
    fuzzed.prepare(valid)
    shutil.copytree(valid, folder / "unchanged", symlinks=True)  # a reader may write beside its input
    if (verdict := judge(fuzzed, folder / "unchanged"))[0] != "right":
        raise RuntimeError(f"the unchanged input is {': '.join(verdict)}")
    verdicts: list[Verdict] = []
    gc.freeze()  # the collector of a child neither visits nor copies what was imported
    while left := numbers[len(verdicts) :]:
        verdicts += _run_child(fuzzed, folder, left[:INPUTS_A_CHILD])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result.write_bytes(pickle.dumps((verdicts, used.ru_utime + used.ru_stime)))


def _run_child(fuzzed: FuzzClass, folder: Path, numbers: list[int]) -> list[Verdict]:
    """The verdicts of the first inputs, up to one that ended the process."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(readable)
        try:
            for number in numbers:
                _run_input(fuzzed, folder, number, writable)
        except BaseException:  # noqa: BLE001 (of the class of inputs, not of the product)
            traceback.print_exc()
            os._exit(3)
        os._exit(0)
    os.close(writable)
    change, verdicts, killed = "", [], False
    with os.fdopen(readable, "rb") as lines:
        for message in _read_messages(lines.fileno(), fuzzed.wall_seconds):
            if message is None:
                if not _is_running(pid):  # else it only waits for a core, and its CPU time has a limit
                    killed = True
                    os.kill(pid, signal.SIGKILL)
            elif len(message) == 1:
                change = message[0]
            else:
                verdicts.append(Verdict(numbers[len(verdicts)], message[0], change, message[1]))
                change = ""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 3:
        raise RuntimeError(f"input {numbers[len(verdicts)]} was not made, see above")
    if status or len(verdicts) < len(numbers):
        slow = killed or status == -signal.SIGXCPU
        detail = (
            f"no end after {CPU_SECONDS} s of CPU time or {fuzzed.wall_seconds} s" if slow else f"the process ended with status {status}"
        )
        verdicts.append(Verdict(numbers[len(verdicts)], "hang" if slow else "crash", change, detail))
    shutil.rmtree(folder / "input", ignore_errors=True)
    return verdicts


def _run_input(fuzzed: FuzzClass, folder: Path, number: int, writable: int) -> None:
    """Makes an input and judges it; writes two lines to the pipe: what was changed, and the verdict."""
    copy = folder / "input" / str(number)
    shutil.copytree(folder / "valid", copy, symlinks=True)
    change = fuzzed.mutate(copy, Random(f"{fuzzed.name}:{number}"))
    _send(writable, [change[:200]])
    with _limits(sum(path.lstat().st_size for path in copy.rglob("*"))):
        verdict = judge(fuzzed, copy)
    _send(writable, [verdict[0], verdict[1][:600]])
    shutil.rmtree(copy, ignore_errors=True)


@contextmanager
def _limits(size: int) -> Iterator[None]:
    """Limits of memory and CPU time inside the block, above what the process has and has used."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = int(used.ru_utime + used.ru_stime) + CPU_SECONDS + 1
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + size + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _send(writable: int, message: list[str]) -> None:
    os.write(writable, json.dumps(message).encode() + b"\n")


def _read_messages(descriptor: int, patience: float) -> Iterator[list[str] | None]:
    """The messages of a child until it ends; None when it sends none for `patience` seconds."""
    text = b""
    while True:
        if not select.select([descriptor], [], [], patience)[0]:
            yield None
            continue
        if not (new := os.read(descriptor, 1 << 16)):
            return
        *lines, text = (text + new).split(b"\n")
        yield from map(json.loads, lines)


def _is_running(pid: int) -> bool:
    """Whether a thread of a process runs, or would if it had a core."""
    states = [path.read_text().rsplit(")", 1)[1].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return bool({"R", "D"} & set(states))
