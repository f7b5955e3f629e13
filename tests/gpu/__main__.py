"""`python -m tests.gpu`: every path that a GPU takes, checked against the CPU, and its speed. One JSON, written after every stage.

    python -m tests.gpu --out gpu.json             # on a GPU: about eight minutes on one H200
    python -m tests.gpu --dry                      # on a CPU: the same lines at tiny sizes, the code path of a device forced
    python -m tests.gpu --only methods,resume      # some stages
    python -m tests.gpu --list

Exit status: 0 all is as it should be, 1 a stage failed or found a defect, 2 wrong usage or no GPU.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.gpu.session import GpuSession


class Stage(NamedTuple):
    """A stage and the seconds below which it is not started."""

    run: Callable[..., dict]
    needs: float = 5.0


def list_stages() -> dict[str, Stage]:
    """The stages in their order: correctness first, so that a run that is cut off has it."""
    from tests.gpu import stage_augment, stage_feed, stage_loop, stage_machine, stage_methods, stage_speed, stage_transfer

    speed = {f"speed: {name}": Stage(partial(stage_speed.measure_shape, name=name), 25.0) for name in stage_speed.SHAPES}
    return {
        "machine": Stage(stage_machine.describe_machine),
        "devices": Stage(stage_machine.check_device_names),
        "augment": Stage(stage_augment.compare_augmentation),
        "batches": Stage(stage_augment.compare_batches),
        "methods": Stage(stage_methods.compare_losses, 20.0),
        "loop": Stage(stage_methods.compare_steps, 20.0),
        "waits": Stage(stage_loop.find_host_waits, 20.0),
        "resume": Stage(stage_loop.compare_resumed_runs, 15.0),
        "embed": Stage(stage_transfer.compare_features),
        "forward": Stage(stage_transfer.measure_forward_precisions),
        "finetune": Stage(stage_transfer.compare_fine_tuning),
        **speed,
        "embed speed": Stage(stage_transfer.measure_embedding, 25.0),
        "finetune speed": Stage(stage_transfer.measure_fine_tuning, 25.0),
        "feed": Stage(stage_feed.measure_feed, 15.0),
        "watchdog": Stage(stage_feed.measure_watchdog, 10.0),
        "compile": Stage(stage_speed.measure_compilation, 75.0),
    }


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """The options. Exits with status 2 for a wrong one."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file of the results (default: gpu.json)")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N (default: cuda)")
    parser.add_argument("--budget", type=float, default=440.0, help="seconds after which no stage is started (default: 440)")
    parser.add_argument("--only", default=None, metavar="STAGE,...", help="stages to run; `speed` names all whose name begins with it")
    parser.add_argument("--dry", action="store_true", help="on a CPU, at tiny sizes, with the code path of a CUDA device")
    parser.add_argument("--list", action="store_true", help="list the stages")
    return parser.parse_args(arguments)


def choose_stages(stages: dict[str, Stage], only: str | None) -> dict[str, Stage]:
    """The stages whose name is, or begins with, one of the given words. Raises SystemExit for a word that names none."""
    if only is None:
        return stages
    words = [word.strip() for word in only.split(",") if word.strip()]
    for word in words:
        if not any(name.startswith(word) for name in stages):
            print(f"no stage is called {word!r}; stages: {', '.join(stages)}", file=sys.stderr)
            raise SystemExit(2)
    return {name: stage for name, stage in stages.items() if name.startswith(tuple(words))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the stages; returns the exit status."""
    given = parse_arguments(sys.argv[1:] if arguments is None else arguments)
    home = Path(tempfile.mkdtemp(prefix="isograft-gpu-"))
    # Before torch: nothing of the checks may end up in the user's folders or in W&B.
    os.environ |= {"ISOGRAFT_HOME": str(home), "ISOGRAFT_CACHE": str(home / "cache"), "WANDB_MODE": "disabled", "ISOGRAFT_OFFLINE": "1"}
    import torch

    from tests.gpu.session import GpuSession

    if given.list:
        print("\n".join(list_stages()))
        return 0
    if not given.dry and not torch.cuda.is_available():
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        print(f"error: torch {torch.__version__} ({built}) finds no GPU here, so nothing was checked.", file=sys.stderr)
        print("On a CPU, run the dry run: make test-gpu-dry", file=sys.stderr)
        return 2
    if given.dry:
        torch.set_num_threads(1)
        device = torch.device("cpu")
    else:
        from encoders.runtime.devices import resolve_device

        device = torch.device(resolve_device(given.device))
    budget = max(given.budget, 3600.0) if given.dry else given.budget
    session = GpuSession(device, home, given.out, tiny=given.dry, as_cuda=given.dry, budget=budget)
    for name, stage in choose_stages(list_stages(), given.only).items():
        session.run_stage(name, stage.run, stage.needs)
    return report(session)


def report(session: "GpuSession") -> int:
    """Prints the defects and the file; returns the exit status."""
    for defect in session.defects:
        print(f"defect: {defect}", file=sys.stderr)
    skipped = [name for name, result in session.stages.items() if "skipped" in result]
    if skipped:
        print(f"skipped for lack of time: {', '.join(skipped)}; run them with --only", file=sys.stderr)
    print(f"{session.out}: {len(session.stages)} stages, {len(session.defects)} defects")
    return 1 if session.defects or session.failed else 0


if __name__ == "__main__":
    sys.exit(main())
