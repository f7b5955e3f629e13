"""The fixed words that tasks and their command lines accept. Imports nothing heavy, so that `--help` stays quick."""

from typing import Literal, get_args

TaskKind = Literal["binary", "multiclass", "multilabel"]
Part = Literal["train", "val", "test"]
UncertainPolicy = Literal["ones", "zeros", "ignore", "multiclass", "smoothed"]
BlankPolicy = Literal["ignore", "zeros"]
ScoreUnit = Literal["image", "study", "patient"]  # what a row of a table's metrics is
Combination = Literal["mean", "max"]  # how the scores of the images of a study or patient become one
Diagnosis = Literal["batchnorm"]  # what a difference between an encoder and its start is divided by

PARTS: tuple[Part, ...] = get_args(Part)
