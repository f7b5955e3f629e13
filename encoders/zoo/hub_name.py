"""Names of repositories on the Hugging Face hub: `hf:OWNER/NAME` and `hf:OWNER/NAME@REVISION`."""

import re
from typing import NamedTuple

from encoders.runtime.errors import InputError

HUB_PREFIX = "hf:"
HUB_ENDPOINT = "https://huggingface.co"
REPO_PATTERN = re.compile(r"(?P<owner>\w[\w.-]*)/(?P<name>\w[\w.-]*)(?:@(?P<revision>[^\s@]+))?")


class HubRepo(NamedTuple):
    """OWNER/NAME, and a branch, tag or commit."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo + (f"@{self.revision}" if self.revision else "")


def parse_hub_name(text: str) -> HubRepo:
    """The repository in `hf:OWNER/NAME[@REVISION]`. Raises InputError for another form."""
    found = REPO_PATTERN.fullmatch(text.removeprefix(HUB_PREFIX))
    if found is None:
        raise InputError(f"{text!r} is not a name of the hub; write {HUB_PREFIX}OWNER/NAME or {HUB_PREFIX}OWNER/NAME@REVISION")
    return HubRepo(f"{found['owner']}/{found['name']}", found["revision"])
