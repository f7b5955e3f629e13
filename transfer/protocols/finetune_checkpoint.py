"""The state of a fine-tuning in progress, saved at every validation: an interrupted one ends as one that was not, bit for bit on a CPU.

Order, augmentation and drop path are functions of (seed, step), so the state is that of the tensors, of the optimizer, and of what was
validated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from encoders.runtime import checkpoint
from transfer.protocols.training_cost import TrainingCost

COST_FIELDS = ("trained_parameters", "images_seen", "memory_bytes")


class Best(Protocol):
    """The best weights so far, and all validations."""

    state: dict[str, Tensor]
    score: float
    course: list[dict[str, Any]]


@dataclass(frozen=True)
class TrainingFile:
    """The file in which the state is kept until the training has ended. Its name says what is trained: only that resumes from it.

    pause: the step of a validation, after which training stops with `TrainingPaused`; None: it goes on to its end."""

    path: Path
    pause: int | None = None

    def load(self) -> dict[str, Any] | None:
        """The saved state; None without one, or with one that was damaged: then training starts again."""
        try:
            return checkpoint.load_checkpoint(self.path)
        except checkpoint.DamagedCheckpoint:
            return None

    def is_due(self, step: int) -> bool:
        """Whether training pauses before this step."""
        return self.pause is not None and step >= self.pause

    def save(self, state: Mapping[str, Any]) -> None:
        """Replaces the saved state, atomically."""
        checkpoint.save_checkpoint(self.path, state)

    def remove(self) -> None:
        """Deletes it: the training has ended."""
        self.path.unlink(missing_ok=True)


class TrainingPaused(Exception):
    """Training has reached the step at which it pauses; its state is in the file.

    score: of the best validation so far.  cost: from the start.  step: taken, of `steps`."""

    def __init__(self, score: float, cost: TrainingCost, step: int, steps: int):
        super().__init__(f"paused at step {step} of {steps}")
        self.score, self.cost, self.step, self.steps = score, cost, step, steps


@dataclass(frozen=True)
class TrainingParts:
    """What a training consists of besides its settings. average: the network itself without averaging."""

    network: nn.Module
    average: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: Best
    cost: TrainingCost

    def capture(self, group: int, phase: int, step: int, stale: int, phase_best: float) -> dict[str, Any]:
        """The state after `step` steps. group, phase: where the training is.  stale, phase_best: of the phase."""
        self.cost.note_peak()
        return {
            "group": group,
            "phase": phase,
            "step": step,
            "stale": stale,
            "phase_best": phase_best,
            "network": self.network.state_dict(),
            "average": None if self.average is self.network else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": {"state": self.best.state, "score": self.best.score, "course": self.best.course},
            "cost": {name: getattr(self.cost, name) for name in COST_FIELDS},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Sets everything to what `capture` returned."""
        self.network.load_state_dict(state["network"])
        if state["average"] is not None:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        device = next(self.network.parameters()).device
        self.best.state = {name: value.to(device) for name, value in state["best"]["state"].items()}
        self.best.score, self.best.course = state["best"]["score"], list(state["best"]["course"])
        for name in COST_FIELDS:
            setattr(self.cost, name, state["cost"][name])
