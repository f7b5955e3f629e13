"""Settings of a run by several processes."""

from pydantic import Field

from encoders.runtime.config import Config


class DDPConfig(Config):
    """How the processes of a run (DDP) wait for each other."""

    timeout_min: float = Field(
        10,
        gt=0,
        description="minutes that a process waits for the others, at the start and in each exchange, before the run ends with an error; "
        "raise it if one process legitimately takes longer, e.g. to compile or to probe a large corpus",
    )
