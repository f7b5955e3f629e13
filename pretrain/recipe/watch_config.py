"""The settings of the watchdog."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from encoders.runtime.config import Config
from pretrain.recipe.identity_marks import OutsideIdentity


class WatchConfig(Config):
    """The watchdog: probes a fixed set of images at intervals and acts on alarms. Probing does not change the run."""

    images: Annotated[int, OutsideIdentity.UNLESS_POLICY_ACTS] = Field(
        256, ge=0, description="corpus images per probe; fewer in runs of few steps (see watch.max_share); 0 disables probing"
    )
    every: Annotated[int, OutsideIdentity.UNLESS_POLICY_ACTS] = Field(
        100, ge=1, description="steps between probes; lowered in short runs, which have about twenty probes"
    )
    max_share: Annotated[float, OutsideIdentity.ALWAYS] = Field(
        0.02,
        gt=0,
        le=1,
        description="share of a run's time that probes may take: all but the first and the last are postponed until they fit. 1: none is. "
        "Where `watch.policy` or `watch.stop_at_best` acts on probes, they keep their steps",
    )
    policy: Annotated[Literal["warn", "stop", "rollback"], OutsideIdentity.UNLESS_POLICY_ACTS] = Field(
        "warn",
        description="on an alarm: warn prints it; stop saves and stops; rollback returns to the last good checkpoint with a lower lr",
    )
    lr_factor: float = Field(0.5, gt=0, lt=1, description="factor applied to the learning rate at each rollback")
    max_rollbacks: int = Field(3, ge=0, description="rollbacks, for an alarm or for NaN, before the run fails; 0: fail at once")
    labeled: Annotated[str | None, OutsideIdentity.UNLESS_POLICY_ACTS] = Field(
        None, description="labeled store for an online k-NN probe; use images that belong to no test set"
    )
    label: Annotated[str | None, OutsideIdentity.UNLESS_POLICY_ACTS] = Field(
        None, description="label of `watch.labeled` that the online k-NN probe predicts"
    )
    k: Annotated[int, OutsideIdentity.UNLESS_POLICY_ACTS] = Field(20, ge=1, description="neighbours of the online k-NN probe")
    stop_at_best: int = Field(
        0, ge=0, description="probes without a better online k-NN after which the run ends; the best step is exported. 0: off"
    )

    @property
    def acts(self) -> bool:
        """Whether probes decide the weights or the exported step: then their steps must not depend on a clock."""
        return self.policy != "warn" or self.stop_at_best > 0

    @model_validator(mode="after")
    def _labeled_needs_label(self) -> "WatchConfig":
        if (self.labeled is None) != (self.label is None):
            raise ValueError("give watch.labeled and watch.label together")
        if self.stop_at_best and self.labeled is None:
            raise ValueError("watch.stop_at_best chooses a step by the online k-NN probe and needs watch.labeled and watch.label")
        return self
