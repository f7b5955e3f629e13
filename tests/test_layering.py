"""The house: imports go down the order of rooms, no circle, unique names, small files, and a command line that starts quickly."""

import ast
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"encoders": {"encoders"}, "pretrain": {"pretrain", "encoders"}, "transfer": {"transfer", "encoders"}}
HEAVY = ["torch", "timm", "lightly", "faiss", "wandb", "matplotlib", "sklearn", "h5py", "scipy", "pandas"]

# Each package's rooms from top to bottom. A room imports only rooms of later rows; rooms of one row do not import each other.
ROOMS = {
    "encoders": ["cli", "doctor features gallery importing ingest loading", "store", "augment", "zoo", "stain similarity", "runtime"],
    "pretrain": ["cli", "run", "display", "watch", "loop", "recipe", "methods"],
    "transfer": [
        "cli",
        "report",
        "explain display",
        "tables trained study",
        "bench",
        "stats records protocols",
        "leakage strategies",
        "losses search tasks metrics",
    ],
}
MOST_LINES = 300

# Names that a registry asks each of its entries for, so that they stand in many files.
CONVENTIONAL = {"Config", "VERSION", "NEEDS", "Fitted", "fit", "fit_resumable", "app", "__all__"}


@cache
def modules() -> dict[str, Path]:
    """Every module of the three packages by its dotted name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(module: str) -> set[str]:
    """The project's modules that a module imports, anywhere in the file."""
    known, found = modules(), set()
    for node in ast.walk(ast.parse(known[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in known else node.module for a in node.names}
    return {name for name in found if name in known and name != module}


def room_of(module: str) -> str | None:
    """The room of a module, or None for what stands at the top of its package."""
    package, *rest = module.split(".")
    return rest[0] if rest and (ROOT / package / rest[0]).is_dir() else None


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_packages_below_it(package):
    files = [name for name in modules() if name.split(".")[0] == package]
    assert files
    wrong = {name: up for name in files if (up := {m.split(".")[0] for m in imports(name)} - PACKAGES[package])}
    assert not wrong


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_rooms_below_it(package):
    level = {room: depth for depth, rooms in enumerate(ROOMS[package]) for room in rooms.split()}
    assert {path.name for path in (ROOT / package).iterdir() if (path / "__init__.py").exists()} == set(level)
    wrong = []
    for name in modules():
        own = room_of(name)
        if name.split(".")[0] != package or own is None:
            continue
        for other in imports(name):
            theirs = room_of(other)
            if other.split(".")[0] == package and theirs not in (None, own) and level[theirs] <= level[own]:
                wrong.append(f"{name} -> {other}")
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imports(name) for name in modules()}
    assert not circles(graph)


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one node.  Source: Tarjan 1972."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            part = []
            while True:
                part.append(stack.pop())
                if part[-1] == node:
                    break
            if len(part) > 1:
                found.append(sorted(part))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_top_level_name_stands_for_one_thing_in_its_package(package):
    where = defaultdict(list)
    for name, path in modules().items():
        if name.split(".")[0] == package:
            for defined in top_level_names(ast.parse(path.read_text())):
                where[defined].append(name)
    repeated = {name: files for name, files in where.items() if len(files) > 1 and len(name) > 1}  # one letter: a type variable
    assert not {name: files for name, files in repeated.items() if name not in CONVENTIONAL}


def top_level_names(tree: ast.Module) -> set[str]:
    """Functions, classes, constants and type aliases that a file defines."""
    names = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_files_are_small():
    long = {name: lines for name, path in modules().items() if (lines := len(path.read_text().splitlines())) > MOST_LINES}
    assert not long


@pytest.mark.parametrize("package", PACKAGES)
def test_a_command_line_starts_without_heavy_imports(package):
    """What keeps `--help` quick: none of the slow libraries is imported before a command runs."""
    code = f"import sys, {package}.cli.main; print(*[m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == []
