"""The container in which a job runs its commands: apptainer (or singularity), or enroot by the SLURM plugin pyxis."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from encoders.runtime import paths
from encoders.runtime.config import Config


class Container(Config):
    """The image whose `pretrain` and `transfer` a job runs, and the folders that are visible in it."""

    image: str = Field(
        min_length=1, description="file of the image, or its address, e.g. docker://... (apptainer), registry#name:tag (pyxis)"
    )
    runtime: Literal["apptainer", "singularity", "pyxis"] = Field("apptainer", description="what starts it")
    mounts: list[str] = Field([], description="folders visible in the container, SOURCE or SOURCE:TARGET; the working folder always is")
    options: list[str] = Field([], description="further options of `apptainer exec`, or with pyxis of `srun`")

    @field_validator("image", "mounts")
    @classmethod
    def _check_paths(cls, value: str | list[str]) -> str | list[str]:
        for text in [value] if isinstance(value, str) else value:
            if text.startswith("$"):
                raise ValueError(f"variables are not expanded here ({text}); write the path, or ~ for your home folder")
            if "\n" in text or not text:
                raise ValueError("expected one path in each element")
        return value

    @field_validator("options")
    @classmethod
    def _check_options(cls, value: list[str]) -> list[str]:
        return [word for text in value for word in shlex.split(text)]

    @model_validator(mode="after")
    def _check_runtime(self) -> "Container":
        if self.runtime != "pyxis" and "#" in self.image and not Path(self.image).expanduser().exists():
            raise ValueError(f"{self.image} is written as an image of enroot; add runtime: pyxis, or write docker://... for {self.runtime}")
        for mount in self.mounts:
            _check_mountable(mount, self.runtime, parts=3)
        return self


def container_lines(container: Container, gpus: bool) -> list[str]:
    """The lines of a job script that define the words before its commands.  gpus: whether the job has any.

    Raises ValueError for a working folder that the runtime cannot mount."""
    folders = list(dict.fromkeys([str(paths.home_dir()), str(Path.cwd())]))
    for folder in folders:
        _check_mountable(folder, container.runtime, parts=1)
    mounts = [*folders, *(_expand_path(mount) for mount in container.mounts)]
    if container.runtime == "pyxis":
        image = _expand_path(container.image)
        entries = ",".join(mount if ":" in mount else f"{mount}:{mount}" for mount in mounts)
        words = [f"--container-image={image}", f"--container-mounts={entries}", f"--container-workdir={Path.cwd()}", *container.options]
        return [_assign_array("SRUN_OPTIONS", words)]
    image = container.image if "://" in container.image else str(paths.home_dir() / _expand_path(container.image))
    words = [container.runtime, "exec", *(["--nv"] if gpus else []), *(word for mount in mounts for word in ("--bind", mount))]
    return [_assign_array("CONTAINER", [*words, "--pwd", str(Path.cwd()), *container.options, image])]


def _assign_array(name: str, words: Sequence[str]) -> str:
    return f"{name}=({shlex.join(words)})"


def _expand_path(text: str) -> str:
    return str(Path("~").expanduser()) + text[1:] if text == "~" or text.startswith("~/") else text


def _check_mountable(mount: str, runtime: str, parts: int) -> None:
    """Raises ValueError for a folder whose name holds what separates mounts, or more parts than SOURCE:TARGET:FLAGS."""
    forbidden = {"pyxis": ',"`$\\'}.get(runtime, ",")
    if found := [character for character in forbidden if character in mount]:
        raise ValueError(f"{runtime} cannot mount {mount}, because of {found[0]} in its name; use a folder without it")
    if mount.count(":") >= parts:
        what = "a folder without : in its name" if parts == 1 else "SOURCE, SOURCE:TARGET or SOURCE:TARGET:ro"
        raise ValueError(f"{runtime} cannot mount {mount}; use {what}")
