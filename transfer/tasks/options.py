"""The fixed words that tasks and their command lines accept. Imports nothing heavy, so that `--help` stays quick."""

from typing import Literal, get_args

TaskKind = Literal["binary", "multiclass", "multilabel"]
Part = Literal["train", "val", "test"]
UncertainPolicy = Literal["ones", "zeros", "ignore", "multiclass", "smoothed"]
BlankPolicy = Literal["ignore", "zeros"]

PARTS: tuple[Part, ...] = get_args(Part)
