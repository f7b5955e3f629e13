"""The scripts of docs/extending.md add a method, a protocol and a source from outside the packages, and run as they are printed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = dict(re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [line for block in re.findall(r"<!-- run -->\n```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory, warm_commands):
    """What each command of the page printed, by its first words; every command succeeds, in the order of the page."""
    folder = tmp_path_factory.mktemp("extending")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    path = os.pathsep.join([str(warm_commands), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "ISOGRAFT_HOME": str(folder), "WANDB_MODE": "disabled"}
    printed = {}
    for line in COMMANDS:
        done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed[line] = done.stdout + done.stderr
    return printed


def find_output(outputs, start):
    (text,) = [text for line, text in outputs.items() if line.startswith(start)]
    return text


def test_the_page_has_a_method_a_protocol_and_a_source():
    assert {"align.py", "centroid.py", "npy.py"} <= set(FILES)
    assert len(COMMANDS) >= 6


def test_a_method_from_outside_trains_and_is_listed(outputs):
    assert "an example" in find_output(outputs, "python align.py methods")
    assert "aligned" in find_output(outputs, "python align.py run")


def test_a_protocol_from_outside_has_its_rows_in_the_table(outputs):
    table = find_output(outputs, "python centroid.py bench")
    assert "centroid" in table or "nearest class mean" in table
    assert "aligned" in table


def test_a_source_from_outside_writes_a_store(outputs):
    assert find_output(outputs, "python npy.py").strip().endswith("8 images, 0 quarantined")
    assert re.search(r"patients +4;", find_output(outputs, "encoders doctor"))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:encoders|pretrain|transfer|tests|configs)/[\w/]+\.(?:py|json))`", PAGE))))
def test_a_file_that_the_page_names_exists(path):
    assert (ROOT / path).exists()
