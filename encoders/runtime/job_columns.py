"""Where a run or a result was computed, without names of nodes: the model of the GPU and the SLURM job."""

import os

SLURM_VARIABLES = {
    "job": "SLURM_JOB_ID",
    "array_job": "SLURM_ARRAY_JOB_ID",
    "array_task": "SLURM_ARRAY_TASK_ID",
    "restarts": "SLURM_RESTART_COUNT",
}


def describe_slurm_job() -> dict[str, str]:
    """The SLURM job of this process; {} outside SLURM."""
    return {key: os.environ[name] for key, name in SLURM_VARIABLES.items() if os.environ.get(name)}


def name_gpu(device: str) -> str:
    """The model of a CUDA device, e.g. `NVIDIA H200`; "" for any other device."""
    if not device.startswith("cuda"):
        return ""
    import torch

    return str(torch.cuda.get_device_name(device))


def describe_computing_place(device: str) -> dict[str, str]:
    """`gpu` and `slurm_job`, as far as there are any; an element of an array as `JOB_ELEMENT`."""
    job = describe_slurm_job()
    number = f"{job['array_job']}_{job.get('array_task', '')}" if "array_job" in job else job.get("job", "")
    return {key: value for key, value in {"gpu": name_gpu(device), "slurm_job": number}.items() if value}
