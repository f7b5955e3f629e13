"""The augmentations in their order, and the settings of a view, which are those of all augmentations. Every one is off by default.

The order is fixed: geometry, stain, colour, window, gamma, CLAHE, grayscale, blur, solarise, noise, cutout. (MoCo's list flips last, which
gives the same view.) Values are in [0, 1] before and after each operation.
"""

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from encoders.augment.blur import Blur, BlurSettings
from encoders.augment.brightness import Brightness, BrightnessSettings
from encoders.augment.clahe import Clahe, ClaheSettings
from encoders.augment.contrast import Contrast, ContrastSettings
from encoders.augment.crop import Crop, CropSettings
from encoders.augment.cutout import Cutout, CutoutSettings
from encoders.augment.elastic import Elastic, ElasticSettings
from encoders.augment.flip import Flip, FlipSettings
from encoders.augment.gamma import Gamma, GammaSettings
from encoders.augment.grayscale import Grayscale, GrayscaleSettings
from encoders.augment.hue import Hue, HueSettings
from encoders.augment.noise import Noise, NoiseSettings
from encoders.augment.operation import Augmentation
from encoders.augment.randaugment_settings import RandAugmentSettings
from encoders.augment.rotate import Rotate, RotateSettings
from encoders.augment.saturation import Saturation, SaturationSettings
from encoders.augment.solarise import Solarise, SolariseSettings
from encoders.augment.stain_jitter import StainJitter, StainJitterSettings
from encoders.augment.stain_mix import StainMix, StainMixSettings
from encoders.augment.window import Window, WindowSettings
from encoders.runtime.config import Config


class ViewSizeSettings(Config):
    size: int | None = Field(None, gt=0, description="pixels a side of the view; null: the size the encoder's preprocessing names")


class Augment(  # the last base comes first in `pretrain settings`
    RandAugmentSettings,
    CutoutSettings,
    NoiseSettings,
    SolariseSettings,
    BlurSettings,
    GrayscaleSettings,
    ClaheSettings,
    GammaSettings,
    WindowSettings,
    HueSettings,
    SaturationSettings,
    ContrastSettings,
    BrightnessSettings,
    StainMixSettings,
    StainJitterSettings,
    ElasticSettings,
    RotateSettings,
    FlipSettings,
    CropSettings,
    ViewSizeSettings,
):
    """How one view is computed from an image: the recipe's `augment` section."""

    @model_serializer(mode="wrap")
    def _dump_without_newer_settings(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The fields without those of newer operations that are off: the digests of earlier recipes stay."""
        off = {name for switch, group in NEWER_SETTINGS.items() if not getattr(self, switch) for name in group.model_fields}
        return {name: value for name, value in serialize(self).items() if name not in off}


# What turns them on, and what is then recorded: operations that came after the first recipes.
NEWER_SETTINGS: dict[str, type[Config]] = {"clahe": ClaheSettings, "randaugment": RandAugmentSettings}


AUGMENTATIONS: dict[str, Augmentation[Augment]] = {
    "crop": Crop(),
    "flip": Flip(),
    "rotate": Rotate(),
    "elastic": Elastic(),
    "stain_mix": StainMix(),
    "stain": StainJitter(),
    "brightness": Brightness(),
    "contrast": Contrast(),
    "saturation": Saturation(),
    "hue": Hue(),
    "window": Window(),
    "gamma": Gamma(),
    "clahe": Clahe(),
    "grayscale": Grayscale(),
    "blur": Blur(),
    "solarise": Solarise(),
    "noise": Noise(),
    "cutout": Cutout(),
}
