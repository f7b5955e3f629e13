"""Brightness: values are multiplied by a factor."""

from pydantic import Field
from torch import Tensor

from encoders.augment.colour import ColourLane, JitterSettings, draw_jitter_factor
from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, broadcast_per_image
from encoders.runtime.arrays import Array, BoolArray


class BrightnessSettings(JitterSettings):
    brightness: float = Field(0.0, ge=0, description="values are multiplied by max(0, 1 +- this)")


class Brightness(Augmentation[BrightnessSettings]):
    """brightness: (B,) factor."""

    settings = BrightnessSettings
    params = ("brightness",)

    def draw(self, cfg: BrightnessSettings, draws: Draws) -> DrawnParams:
        if not (cfg.jitter and cfg.brightness):
            return {}
        return {"brightness": draw_jitter_factor(cfg, draws, ColourLane.BRIGHTNESS, cfg.brightness)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = params["brightness"] != 1
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        adjust_brightness(views, params["brightness"])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return adjust_brightness(views, params.single("brightness"))


def adjust_brightness(images: Tensor, factor: Array | Tensor) -> Tensor:
    """Values times `factor` (B,), in place. A tensor of factors is (B, 1, 1, 1)."""
    return images.mul_(broadcast_per_image(factor, images)).clamp_max_(1.0)
