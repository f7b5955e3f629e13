"""One run of the checks: the device, the sizes, the time that is left, and what was found, written to a JSON file after every stage."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Result = dict[str, Any]


@dataclass
class GpuSession:
    """What the stages share. tiny: small sizes.  as_cuda: a CPU takes the code path of a CUDA device.  budget: seconds for all stages.

    A stage reports numbers by returning them, and a defect by `flag`: a number that is not what it should be."""

    device: torch.device
    home: Path
    out: Path | None = None
    tiny: bool = False
    as_cuda: bool = False
    budget: float = 440.0
    stages: dict[str, Result] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    @property
    def workers(self) -> int:
        """Loader processes of the stages that measure speed."""
        return 1 if self.tiny else max(1, min(8, self.cores - 1))

    @property
    def failed(self) -> list[str]:
        """The stages that raised an error."""
        return [name for name, result in self.stages.items() if result.get("ok") is False]

    def seconds_left(self) -> float:
        return self.budget - (time.perf_counter() - self.started)

    def sync(self) -> None:
        """Waits for the device."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def flag(self, defect: str) -> None:
        """Reports a defect."""
        self.defects.append(defect)

    def run_stage(self, name: str, stage: Callable[["GpuSession"], Result], needs: float = 5.0) -> None:
        """Runs a stage and writes the results so far. needs: seconds below which it is skipped, and the skip is written down.

        An error is kept with its traceback, and the next stage can run; Ctrl-C and SIGINT end the session after writing."""
        if self.seconds_left() < needs:
            self.stages[name] = {"skipped": f"{self.seconds_left():.0f} s left of {self.budget:.0f}, needs {needs:.0f}"}
            self.write()
            return
        started, found = time.perf_counter(), len(self.defects)
        try:
            result = {"ok": True, **stage(self)}
            self.sync()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"[:600]
            result = {"ok": False, "error": text, "traceback": traceback.format_exc()[-3000:]}
            self.flag(f"{name}: {text}")
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            result["seconds"] = round(time.perf_counter() - started, 1)
            self.stages[name] = result
            self.write()
        new = self.defects[found:]
        words = f"{len(new)} defect{'s' if len(new) > 1 else ''}, first: {new[0]}" if new else "ok"
        print(f"[{time.perf_counter() - self.started:5.0f} s] {name} ({result['seconds']} s): {words}", file=sys.stderr, flush=True)

    def write(self) -> None:
        """Writes the results so far."""
        if self.out is not None:
            content = {"seconds": round(time.perf_counter() - self.started, 1), "defects": self.defects, "stages": self.stages}
            part = self.out.with_name(f".{self.out.name}.part")
            part.write_text(json.dumps(content, indent=1, default=float) + "\n")
            part.replace(self.out)

    def milliseconds(self, work: Callable[[], object], repeats: int = 10, warm_up: int = 3) -> float:
        """Mean time of `work`, with the device's."""
        for _ in range(warm_up):
            work()
        self.sync()
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        self.sync()
        return 1e3 * (time.perf_counter() - started) / repeats


@contextmanager
def cuda_code_path(session: GpuSession, on: bool = True) -> Iterator[None]:
    """Inside the block a CPU takes the code path of a CUDA device, if the session asks for it.

    Every module that has imported one of the questions gets the answer `yes`."""
    if not (session.as_cuda and on):
        yield
        return
    questions = ("uses_dense_matrices", "prepares_on_device")
    modules = [module for name, module in sys.modules.items() if name.startswith("encoders.")]
    found = [(module, question) for module in modules for question in questions if question in vars(module)]
    assert found, "import what is tested before"
    before = [getattr(module, question) for module, question in found]
    for module, question in found:
        setattr(module, question, lambda device: True)
    try:
        yield
    finally:
        for (module, question), own in zip(found, before, strict=True):
            setattr(module, question, own)


def relative_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|, in float64 on the host."""
    a, b = a.detach().double().flatten().cpu(), b.detach().double().flatten().cpu()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))
