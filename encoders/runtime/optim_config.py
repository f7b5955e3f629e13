"""The settings of an optimizer. A file of its own: who reads a recipe needs no torch."""

from typing import Literal

from pydantic import Field, model_validator

from encoders.runtime.config import Config


class Optim(Config):
    """The optimizer and its learning rate."""

    kind: Literal["sgd", "adamw", "lars"] = Field("adamw", description="optimizer")
    lr: float = Field(1.5e-4, gt=0, description="peak learning rate at a global batch of 256 images; scaled by `lr_rule`")
    lr_rule: Literal["linear", "sqrt", "none"] = Field("linear", description="lr x B/256, lr x sqrt(B/256), or lr unchanged")
    lr_end: float = Field(0.0, ge=0, le=1, description="learning rate at the last step as a fraction of the peak")
    schedule: Literal["cosine", "constant", "step"] = Field(
        "cosine", description="course of the learning rate after the warm-up; step: constant, and `lr_end` from 7/8 of the run on"
    )
    weight_decay: float = Field(0.05, ge=0, description="weight decay of parameter groups without their own")
    weight_decay_end: float | None = Field(
        None, ge=0, description="weight decay at the last step, reached by half a cosine; null: constant"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd, lars: momentum")
    nesterov: bool = Field(False, description="sgd: Nesterov momentum")
    betas: tuple[float, float] = Field((0.9, 0.95), description="adamw: decay of the first and second moment")
    eps: float = Field(1e-8, gt=0, description="adamw: added to the root of the second moment")
    trust: float = Field(1e-3, gt=0, description="lars: trust coefficient eta")
    fused: bool | None = Field(None, description="sgd, adamw: all parameters in one kernel; null: where they are on a GPU")

    @model_validator(mode="after")
    def _decays(self) -> "Optim":
        if self.weight_decay_end is not None and not self.weight_decay:
            raise ValueError("weight_decay_end needs a weight_decay above 0 to start from")
        return self
