"""The settings of test-time augmentation: of which views of an image the mean of the logits is taken. Nothing heavy is imported here."""

from typing import Self

from pydantic import Field, model_validator

from encoders.runtime.config import Config


class TtaSettings(Config):
    """Views of an image besides the image itself; none by default. Flips and turns are applied to the image and to every crop."""

    flip: bool = Field(
        False, description="also mirrored left-right; exchanges the sides of a patient: only where no label depends on the side"
    )
    flip_vertical: bool = Field(False, description="also mirrored up-down; for images without an upright orientation")
    turn: bool = Field(False, description="also turned by 90, 180 and 270 degrees; for images without an upright orientation")
    crops: tuple[float, ...] = Field(
        (), description="also these central crops, enlarged: sides as shares of the image's, between 0.5 and 1, e.g. [0.9]"
    )
    corners: bool = Field(False, description="also crops of these sides in the four corners, which shift the image")

    @model_validator(mode="after")
    def _check_crops(self) -> Self:
        if any(not 0.5 <= side < 1 for side in self.crops) or len(set(self.crops)) < len(self.crops):
            raise ValueError("crops: expected different numbers from 0.5 to below 1, shares of the image's side, e.g. [0.9]")
        if self.corners and not self.crops:
            raise ValueError("corners has no effect: crops says how large the crops in the corners are, e.g. crops=[0.9]")
        return self

    @property
    def is_on(self) -> bool:
        """Whether there is a view besides the image itself."""
        return self != TtaSettings()


def describe_tta(settings: TtaSettings | None) -> str:
    """The views in words: `flip, crops 0.9 in the centre and corners`; "" for the image alone."""
    if settings is None or not settings.is_on:
        return ""
    names = {"flip": "flip", "flip_vertical": "vertical flip", "turn": "quarter turns"}
    words = [word for name, word in names.items() if getattr(settings, name)]
    if settings.crops:
        words.append(f"crops {', '.join(f'{side:g}' for side in settings.crops)} in the centre{' and corners' if settings.corners else ''}")
    return ", ".join(words)
