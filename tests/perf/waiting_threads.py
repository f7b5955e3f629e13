"""Prints what waiting OpenMP threads cost: training steps under several wait policies, alone and beside a busy process. About ten minutes.

    python -m tests.perf.waiting_threads [--rounds 5] [--steps 15] [--busy 0 1] [--spins 1000 10000] [--niceness -10]

Each measurement is a process of its own, as the policy is read when libgomp is loaded, and takes ResNet-10-T steps with two threads. The
policies take turns, so that other load affects all alike. `default` is what libgomp does by itself (it spins 300,000 times), `1 thread`
takes no second thread. Printed are medians of wall and of CPU seconds (user and system, all threads) and the ratio to `default` of the
same round. A negative niceness, which needs root, keeps the rest of the machine out of the measurement.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

POLICIES = {"default": {}, "passive": {"OMP_WAIT_POLICY": "PASSIVE"}, "1 thread": {"OMP_NUM_THREADS": "1"}}
OURS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
Seconds = tuple[float, float]  # wall, CPU


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--rounds", type=int, default=5)
    ask.add_argument("--steps", type=int, default=15)
    ask.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="busy processes beside the measured one")
    ask.add_argument("--spins", type=int, nargs="+", default=[100, 1000, 10000], help="values of GOMP_SPINCOUNT")
    ask.add_argument("--niceness", type=int, default=0)
    ask.add_argument("--size", type=int, default=64)
    ask.add_argument("--batch", type=int, default=64)
    ask.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = ask.parse_args()
    if args.child:
        print(json.dumps(take_steps(args.steps, args.size, args.batch)))
        return
    os.nice(args.niceness)
    policies = POLICIES | {f"spin {spins}": {"GOMP_SPINCOUNT": str(spins)} for spins in args.spins}
    for busy in args.busy:
        seconds: dict[str, list[Seconds]] = {name: [] for name in policies}
        with busy_processes(busy):
            for _ in range(args.rounds):
                for name, variables in policies.items():
                    seconds[name].append(measure_policy(variables, args.steps, args.size, args.batch))
                    print(
                        f"{busy} busy, {name}: {seconds[name][-1][0]:.2f} s, CPU {seconds[name][-1][1]:.2f} s", file=sys.stderr, flush=True
                    )
        report(busy, seconds)


def take_steps(steps: int, size: int, batch: int) -> Seconds:
    """Wall and CPU seconds of training steps of ResNet-10-T."""
    import timm
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
    model = timm.create_model("resnet10t", num_classes=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    images = torch.randn(batch, 3, size, size)

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    for _ in range(2):
        step()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_policy(variables: dict[str, str], steps: int, size: int, batch: int) -> Seconds:
    env = {name: value for name, value in os.environ.items() if name not in OURS} | variables
    line = [sys.executable, "-m", "tests.perf.waiting_threads", "--child", f"--steps={steps}", f"--size={size}", f"--batch={batch}"]
    wall, cpu = json.loads(subprocess.run(line, env=env, check=True, stdout=subprocess.PIPE).stdout)
    return wall, cpu


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def report(busy: int, seconds: dict[str, list[Seconds]]) -> None:
    print(f"beside {busy} busy process(es)        wall s (range)         CPU s   ratio to default")
    for name, rows in seconds.items():
        wall, cpu = [row[0] for row in rows], [row[1] for row in rows]
        ratios = [a[0] / b[0] for a, b in zip(rows, seconds["default"], strict=True)]
        spread = f"{statistics.median(wall):6.2f} ({min(wall):.2f}-{max(wall):.2f})"
        print(f"  {name:24}  {spread:24}  {statistics.median(cpu):6.2f}   {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
