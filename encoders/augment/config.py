"""What may be done to an image before a network sees it, one knob a field. Everything is off unless it is turned on.

The operations are applied in a fixed order, which is the order of the fields: geometry, stain, colour, window, gamma, grayscale, blur,
solarise, noise, cutout. (torchvision's ColorJitter draws the order of its four; we fix brightness, contrast, saturation, hue. MoCo's
list flips last, which is the same picture.) All values are in [0, 1] before and after each operation.
"""

from typing import Literal

from pydantic import Field, field_validator, model_validator

from encoders.runtime.config import Config

FloatRange = tuple[float, float]


class Augment(Config):
    """How one view is made of an image: the recipe's `augment` section."""

    size: int | None = Field(None, gt=0, description="pixels a side of the view; null: the size the encoder's preprocessing names")

    # geometry: one resampling whatever is turned on
    crop: FloatRange | None = Field(None, description="area of the crop as a share of the image, drawn uniformly; null: the whole image")
    ratio: FloatRange = Field((3 / 4, 4 / 3), description="width over height of the crop, drawn log-uniformly")
    interpolation: Literal["bilinear", "bicubic"] = Field("bilinear", description="antialiased kernel of the resampling")
    flip: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip; 0 where the side matters")
    flip_vertical: float = Field(0.0, ge=0, le=1, description="probability of an up-down flip")
    turn: float = Field(0.0, ge=0, le=1, description="probability of a quarter turn, one of 90, 180, 270 degrees; square views")
    rotate: float = Field(0.0, ge=0, le=180, description="rotation about the centre of the crop, uniform in +- this many degrees")
    rotate_p: float = Field(1.0, ge=0, le=1, description="probability of the rotation")
    scale: FloatRange = Field((1.0, 1.0), description="magnification about the centre of the crop, drawn log-uniformly; 2: twice as large")
    elastic: float = Field(0.0, ge=0, le=1, description="probability of a smooth random warp")
    elastic_px: float = Field(4.0, ge=0, description="standard deviation of the warp at its 6 x 6 knots, in view pixels at 224")

    # stain of H&E slides (three channels only)
    stain: float = Field(0.0, ge=0, le=1, description="probability of a jitter of haematoxylin, eosin and DAB densities")
    stain_sigma: float = Field(0.05, ge=0, description="the densities are multiplied by 1 +- this and shifted by +- this, uniform")
    stain_mix: float = Field(
        0.0, ge=0, le=1, description="probability that an image is stained as one between itself and another of the corpus; RGB only"
    )

    # colour; the factors are uniform in 1 +- value, hue in +- value turns
    jitter: float = Field(0.0, ge=0, le=1, description="probability of brightness, contrast, saturation and hue together")
    brightness: float = Field(0.0, ge=0, description="values are multiplied by max(0, 1 +- this)")
    contrast: float = Field(0.0, ge=0, description="distance from the mean gray level is multiplied by max(0, 1 +- this)")
    saturation: float = Field(0.0, ge=0, description="distance from gray is multiplied by max(0, 1 +- this); nothing on one channel")
    hue: float = Field(0.0, ge=0, le=0.5, description="hue is turned by +- this share of the circle; nothing on one channel")

    window: float = Field(0.0, ge=0, le=1, description="probability of a random intensity window")
    window_width: float = Field(0.2, ge=0, lt=0.5, description="black is drawn from [0, this], white from [1 - this, 1]")
    gamma: float = Field(0.0, ge=0, le=1, description="probability of a gamma curve")
    gamma_range: FloatRange = Field((0.7, 1.5), description="the exponent, drawn log-uniformly")
    grayscale: float = Field(0.0, ge=0, le=1, description="probability that colours are dropped (ITU-R 601 luma); nothing on one channel")
    blur: float = Field(0.0, ge=0, le=1, description="probability of a Gaussian blur")
    blur_sigma: FloatRange = Field((0.1, 2.0), description="its standard deviation in view pixels, uniform; cut at three of them")
    solarise: float = Field(0.0, ge=0, le=1, description="probability that values at or above the threshold are inverted")
    solarise_threshold: float = Field(0.5, ge=0, le=1, description="in [0, 1]; 128 of 255 in BYOL")
    noise: float = Field(0.0, ge=0, le=1, description="probability of Gaussian noise")
    noise_std: FloatRange = Field((0.0, 0.05), description="its standard deviation in [0, 1] units, uniform")
    cutout: float = Field(0.0, ge=0, le=1, description="probability that a rectangle is filled with the image's mean")
    cutout_area: FloatRange = Field((0.02, 0.2), description="its share of the view's area, uniform; sides within 1:3 and 3:1")

    @field_validator("crop", "ratio", "scale", "gamma_range", "blur_sigma", "noise_std", "cutout_area")
    @classmethod
    def _ordered(cls, value: FloatRange | None) -> FloatRange | None:
        if value is not None and not 0 <= value[0] <= value[1]:
            raise ValueError("expected two numbers, 0 <= low <= high")
        return value

    @model_validator(mode="after")
    def _possible(self) -> "Augment":
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError("crop: expected 0 < low <= high <= 1, shares of the image's area")
        for name in ("ratio", "scale", "gamma_range"):
            if getattr(self, name)[0] <= 0:
                raise ValueError(f"{name}: expected numbers above 0")
        return self
