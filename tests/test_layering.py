"""Imports go downwards only, and a command line starts without the heavy libraries."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"encoders", "pretrain", "transfer"}
ALLOWED = {"encoders": {"encoders"}, "pretrain": {"pretrain", "encoders"}, "transfer": {"transfer", "encoders"}}
HEAVY = ["torch", "timm", "lightly", "faiss", "wandb", "matplotlib", "sklearn", "h5py", "scipy", "pandas"]


def imported(path: Path) -> set[str]:
    """Top-level names of a file's import statements."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_downwards(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    wrong = {str(p): up for p in files if (up := (imported(p) & OURS) - ALLOWED[package])}
    assert not wrong


@pytest.mark.parametrize("package", ALLOWED)
def test_a_command_line_starts_without_heavy_imports(package):
    """What keeps `--help` quick: none of the slow libraries is imported before a command runs."""
    code = f"import sys, {package}.cli; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []
