"""GPUs that this process was given and torch cannot use: how they are recognised, why, and which driver or wheel helps."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import torch

DRIVER_FOLDER = Path("/proc/driver/nvidia")  # exists where the kernel module of NVIDIA is loaded
HIDDEN_GPUS = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES; SLURM gives the last one to jobs without GPUs
GPU_LISTS = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")  # indices: 0 is the first GPU
GPU_COUNTS = ("SLURM_GPUS_ON_NODE", "SLURM_GPUS", "SLURM_GPUS_PER_NODE", "SLURM_GPUS_PER_TASK")
NO_DEVICES = 6  # exit status of nvidia-smi on a machine without GPUs
Version = tuple[int, ...]


class CudaWheel(NamedTuple):
    """The wheels of torch for one major version of CUDA."""

    tag: str  # name of the package index of PyTorch
    driver: Version  # the oldest driver that runs them
    note: str = ""


# Source: NVIDIA, CUDA Compatibility, table of minor version compatibility (Linux).
WHEELS = {
    13: CudaWheel("cu130", (580, 65, 6)),
    12: CudaWheel("cu126", (525, 60, 13)),
    11: CudaWheel("cu118", (450, 80, 2), ", which has torch up to 2.7"),
}


def find_given_gpus() -> str | None:
    """What says that this process has a GPU, in words; None if nothing does.

    In a job of SLURM its variables decide, elsewhere the driver. An empty CUDA_VISIBLE_DEVICES hides GPUs on purpose."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return None if visible.split(",")[0].strip() in HIDDEN_GPUS else f"CUDA_VISIBLE_DEVICES={visible}"
    named = [*((name, HIDDEN_GPUS) for name in GPU_LISTS), *((name, {"", "0"}) for name in GPU_COUNTS)]
    for name, without in named:
        if (value := os.environ.get(name, "").strip()) not in without:
            return f"{name}={value}"
    if "SLURM_JOB_ID" in os.environ:
        return None  # a job that asked for no GPU, perhaps on a node that has some
    if (DRIVER_FOLDER / "version").exists():
        return f"{DRIVER_FOLDER} exists"
    return _ask_nvidia_smi()[0]


def explain_unusable_gpu() -> str:
    """Why torch can use no GPU here, and what to install: sentences."""
    build, driver = torch.version.cuda, read_driver_version()
    if build is None and torch.version.hip is None:
        return f"this torch ({torch.__version__}) is built without CUDA. {advise_wheel(driver)}"
    needed = WHEELS.get(int(build.partition(".")[0])) if build else None
    if needed and driver and driver < needed.driver:
        return (
            f"its driver is {format_version(driver)}, and this torch ({torch.__version__}, built for CUDA {build}) needs driver "
            f"{format_version(needed.driver)} or newer. Update the driver, or keep it: {advise_wheel(driver)}"
        )
    reason = f"torch {torch.__version__} says: {_ask_torch()}"
    if needed and not driver:
        return (
            f"{reason}. No loaded driver is found; torch for CUDA {build} needs driver {format_version(needed.driver)} or newer. "
            f"{advise_wheel(None)}"
        )
    return f"{reason}. `nvidia-smi` says whether the GPU works; restart the job on another node if it does not."


def explain_missing_kernels(index: int) -> str:
    """Why kernels do not run on GPU `index`, which torch sees, and what to install."""
    capability = torch.cuda.get_device_capability(index)
    built = ", ".join(torch.cuda.get_arch_list())
    return (
        f"this torch ({torch.__version__}) holds no code for its architecture sm_{capability[0]}{capability[1]} (it has {built}). "
        "Install torch and torchvision from another package index of PyTorch: older GPUs have cu126 and cu118, the newest need the newest"
    )


def advise_wheel(driver: Version | None) -> str:
    """Which wheel runs with `driver`; None: which wheel needs which driver."""
    if driver is None:
        each = "; ".join(f"{wheel.tag} needs driver {format_version(wheel.driver)} or newer{wheel.note}" for wheel in WHEELS.values())
        return f"Install torch and torchvision from the package index of PyTorch that suits the driver: {each}."
    wheel = next((wheel for wheel in WHEELS.values() if driver >= wheel.driver), None)
    if wheel is None:
        return f"No wheel of torch runs with driver {format_version(driver)}: update it to {format_version(WHEELS[12].driver)} or newer."
    return f"Install torch and torchvision from PyTorch's package index {wheel.tag}{wheel.note}; it runs with this driver."


def read_driver_version() -> Version | None:
    """The version of the loaded driver, e.g. (535, 104, 5); None if there is none or it is not known."""
    try:
        text = (DRIVER_FOLDER / "version").read_text()
    except OSError:
        text = _ask_nvidia_smi()[1]
    found = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return tuple(map(int, found[1].split("."))) if found else None


def format_version(version: Version) -> str:
    """As NVIDIA writes it: 525.60.13, 580.65.06."""
    return ".".join([str(version[0]), *(f"{part:02}" for part in version[1:])])


def _ask_nvidia_smi() -> tuple[str | None, str]:
    """What nvidia-smi says about GPUs (None: there are none, or no nvidia-smi), and the driver's version ("": not known)."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None, ""
    try:
        done = subprocess.run(
            [command, "--query-gpu=driver_version,name", "--format=csv,noheader"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"nvidia-smi exists and does not answer: {error}", ""
    if done.returncode == NO_DEVICES:
        return None, ""
    answer = (done.stdout.strip() or done.stderr.strip() or "it exists").splitlines()[0]
    return f"nvidia-smi: {answer}", answer if done.returncode == 0 else ""


def _ask_torch() -> str:
    """The first line of the error with which torch refuses a GPU."""
    try:
        torch.zeros(1, device="cuda")
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0].rstrip(".")
    return "a GPU works now"
