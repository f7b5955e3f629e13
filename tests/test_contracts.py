"""Contracts are types: how much of the code the type checker cannot see is bounded."""

import ast
import re

from tests.test_layering import modules

MOST_ANY = 10  # arguments annotated with bare Any
MOST_IGNORED = 10  # lines that the type checker is told to ignore


def test_few_arguments_are_bare_any():
    found = [f"{name}:{arg.lineno} {arg.arg}" for name, path in modules().items() for arg in any_arguments(ast.parse(path.read_text()))]
    assert len(found) < MOST_ANY, found


def any_arguments(tree: ast.Module) -> list[ast.arg]:
    """The arguments of all functions of a file whose annotation is `Any` alone."""
    functions = [node.args for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    every = [arg for a in functions for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])]]
    return [arg for arg in every if isinstance(arg.annotation, ast.Name) and arg.annotation.id == "Any"]


def test_few_lines_are_hidden_from_the_type_checker():
    hidden = [
        f"{name}: {line.strip()}" for name, path in modules().items() for line in path.read_text().splitlines() if "type: ignore" in line
    ]
    assert len(hidden) < MOST_IGNORED, hidden


def test_the_packages_are_typed_for_their_users():
    for package in ("encoders", "pretrain", "transfer"):
        assert modules()[package].with_name("py.typed").exists()


def test_no_ignore_is_without_its_code():
    bare = [name for name, path in modules().items() if re.search(r"type: ignore(?!\[)", path.read_text())]
    assert not bare
