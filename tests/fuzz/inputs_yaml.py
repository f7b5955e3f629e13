"""YAML that users write: recipes, tasks and slurm.yaml, with changed lines, bytes and values.

The truth is the text of every scalar, as PyYAML's loader without types gives it; a key that is given twice must be refused.
"""

import os
import shlex
from pathlib import Path
from random import Random
from typing import Any

import yaml

from encoders.runtime.slurm_site import load_site
from pretrain.recipe.config import load_recipe, read_recipe, write_recipe
from tests.fuzz.harness import FuzzClass, SilentlyWrong
from tests.fuzz.mutators import mutate_file, mutate_text, mutate_tree
from transfer.tasks.task import read_task

RECIPE = """# a comment
data: {store: cxr.h5, workers: 2}
arch: resnet10t
method: {name: moco, temperature: 0.2}
steps: 200
batch: 16
augment: {preset: cxr}
"""
TASK = """name: pneumonia
store: [cxr.h5]
labels: [pneumonia]
kind: binary
classes: [normal, pneumonia]
split: {column: split, names: {train: train, test: test}, val: 0.2}
"""
SITE = """partition: gpu
account: radiology
gpus: a100:4
memory: 64G
time: 12:00:00
setup: [module load cuda, conda activate isograft]
sbatch: [--exclude=n1]
"""
ODD_LINES = [
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b, *b, *b, *b, *b]",
    "steps: &s [*s]",
    "steps: !!python/object/apply:os.system [echo]",
    "? [1, 2]\n: 3",
    "<<: {steps: 3}",
    "x: " + "[" * 5000,
    "x: " + "9" * 5000,
    "x: !!binary aGVsbG8=",
    "x: !!set {a, b}",
    "x: 2001-99-99",
    "x: !!int ''",
    "--- 1",
    "\t- a",
    "%YAML 9.9",
]


class YamlText(FuzzClass):
    """A file that users write, with changed lines, bytes, odd lines or values."""

    def __init__(self, kind: str, text: str, file: str):
        self.kind, self.text, self.file, self.name = kind, text, file, f"YAML, {kind}"

    def prepare(self, folder: Path) -> None:
        (folder / self.file).parent.mkdir(exist_ok=True)
        (folder / self.file).write_text(self.text)

    def mutate(self, folder: Path, rng: Random) -> str:
        path, kind = folder / self.file, rng.randrange(4)
        if kind == 0:
            return mutate_file(path, rng)
        if kind == 1:
            lines, new = self.text.splitlines(), rng.choice(ODD_LINES)
            lines.insert(rng.randint(0, len(lines)), new)
            text, change = "\n".join(lines), f"{new[:40]!r} put in"
        elif kind == 2:
            tree, change = mutate_tree(yaml.safe_load(self.text), rng)
            text = yaml.dump(tree, allow_unicode=rng.random() < 0.5, default_style=rng.choice([None, None, '"']))
        else:
            text, change = mutate_text(self.text, rng)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return change

    def check(self, folder: Path) -> None:
        path = folder / self.file
        os.environ["ISOGRAFT_HOME"] = str(folder)
        found = self.read(path)
        stated = yaml.load(path.read_bytes(), yaml.BaseLoader)
        require_no_repeated_keys(yaml.compose(path.read_bytes()))
        compare_tree(found, {} if stated in ("", None, "~", "null") else stated, "")

    def read(self, path: Path) -> Any:
        if self.kind == "site":
            return load_site().model_dump()
        if self.kind == "task":
            return read_task(path.stem).model_dump()
        return load_recipe(str(path)).model_dump()


class RunConfig(YamlText):
    """The resolved recipe of a run."""

    def __init__(self) -> None:
        super().__init__("config.yaml of a run", RECIPE, "config.yaml")

    def prepare(self, folder: Path) -> None:
        super().prepare(folder)
        write_recipe(folder / self.file, load_recipe(str(folder / self.file)))
        self.text = (folder / self.file).read_text()

    def read(self, path: Path) -> Any:
        return read_recipe(path).model_dump()


def require_no_repeated_keys(node: Any) -> None:
    """Raises SilentlyWrong for a mapping with a key twice."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise SilentlyWrong(f"a key is given twice: {keys}")
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    for child in [value for _, value in node.value] if isinstance(node, yaml.MappingNode) else children:
        require_no_repeated_keys(child)


def compare_tree(found: Any, stated: Any, where: str) -> None:
    """Raises SilentlyWrong where a value that is stated in the file is not the one that was read."""
    if isinstance(stated, dict) and isinstance(found, dict):
        for key, value in stated.items():
            name = "memory" if key == "mem" and not where else key
            if where == "" and key == "track" and isinstance(value, list):
                value = list(dict.fromkeys(["jsonl", *value]))  # the record is always written
            if key == "<<" or (key == "name" and where == "" and key not in found):
                continue
            if name not in found:
                raise SilentlyWrong(f"{where}.{key} was dropped")
            compare_tree(found[name], value, f"{where}.{key}")
    elif isinstance(stated, list) and isinstance(found, list | tuple) and len(found) == len(stated):
        for i, (a, b) in enumerate(zip(found, stated, strict=True)):
            compare_tree(a, b, f"{where}.{i}")
    elif not is_same_value(found, stated):
        raise SilentlyWrong(f"{where} is {found!r}, the file has {str(stated)[:60]!r}")


def is_same_value(found: Any, stated: Any) -> bool:
    """Whether a typed value is that of a text."""
    if found is None:
        return stated in ("", "~") or str(stated).lower() == "null"
    if isinstance(found, bool):
        return str(stated).lower() in (("true", "yes", "on", "1") if found else ("false", "no", "off", "0"))
    if isinstance(found, int | float):
        try:
            return float(str(stated).replace("_", "")) == float(found) or (str(stated).isalnum() and int(str(stated), 0) == found)
        except ValueError:
            return False
    if isinstance(found, list | tuple):
        if not found:
            return str(stated).strip() in ("", "~", "null", "Null", "NULL")
        return (len(found) == 1 and is_same_value(found[0], stated)) or [str(line) for line in found] == str(stated).split("\n")
    if str(found)[:-1].isdigit() and str(found) == str(stated).strip().upper():  # memory with its unit as a small letter
        return True
    return str(found) in (str(stated), str(stated).strip()) or is_same_option(str(found), str(stated).strip())


def is_same_option(found: str, stated: str) -> bool:
    """Whether a word of sbatch is the one of the file, which may be short (-x), and have a space for the equals sign and no quotes."""
    if stated.startswith("-x"):
        stated = f"--exclude={stated.removeprefix('-x').lstrip()}"
    try:
        return found.startswith("--") and shlex.split(found) == [stated.replace(" ", "=", 1)]
    except ValueError:
        return False


CLASSES = [
    YamlText("recipe", RECIPE, "recipe.yaml"),
    RunConfig(),
    YamlText("task", TASK, "tasks/pneumonia.yaml"),
    YamlText("site", SITE, "slurm.yaml"),
]
