"""The settings of imbalance: one name, and a group of settings for each approach that has any. Nothing heavy is imported here."""

from typing import Any, Literal, get_args

from pydantic import Field

from encoders.runtime.config import Config

ImbalanceName = Literal[
    "class_weight", "effective", "focal", "asymmetric", "logit_adjustment", "ldam", "balanced_sampling", "sqrt_sampling"
]
PLAIN: ImbalanceName = "class_weight"


class EffectiveSettings(Config):
    """Effective numbers of images."""

    beta: float = Field(0.9999, ge=0, lt=1, description="an image after n others of its class counts beta^n; 0: no weights")


class FocalSettings(Config):
    """Focal loss."""

    gamma: float = Field(2.0, ge=0, description="images of probability p for their class count (1 - p)^gamma; 0: cross-entropy")
    alpha: float | None = Field(
        None, gt=0, lt=1, description="weight of positives, that of negatives is 1 - alpha; null: none; labels only"
    )


class AsymmetricSettings(Config):
    """Asymmetric loss."""

    positive_gamma: float = Field(0.0, ge=0, description="focusing of positives")
    negative_gamma: float = Field(4.0, ge=0, description="focusing of negatives")
    margin: float = Field(0.05, ge=0, lt=1, description="subtracted from the probability of negatives; those below it count nothing")


class LogitAdjustmentSettings(Config):
    """Logit adjustment."""

    tau: float = Field(1.0, gt=0, description="the logits of training have tau times the log of the class frequency added")


class LdamSettings(Config):
    """Label-distribution-aware margins with deferred re-weighting."""

    max_margin: float = Field(0.5, gt=0, description="margin of the rarest class, in logits")
    scale: float = Field(1.0, gt=0, description="the logits less their margin are multiplied by it")
    deferred: float = Field(0.8, ge=0, le=1, description="share of the steps after which classes have effective-number weights; 1: never")
    beta: float = Field(0.9999, ge=0, lt=1, description="of these weights")


class ImbalanceSettings(Config):
    """The choice of an approach, with the settings of all of them."""

    imbalance: ImbalanceName = Field(
        PLAIN,
        description="what is done about rare classes: class_weight (the setting of that name), effective, focal, asymmetric, "
        "logit_adjustment, ldam (losses), balanced_sampling, sqrt_sampling (draws of patients)",
    )
    effective: EffectiveSettings = Field(EffectiveSettings(), description="imbalance effective")
    focal: FocalSettings = Field(FocalSettings(), description="imbalance focal")
    asymmetric: AsymmetricSettings = Field(AsymmetricSettings(), description="imbalance asymmetric")
    logit_adjustment: LogitAdjustmentSettings = Field(LogitAdjustmentSettings(), description="imbalance logit_adjustment")
    ldam: LdamSettings = Field(LdamSettings(), description="imbalance ldam")


IMBALANCE_NAMES: tuple[str, ...] = get_args(ImbalanceName)
IMBALANCE_GROUPS = tuple(name for name in ImbalanceSettings.model_fields if name != "imbalance")


def own_imbalance(settings: dict[str, Any]) -> dict[str, Any]:
    """The dumped settings without groups that the approach does not use, and without the name if it is the plain one.

    So the settings of fine-tuning without such an approach, and their hash, are those of versions without them."""
    name = settings.get("imbalance", PLAIN)
    unused = set(IMBALANCE_GROUPS) - {name} | ({"imbalance"} if name == PLAIN else {"class_weight"})
    return {key: value for key, value in settings.items() if key not in unused}
