"""What a training step costs on this machine: its time and the peak memory, measured by steps on real images, which are discarded.

The steps have the run's own micro-batch, optimizer and number of threads. Where the system cannot reset the peak memory of a process (it
is Linux that can), a process of its own takes them. Where the steps would take long or not fit into memory, two small batches are measured
and extrapolated; the cost says so.
"""

import json
import math
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import SupportsFloat

import torch
from pydantic import Field

from encoders.runtime.allocator import keep_freed_memory, release_freed_memory
from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from encoders.runtime.peak_memory import available_memory, peak_memory, reset_peak_memory
from encoders.runtime.stop import StopRequest
from pretrain.loop.setup import Setup, build_setup
from pretrain.loop.train import TrainState, fit
from pretrain.recipe.config import Recipe

MOST_TIMED_STEPS, FEWEST_TIMED_STEPS = 4, 2  # after one that is not counted: it allocates memory and compiles
BUDGET_S = 60.0  # for the fewest steps at the run's own batch; a batch that needs more is extrapolated
MORE_STEPS_S = 2.0  # steps beyond the fewest are taken while all together need less
FEWEST_TRIAL_STEPS = 1
TRIALS = (8, 16)  # images of the batches that are measured first where the own batch has more than twice as many
TWO_MICRO_BATCHES = 2  # the gradients of the first are kept during the second: more would take no more memory


class StepCost(Config):
    """Time and memory of a step."""

    seconds: list[float] = Field(description="of each timed step, all micro-batches included")
    waited: float = Field(description="share of the time spent waiting for images")
    cpu_share: float | None = Field(None, description="CPU time of the steps over the time of all CPU threads; None on a GPU")
    memory: float = Field(description="GiB at the peak: of the process, or of the GPU")
    available: float | None = Field(None, description="GiB that were available before; None where unknown")
    extrapolated: str | None = Field(None, description="why the run's own batch was not measured; None if it was")
    took: float = Field(0.0, description="seconds of the measurement")

    @property
    def median(self) -> float:
        """Seconds of a step."""
        return statistics.median(self.seconds)


class MeasurementRequest(Config):
    """What the measuring process is asked."""

    recipe: Recipe
    device: str
    threads: int
    budget: float


def measure_step_cost(recipe: Recipe, device: str, budget: float = BUDGET_S) -> StepCost:
    """The cost of a step of `recipe`, whose open settings are filled in.

    Raises InputError for what `pretrain run` would refuse, and if a step does not fit into memory."""
    started = time.perf_counter()
    request = MeasurementRequest(recipe=recipe, device=device, threads=recipe.threads or torch.get_num_threads(), budget=budget)
    cost = measure_here(request) if torch.device(device).type == "cuda" or reset_peak_memory() else _measure_in_own_process(request)
    return cost.model_copy(update={"took": time.perf_counter() - started})


def _measure_in_own_process(request: MeasurementRequest) -> StepCost:
    """`measure_here` in a new process, whose error messages are shown."""
    command = [sys.executable, "-c", f"from {__name__} import answer_request; answer_request()"]
    done = subprocess.run(command, input=request.model_dump_json(), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode == 2:  # what the user can correct
        raise InputError(json.loads(done.stdout.splitlines()[-1]))
    if done.returncode < 0:
        raise InputError(
            f"the process that measured {_micro_batch(request.recipe)} images per micro-batch was ended by signal {-done.returncode}: "
            "probably they do not fit into memory; raise accumulate, lower batch, or set checkpointing=true"
        )
    done.check_returncode()
    return StepCost.model_validate_json(done.stdout.splitlines()[-1])


def answer_request() -> None:
    """The measuring process: a request on standard input, a cost on standard output."""
    keep_freed_memory()  # as every command does: freed memory stays in the process
    request = MeasurementRequest.model_validate_json(sys.stdin.read())
    torch.set_num_threads(request.threads)
    try:
        print(measure_here(request).model_dump_json())
    except InputError as error:
        print(json.dumps(str(error)))
        raise SystemExit(2) from None


def measure_here(request: MeasurementRequest) -> StepCost:
    """The cost of a step, measured in this process."""
    recipe, device = request.recipe, torch.device(request.device)
    if device.type == "cpu":
        release_freed_memory()
        reset_peak_memory()  # importing and loading may have taken more than the small batches
    whole = _at_batch(recipe, _micro_batch(recipe), min(recipe.accumulate, TWO_MICRO_BATCHES))
    factor = recipe.batch / whole.batch
    available = _available(device)
    reason, small = None, []
    if device.type == "cpu" and whole.batch > 2 * TRIALS[-1]:
        small = [_time_steps(build_setup(_at_batch(recipe, n, 1), request.device), FEWEST_TRIAL_STEPS, math.inf) for n in TRIALS]
        reason = _reason_to_extrapolate(small, whole, request.budget, available)
    if reason:
        memory, seconds = _extrapolate_memory(small, _micro_batch(recipe)), [s * recipe.batch / TRIALS[-1] for s in small[-1].seconds]
        changes = {"seconds": seconds, "memory": memory, "available": available, "extrapolated": reason}
        return small[-1].model_copy(update=changes)
    cost = _time_steps(build_setup(whole, request.device), MOST_TIMED_STEPS, min(request.budget, MORE_STEPS_S))
    return cost.model_copy(update={"seconds": [s * factor for s in cost.seconds], "available": available})


def _reason_to_extrapolate(small: list[StepCost], whole: Recipe, budget: float, available: float | None) -> str | None:
    """Why the steps of `whole` are not taken; None if they are."""
    seconds = (FEWEST_TIMED_STEPS + 1) * small[-1].median * whole.batch / TRIALS[-1]
    memory = _extrapolate_memory(small, _micro_batch(whole))
    if available is not None and memory > 0.9 * available:  # 0.9: the estimate errs, and other processes need memory
        return f"about {memory:.1f} GiB would not fit into the {available:.1f} GiB available"
    return f"its steps would take about {seconds:.0f} s" if seconds > budget else None


def _extrapolate_memory(small: list[StepCost], batch: int) -> float:
    """GiB at `batch` images per micro-batch, on the line through both trials."""
    first, second = (cost.memory for cost in small)
    return second + max(second - first, 0.0) * (batch - TRIALS[1]) / (TRIALS[1] - TRIALS[0])


def _micro_batch(recipe: Recipe) -> int:
    return recipe.batch // recipe.accumulate


def _at_batch(recipe: Recipe, micro_batch: int, accumulate: int) -> Recipe:
    return recipe.model_copy(update={"batch": micro_batch * accumulate, "accumulate": accumulate, "log_every": 1})


def _available(device: torch.device) -> float | None:
    """GiB that are free now."""
    return torch.cuda.mem_get_info(device)[0] / 2**30 if device.type == "cuda" else available_memory()


def _time_steps(setup: Setup, most: int, budget: float) -> StepCost:
    """The cost of the steps of `setup`: at most `most`, and no more than the fewest once they have taken `budget` seconds."""
    marks: list[tuple[float, float, float]] = []  # wall clock, waiting for images, CPU time of all threads
    stop, on_gpu = StopRequest(), setup.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(setup.device)

    def log(step: int, **metrics: SupportsFloat) -> None:
        if on_gpu:
            torch.cuda.synchronize(setup.device)
        marks.append((time.perf_counter(), setup.batches.waited, time.process_time()))
        done, elapsed = len(marks) - 1, marks[-1][0] - marks[0][0]
        stop.requested = "timed" if done >= most or (done >= FEWEST_TIMED_STEPS and elapsed * (done + 1) / done > budget) else None

    try:
        fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, max(setup.steps, most + 2), setup.warmup,
            TrainState(), log, lambda state: None, stop, setup.device, setup.continuation)  # fmt: skip
    except torch.OutOfMemoryError:
        raise InputError(
            f"a micro-batch of {_micro_batch(setup.recipe)} images does not fit into GPU memory; raise accumulate or lower batch"
        ) from None
    finally:
        setup.batches.close()
    seconds = [b[0] - a[0] for a, b in pairwise(marks)]
    elapsed, waited, cpu = (last - first for first, last in zip(marks[0], marks[-1], strict=True))
    return StepCost(
        seconds=seconds,
        waited=min(waited / elapsed, 1.0),
        cpu_share=None if on_gpu else min(cpu / (elapsed * torch.get_num_threads()), 1.0),
        memory=torch.cuda.max_memory_allocated(setup.device) / 2**30 if on_gpu else peak_memory(),
    )
