"""The exported encoder as a W&B artifact, without paths and without the manifest, which names patients."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.redact import redact_private

if TYPE_CHECKING:
    import wandb


def build_model_artifact(name: str, folder: Path, metadata: Mapping[str, object], scratch: Path) -> "wandb.Artifact":
    """The exported encoder as an artifact: the weights, and the card without paths. The manifest, which names patients, is not included.

    W&B sends the local path of every file, so each is addressed through `scratch`, a folder with a neutral name."""
    import wandb
    import yaml

    artifact = wandb.Artifact(name, type="model", metadata=redact_private(metadata))
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*.yaml"))):
        alias = scratch / path.name
        if path.suffix == ".yaml":
            alias.write_text(yaml.safe_dump(redact_private(yaml.safe_load(path.read_text())), sort_keys=False))
        else:
            alias.symlink_to(path.absolute())
        artifact.add_file(str(alias), name=path.name, policy="immutable", skip_cache=True)  # no copy in the home folder
    return artifact


def make_neutral_folder() -> str:
    """A new temporary folder outside home folders, where possible."""
    return tempfile.mkdtemp(prefix="isograft-", dir=next((d for d in ("/tmp", "/var/tmp") if os.access(d, os.W_OK)), None))
