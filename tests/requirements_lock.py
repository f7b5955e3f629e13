"""Writes `requirements.lock`: the versions of constraints.txt with the SHA-256 of every file that pip would install for them.

    make lock        (python -m tests.requirements_lock)

The files are those for Linux on x86-64 and the Python versions of PYTHONS, as pip chooses them from its index; nothing is installed. With
such a list `pip install --require-hashes` refuses a file that is not, byte for byte, the one of which the hash was taken. Hashes in
constraints.txt itself would not do: pip then requires a hash of every requirement, and an editable install has none.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
LOCK = ROOT / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13")
GLIBC = range(5, 43)  # minor versions: wheels are built for manylinux_2_5 to that of the newest systems
PLATFORMS = [*(f"manylinux_2_{minor}_x86_64" for minor in GLIBC), "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64"]
HEADER = """\
# Written by `make lock` from constraints.txt. The files for Linux on x86-64, Python 3.11 to 3.13; `make env HASHES=yes` installs with it:
# pip install --require-hashes --no-deps -r requirements.lock
"""


def list_hashes(python: str) -> dict[str, str]:
    """The SHA-256 of the file that pip would install for each line of constraints.txt, on this version of Python."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        platforms = [word for platform in (*PLATFORMS, "linux_x86_64") for word in ("--platform", platform)]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--dry-run",
            "--no-deps",
            "--ignore-installed",
        ]
        target = ["--target", folder, "--python-version", python, "--implementation", "cp", *platforms]
        subprocess.run([*pip, *target, "--report", str(report), "-r", str(CONSTRAINTS)], check=True)
        items = json.loads(report.read_text())["install"]
    return {normalise_name(item["metadata"]["name"]): item["download_info"]["archive_info"]["hashes"]["sha256"] for item in items}


def read_pins(path: Path) -> dict[str, str]:
    """Normalised name -> `name==version` of each line."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {normalise_name(line.partition("==")[0]): line for line in lines if line}


def normalise_name(name: str) -> str:
    """The name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def render_lock(pins: dict[str, str], hashes: list[dict[str, str]]) -> Iterator[str]:
    """The lines of the lock. Raises KeyError for a pin of which pip named no file."""
    yield HEADER
    for name, pin in sorted(pins.items()):
        own = sorted({found[name] for found in hashes})
        yield f"{pin} \\\n" + " \\\n".join(f"    --hash=sha256:{digest}" for digest in own) + "\n"


def main() -> None:
    """Rewrites requirements.lock."""
    pins = read_pins(CONSTRAINTS)
    hashes = [list_hashes(python) for python in PYTHONS]
    LOCK.write_text("".join(render_lock(pins, hashes)))


if __name__ == "__main__":
    main()
