"""This process before it works on a run: its device, CPU threads and process group, and where it prints."""

import os
import sys
from collections.abc import Callable

import torch

from encoders.runtime import dist
from encoders.runtime.cpu_load import count_free_cpus
from encoders.runtime.cpus import count_allowed_cpus
from encoders.runtime.devices import resolve_device

PrintLine = Callable[[str], None]


def print_on_main_rank(text: str) -> None:
    """Prints a line on standard error, on rank 0 only."""
    if dist.is_main():
        print(text, file=sys.stderr, flush=True)


def prepare_process(device: str | None, threads: int | None, timeout_min: float = dist.TIMEOUT_MIN) -> str:
    """Joins the process group, sets the number of CPU threads, and returns the device in use.  timeout_min: see `join_process_group`."""
    device = resolve_device(device)
    dist.join_process_group(device, timeout_min)
    torch.set_num_threads(choose_threads(threads, device))
    if device.startswith("cuda"):  # the sizes of a run are the same in every step: the fastest convolution is searched once for each
        torch.backends.cudnn.benchmark = not (torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled())
    return device


def choose_threads(wanted: int | None, device: str) -> int:
    """`wanted`, else OMP_NUM_THREADS if it is set, else the CPUs of this process; on a CPU those that no other process uses now."""
    chosen = wanted or int(os.environ.get("OMP_NUM_THREADS") or 0)
    if chosen or device != "cpu":
        return chosen or count_allowed_cpus()
    free, allowed = count_free_cpus(), count_allowed_cpus()
    if free < allowed:
        busy = allowed - free
        print_on_main_rank(f"note: threads={free}, because other processes use {busy} of {allowed} CPUs; set threads={allowed} to take all")
    return free
