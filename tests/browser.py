"""A page in a real browser: headless Chromium, its DOM after scripts have run, and its console."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: pages were not looked at in a browser")


class SeenPage(NamedTuple):
    """dom: the document after its scripts.  console: the lines of the console, errors and refusals among them."""

    dom: str
    console: list[str]


def look_at(page: Path, profile: Path) -> SeenPage:
    """Opens a file in a browser of its own.  profile: an empty folder."""
    words = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
        "--disable-background-networking", f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0", "--virtual-time-budget=2000",
        "--dump-dom", page.absolute().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    return SeenPage(done.stdout, re.findall(r"CONSOLE.*?\] (.*)", done.stderr))
