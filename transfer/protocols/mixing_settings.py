"""The settings of mixup and CutMix, which mix the images of a step of fine-tuning. Nothing heavy is imported here."""

from typing import Any, Self

from pydantic import Field, model_validator

from encoders.runtime.config import Config

MIXERS = ("mixup", "cutmix")


class MixupSettings(Config):
    """Mixup."""

    alpha: float = Field(
        0.0,
        ge=0,
        description="images are blended, their shares drawn from Beta(alpha, alpha) once a step; 0: no mixup; published: 0.1 to 0.4",
    )


class CutmixSettings(Config):
    """CutMix."""

    alpha: float = Field(
        0.0,
        ge=0,
        description="a rectangle is pasted from another image, its share drawn from Beta(alpha, alpha); 0: no CutMix; published: 1",
    )


class MixingShares(Config):
    """How often a step is mixed."""

    p: float = Field(1.0, gt=0, le=1, description="probability that the images of a step are mixed, by mixup or CutMix")
    cutmix_share: float = Field(0.5, ge=0, le=1, description="where both are on, the probability that a mixed step uses CutMix")


class MixingSettings(Config):
    """Mixup and CutMix, both off by default."""

    mixup: MixupSettings = Field(MixupSettings(), description="blends of two images")
    cutmix: CutmixSettings = Field(CutmixSettings(), description="rectangles of another image")
    mixing: MixingShares = Field(MixingShares(), description="how often mixup and CutMix are used")

    @property
    def mixes(self) -> bool:
        """Whether mixup or CutMix is on."""
        return bool(self.mixup.alpha or self.cutmix.alpha)

    @model_validator(mode="after")
    def _check_shares_used(self) -> Self:
        if not self.mixes and self.mixing != MixingShares():
            raise ValueError("mixing has no effect: set mixup.alpha or cutmix.alpha")
        if not (self.mixup.alpha and self.cutmix.alpha) and self.mixing.cutmix_share != MixingShares().cutmix_share:
            raise ValueError("mixing.cutmix_share has no effect: it chooses between mixup and CutMix, and one of their alphas is 0")
        return self


def own_mixing(settings: dict[str, Any]) -> dict[str, Any]:
    """The dumped settings without mixup and CutMix where they are off.

    So the settings of fine-tuning without them, and their hash, are those of versions without them."""
    off = {name for name in MIXERS if not settings.get(name, {}).get("alpha")}
    unused = off | ({"mixing"} if off == set(MIXERS) else set())
    kept = {key: value for key, value in settings.items() if key not in unused}
    if off and "mixing" in kept:
        kept["mixing"] = {key: value for key, value in kept["mixing"].items() if key != "cutmix_share"}
    return kept
