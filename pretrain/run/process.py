"""This process before it works on a run: its device, CPU threads and process group, and where it prints."""

import os
import sys
from collections.abc import Callable

import torch

from encoders.runtime import dist
from encoders.runtime.errors import InputError

PrintLine = Callable[[str], None]


def print_on_main_rank(text: str) -> None:
    """Prints a line on standard error, on rank 0 only."""
    if dist.is_main():
        print(text, file=sys.stderr, flush=True)


def pick_device(device: str | None) -> str:
    """`device`, or by default the GPU of this rank if there is one. Raises InputError for an invalid or missing device."""
    try:
        torch.device(device or "cpu")
    except RuntimeError as error:
        raise InputError(f"--device {device!r} is not a device; use cpu, cuda, or cuda:1 for the second GPU") from error
    if device and device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"--device {device}: torch finds no usable CUDA device on this machine; use --device cpu")
    return device or (dist.local_gpu() if torch.cuda.is_available() else "cpu")


def prepare_process(device: str | None, threads: int | None) -> str:
    """Joins the process group, sets the number of CPU threads, and returns the device in use."""
    device = pick_device(device)
    dist.join_process_group(device)
    torch.set_num_threads(threads or allowed_cpus())
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    return device


def allowed_cpus() -> int:
    """OMP_NUM_THREADS if it is set, otherwise the number of CPUs that this process may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or 0) or len(os.sched_getaffinity(0))
