"""The device of a process: what `--device` means for every command."""

import re
import sys

import torch

from encoders.runtime import dist
from encoders.runtime.cli import DEVICE_HELP
from encoders.runtime.cpus import count_allowed_cpus
from encoders.runtime.errors import InputError
from encoders.runtime.gpu_faults import explain_missing_kernels, explain_unusable_gpu, find_given_gpus
from encoders.runtime.launcher import local_rank, local_ranks

CPU_ADVICE = "to run on the CPU on purpose, pass --device cpu"


def resolve_device(name: str | None = None, *, fall_back: bool = False) -> str:
    """The device that `name` means in this process, as cpu, mps or cuda:N; a GPU is made the current one and has run a kernel.

    name: cpu, cuda, cuda:N, mps or auto; None: auto.  `auto` never takes mps, which has no float64.
    fall_back: `auto` takes the CPU also where a GPU was given that torch cannot use, which is an error otherwise.

    Raises InputError for what is no device, or cannot be used here; it names what can."""
    name = name or "auto"
    parsed = re.fullmatch(r"(auto|cpu|mps)|cuda(?::(\d+))?", name)
    if not parsed:
        raise InputError(f"--device {name!r} is not a device; use {DEVICE_HELP}. Here: {', '.join(list_devices())}")
    if name == "cpu":
        return name
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise InputError(f"--device mps: torch finds no GPU of Apple here. Here: {', '.join(list_devices())}")
        return name
    if name == "auto" and not torch.cuda.is_available():
        given = None if fall_back else find_given_gpus()
        if given:
            raise InputError(f"a GPU is here ({given}), but {explain_unusable_gpu()} Or {CPU_ADVICE}")
        return "cpu"
    if not torch.cuda.is_available():
        given = find_given_gpus()
        reason = f"a GPU is here ({given}), but {explain_unusable_gpu()}" if given else f"this machine has no GPU ({_describe_build()})."
        raise InputError(f"--device {name}: {reason} Or {CPU_ADVICE}")
    try:
        return _take_gpu(name, None if parsed[2] is None else int(parsed[2]))
    except InputError:
        if name == "auto" and fall_back:
            return "cpu"
        raise


def _take_gpu(name: str, number: int | None) -> str:
    """`cuda:N`, made the current device.  number: N if it was given; None: that of this process's rank on its node."""
    count, ranks = torch.cuda.device_count(), local_ranks()
    own = local_rank() % count  # all GPUs of the node are visible, or one where the cluster binds them
    index = own if number is None else number
    if index >= count:
        raise InputError(f"--device {name}: there is no such GPU. Here: {', '.join(list_devices())}")
    if ranks > 1 and index != own:
        raise InputError(f"--device {name} names one GPU for the {ranks} processes on this node; with --device cuda each has its own")
    if 1 < count < ranks:
        raise InputError(f"the {ranks} processes on this node would share {count} GPUs; start one process per GPU")
    try:
        torch.cuda.set_device(index)
        torch.zeros(1, device=f"cuda:{index}").add_(1).item()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        if "no kernel image" in reason:
            reason = explain_missing_kernels(index)
        raise InputError(f"cuda:{index} ({torch.cuda.get_device_name(index)}) cannot be used: {reason}. Or {CPU_ADVICE}") from error
    return f"cuda:{index}"


def list_devices() -> list[str]:
    """The devices that torch can use here, with the names of GPUs."""
    gpus = [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    return [*gpus, *(["mps"] if torch.backends.mps.is_available() else []), "cpu"]


def describe_device(device: str | torch.device) -> str:
    """`cuda:0 (NVIDIA H200, 139.8 GiB, CUDA 13.0), 16 CPUs`, and how many processes are like this one."""
    place, cpus, world = torch.device(device), count_allowed_cpus(), dist.world_size()
    text = str(place)
    if place.type == "cuda":
        properties = torch.cuda.get_device_properties(place)
        text += f" ({properties.name}, {properties.total_memory / 2**30:.1f} GiB, {_describe_build()})"
    text += f", {cpus} CPU{'s' if cpus > 1 else ''}"
    return text + (f", in each of {world} processes" if world > 1 else "")


def announce_device(device: str | torch.device) -> None:
    """Prints the device on standard error, once for all processes."""
    if dist.is_main():
        print(f"device: {describe_device(device)}", file=sys.stderr, flush=True)


def _describe_build() -> str:
    """What torch is built for."""
    hip = f"ROCm {torch.version.hip}" if torch.version.hip else f"torch {torch.__version__} is built without CUDA"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else hip
