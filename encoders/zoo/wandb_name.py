"""Names of W&B artifacts: `wandb:ENTITY/PROJECT/NAME` and `wandb:ENTITY/PROJECT/NAME:VERSION`."""

import re
from typing import NamedTuple

from encoders.runtime.errors import InputError

WANDB_PREFIX = "wandb:"
ARTIFACT_PATTERN = re.compile(r"(?P<entity>[\w.-]+)/(?P<project>[\w.-]+)/(?P<name>[\w.-]+)(?::(?P<version>[\w.-]+))?")


class ArtifactName(NamedTuple):
    """An artifact, and a version (v3) or alias (latest)."""

    entity: str
    project: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.entity}/{self.project}/{self.name}" + (f":{self.version}" if self.version else "")


def parse_artifact_name(text: str) -> ArtifactName:
    """The artifact in `wandb:ENTITY/PROJECT/NAME[:VERSION]`. Raises InputError for another form."""
    found = ARTIFACT_PATTERN.fullmatch(text.removeprefix(WANDB_PREFIX))
    if found is None:
        raise InputError(f"{text!r} is not a W&B artifact; write {WANDB_PREFIX}ENTITY/PROJECT/NAME:VERSION, e.g. :latest or :v3")
    return ArtifactName(found["entity"], found["project"], found["name"], found["version"])
