"""The documentation: every command in it parses, every block marked as runnable runs, every link between pages resolves.

A fenced block is marked by a comment on the line before it (CONTRIBUTING.md, *Documentation*):

    <!-- runnable: NAME -->
"""

import importlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
OTHERS = [ROOT / "CONTRIBUTING.md", ROOT / "slurm" / "README.md"]  # commands and links are checked, nothing runs
TOOLS = ("encoders", "pretrain", "transfer")
SHELLS = ("", "bash", "console", "sh", "shell")
WITH_RECIPE = ("run", "plan", "preview", "submit", "stage")  # sub-commands of `pretrain` whose first argument is a recipe

FENCE = re.compile(r"(?P<indent>\s*)(?P<ticks>`{3,})(?P<info>[^`]*)")
MARK = re.compile(r"<!-- runnable: (?P<name>[^>]+?) -->")
HEADING = re.compile(r"#{1,6}\s+(?P<title>.+)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\((?P<target>[^)\s]+)\)")
ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)


class Block(NamedTuple):
    """A fenced block. line: of its first line of text.  language: after the opening fence.  runnable: its name, or None."""

    page: Path
    line: int
    text: str
    language: str
    runnable: str | None


class Command(NamedTuple):
    """One call of `encoders`, `pretrain` or `transfer`, as its words."""

    page: Path
    line: int
    words: list[str]

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line} {' '.join(self.words[:3])}"


def split_page(page: Path) -> tuple[list[Block], list[str]]:
    """The fenced blocks of a page, and its lines outside of them."""
    blocks, prose = [], []
    inside: list[str] | None = None
    mark, start = None, 0
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = FENCE.fullmatch(line)
        if fence and inside is None:
            inside, start, opening = [], number + 1, fence
        elif fence and inside is not None and len(fence["ticks"]) >= len(opening["ticks"]) and not fence["info"].strip():
            blocks.append(Block(page, start, "\n".join(inside), opening["info"].strip(), mark))
            inside, mark = None, None
        elif inside is not None:
            inside.append(line.removeprefix(opening["indent"]))
        else:
            prose.append(line)
            if line.strip():
                found = MARK.fullmatch(line.strip())
                mark = found["name"] if found else None
    assert inside is None, f"{page.name}: the block that starts at line {start} is not closed"
    return blocks, prose


def commands_in(block: Block) -> Iterator[Command]:
    """The calls in a block: one per line, or several joined by `&&`, `;` or `|`; also those under `torchrun`."""
    lines = iter(enumerate(block.text.splitlines(), block.line))
    for number, line in lines:
        while line.endswith("\\"):
            line = line[:-1] + next(lines)[1]
        if not any(tool in line for tool in TOOLS):
            continue
        lexer = shlex.shlex(line.strip().removeprefix("$ "), posix=True, punctuation_chars="&;|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word and not set(word) <= set("&;|"):
                words.append(word)
                continue
            while words and ASSIGNMENT.fullmatch(words[0]):
                words.pop(0)
            if "$(which" in words:  # torchrun ... $(which encoders) embed ...
                words = [word.removesuffix(")") for word in words[words.index("$(which") + 1 :]]
            if words and words[0] in TOOLS:
                yield Command(block.page, number, words)
            words = []


BLOCKS = {page: split_page(page)[0] for page in [*PAGES, *OTHERS]}
COMMANDS = [c for blocks in BLOCKS.values() for block in blocks if block.language in SHELLS for c in commands_in(block)]
RUNNABLE = {page: [block for block in BLOCKS[page] if block.runnable] for page in PAGES}


@cache
def application(tool: str) -> Any:
    """The tree of commands of a console script, imported from where pyproject.toml says."""
    import typer

    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    return typer.main.get_command(importlib.import_module(scripts[tool].partition(":")[0]).app)


@cache
def setting_names() -> set[str]:
    """The names that `pretrain settings` lists for `key=value`."""
    script = Path(sys.executable).with_name("pretrain")
    listed = subprocess.run([script, "settings"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.strip()}


def recipe_names(package: str) -> set[str]:
    return {path.stem for path in (ROOT / "configs" / package).glob("*.yaml")}


def parsed(command: Command) -> tuple[list[str], dict[str, Any]]:
    """The path of sub-commands and the parameters. Raises a usage error for one that does not exist, as the command itself would."""
    node, (tool, *rest) = application(command.words[0]), command.words
    path = [tool]
    while hasattr(node, "commands") and rest and rest[0] != "--help":
        assert rest[0] in node.commands, f"`{' '.join(path)}` has no sub-command {rest[0]!r}; it has {', '.join(node.commands)}"
        path.append(rest[0])
        node, rest = node.commands[rest[0]], rest[1:]
    if "--help" in rest:
        return path, {}
    return path, node.make_context(path[-1], list(rest)).params


def is_placeholder(name: str) -> bool:
    """Whether a recipe is a shell variable or a file of the reader's."""
    return "$" in name or name.endswith((".yaml", ".yml"))


def slug(title: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_in_the_documentation_parses_and_names_recipes_that_exist(command):
    path, params = parsed(command)
    recipe = params.get("recipe")
    if recipe and not is_placeholder(recipe) and path[:2] in [["pretrain", name] for name in WITH_RECIPE]:
        assert recipe in recipe_names("pretrain")
    if path[:2] == ["transfer", "tasks"] and path[2:] in (["add"], ["recipes"]):
        known = params.get("recipe") if path[2] == "add" else params.get("name")
        assert known is None or is_placeholder(known) or known in recipe_names("transfer")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.words[0] == "pretrain"], ids=str)
def test_a_pretraining_setting_in_the_documentation_exists(command):
    _, params = parsed(command)
    keys = {text.partition("=")[0] for text in params.get("overrides") or [] if "=" in text}
    keys = {re.sub(r"^auxiliary\.[^.]+\.", "auxiliary.NAME.", key) for key in keys}
    free = {key for key in keys if key.startswith(("method.", "model_args."))}  # they depend on the method and the network
    assert keys - free <= setting_names() | {"augment.preset"}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in RUNNABLE.items() if blocks], ids=lambda page: page.name)
def test_the_runnable_blocks_of_a_page_run_in_order_in_an_empty_folder(page, tmp_path, request):
    """Those of the README with the installed commands, those of the other pages with the same commands from `warm_commands`."""
    scripts = Path(sys.executable).parent if page == README else request.getfixturevalue("warm_commands")
    here = {"PATH": f"{scripts}:{os.environ['PATH']}", "ISOGRAFT_HOME": str(tmp_path), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    for block in RUNNABLE[page]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.text],
            cwd=tmp_path,
            env=os.environ | here | {"ISOGRAFT_OFFLINE": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{page.name}:{block.line} ({block.runnable}):\n{done.stdout[-4000:]}"


def test_the_readme_and_the_guides_have_examples_that_run():
    with_examples = {page.name for page, blocks in RUNNABLE.items() if blocks}
    assert {"README.md", "data.md", "pretraining.md", "zoo.md", "benchmark.md"} <= with_examples


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_resolve(page):
    for found in LINK.finditer("\n".join(split_page(page)[1])):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"\w+:", target):  # a web address
            continue
        where = (page.parent / target).resolve() if target else page
        assert where.exists(), f"{page.name} links to {found['target']}"
        if anchor:
            titles = [heading["title"] for line in split_page(where)[1] if (heading := HEADING.fullmatch(line))]
            assert anchor in map(slug, titles), f"{page.name} links to {found['target']}, which has no such heading"


def test_the_readme_stays_short():
    assert len(README.read_text().splitlines()) <= 200


def test_tables_of_registered_parts_are_those_of_the_registries():
    """`make tables` rewrites them."""
    from tests import doc_tables

    found = [name for page in doc_tables.pages() for _, name, _, _ in doc_tables.REGION.findall(page.read_text())]
    assert set(found) == set(doc_tables.TABLES)
    stale = [page.name for page in doc_tables.pages() if doc_tables.with_tables(page.read_text()) != page.read_text()]
    assert not stale
