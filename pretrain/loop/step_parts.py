"""The parts of a step, whose shares of the time are logged. A file of its own: who shows them needs no torch."""

from typing import Literal, get_args

StepPart = Literal["wait", "augment", "forward", "backward", "optimizer", "logging"]
STEP_PARTS: tuple[StepPart, ...] = get_args(StepPart)
