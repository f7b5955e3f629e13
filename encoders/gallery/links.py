"""Links from a page to the overview of its working folder."""

import os
from pathlib import Path

from encoders.gallery.refresh import INDEX_NAME
from encoders.runtime import paths


def find_overview_link(page: Path | None) -> str | None:
    """The relative address of the overview from a page inside the working folder; None for a page elsewhere."""
    home = paths.home_dir()
    if page is None or not page.absolute().is_relative_to(home):
        return None
    return Path(os.path.relpath(home / INDEX_NAME, page.absolute().parent)).as_posix()
