"""requirements.lock holds the versions of constraints.txt, each with the hashes of its files."""

import re

from tests.requirements_lock import CONSTRAINTS, LOCK, PYTHONS, read_pins, render_lock


def test_the_lock_has_every_pinned_version_with_its_hashes_and_no_address():
    text = LOCK.read_text()
    entries = re.findall(r"^(\S+==\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", text, re.M)
    assert [pin for pin, _ in entries] == [pin for _, pin in sorted(read_pins(CONSTRAINTS).items())]
    assert all(1 <= len(hashes.splitlines()) <= len(PYTHONS) for _, hashes in entries)
    assert "://" not in text


def test_equal_files_are_named_once():
    lines = list(render_lock({"a-b": "A_b==1"}, [{"a-b": "1" * 64}, {"a-b": "0" * 64}, {"a-b": "1" * 64}]))
    assert lines[1] == f"A_b==1 \\\n    --hash=sha256:{'0' * 64} \\\n    --hash=sha256:{'1' * 64}\n"
