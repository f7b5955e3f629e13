"""The settings of the fine-tuning strategies, one group for each strategy that has any. Nothing heavy is imported here."""

from typing import Literal

from pydantic import Field, field_validator

from encoders.runtime.config import Config

StrategyName = Literal["full", "linear", "last", "lpft", "gradual", "bitfit", "lora", "l2sp", "wise"]


class LinearSettings(Config):
    """Training of the head alone, by `linear` and in the first phase of `lpft`."""

    head_lr: float = Field(
        10.0, gt=0, description="learning rate of the head while the network is frozen, as a multiple of the base rate; of linear and lpft"
    )


class LastSettings(Config):
    """Training of the last blocks."""

    count: int = Field(1, ge=1, description="blocks of a transformer, or stages of a CNN, that are trained, from the top")


class LpftSettings(Config):
    """Linear probe, then fine-tuning."""

    share: float = Field(0.5, gt=0, lt=1, description="share of the steps in which only the head is trained")


class GradualSettings(Config):
    """Gradual unfreezing."""

    share: float = Field(
        0.5, gt=0, lt=1, description="share of the steps before the whole network is trained, divided evenly between the phases"
    )


class LoraSettings(Config):
    """Low-rank updates."""

    rank: int = Field(8, ge=1, description="rank of the update of each weight")
    alpha: float = Field(16.0, gt=0, description="the update is multiplied by alpha / rank")
    lr: float = Field(3.0, gt=0, description="learning rate of the updates, as a multiple of the base rate; there is no layer decay")


class L2spSettings(Config):
    """Decay towards the start."""

    weight: float = Field(
        0.01, gt=0, description="the loss has weight / 2 times the squared distance of the network from its start; replaces weight decay"
    )


class WiseSettings(Config):
    """Interpolation of the start and the fine-tuned network."""

    alphas: tuple[float, ...] | None = Field(
        None,
        description="shares of the trained weights among which validation chooses; null: as many as evaluations, evenly spaced up to 1",
    )

    @field_validator("alphas")
    @classmethod
    def _check_alphas(cls, alphas: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if alphas is not None and (not alphas or any(not 0 <= alpha <= 1 for alpha in alphas) or len(set(alphas)) < len(alphas)):
            raise ValueError("expected different numbers from 0 to 1, e.g. [0.25,0.5,0.75,1]")
        return alphas


class StrategySettings(Config):
    """The choice of a strategy, with the settings of all of them."""

    strategy: StrategyName = Field("full", description="what is trained, and in which order")
    linear: LinearSettings = Field(LinearSettings(), description="strategies linear and lpft")
    last: LastSettings = Field(LastSettings(), description="strategy last")
    lpft: LpftSettings = Field(LpftSettings(), description="strategy lpft")
    gradual: GradualSettings = Field(GradualSettings(), description="strategy gradual")
    lora: LoraSettings = Field(LoraSettings(), description="strategy lora")
    l2sp: L2spSettings = Field(L2spSettings(), description="strategy l2sp")
    wise: WiseSettings = Field(WiseSettings(), description="strategy wise")
