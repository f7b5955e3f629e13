"""What `torchrun` and `srun` say about this process, from their environment variables; known before any process group exists."""

import os
import re


def srun_variable(name: str) -> str | None:
    """A variable of SLURM, only inside a step that `srun` started: an sbatch script has SLURM_NTASKS too, and is one process."""
    return os.environ.get(name) if "SLURM_STEP_ID" in os.environ and "MASTER_ADDR" in os.environ else None


def is_srun_task() -> bool:
    """Whether this process is a task of `srun`, and was not started by torchrun inside one."""
    return "LOCAL_WORLD_SIZE" not in os.environ and srun_variable("SLURM_NTASKS") is not None


def local_rank() -> int:
    """The index of this process on its node."""
    return int(os.environ.get("LOCAL_RANK") or srun_variable("SLURM_LOCALID") or 0)


def local_ranks() -> int:
    """The number of processes on this node, 1 for a single process."""
    if own := os.environ.get("LOCAL_WORLD_SIZE"):
        return max(1, int(own))
    per_node = expand_counts(srun_variable("SLURM_STEP_TASKS_PER_NODE") or srun_variable("SLURM_TASKS_PER_NODE") or "")
    node = int(srun_variable("SLURM_NODEID") or 0)
    return per_node[node] if node < len(per_node) else 1


def expand_counts(text: str) -> list[int]:
    """`2(x3),1` of SLURM as [2, 2, 2, 1]; a part that cannot be read ends the list."""
    counts: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if not match:
            break
        counts += [int(match[1])] * int(match[2] or 1)
    return counts
