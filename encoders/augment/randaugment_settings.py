"""The settings of RandAugment, and the operations among which it draws: one list for each modality, with what is left out and why."""

from typing import Literal, Self, TypeAlias, get_args

from pydantic import Field, model_validator

from encoders.runtime.config import Config

RandAugmentName = Literal[
    "rotate",
    "zoom",
    "elastic",
    "stain",
    "brightness",
    "contrast",
    "saturation",
    "hue",
    "window",
    "gamma",
    "clahe",
    "blur",
    "noise",
    "cutout",
]
RandAugmentModality = Literal["cxr", "histology", "dermoscopy", "ct", "mr", "oct"]
RandAugmentNames: TypeAlias = tuple[RandAugmentName, ...]

# Of the operations of the paper, none of these lists has solarise, posterise and equalise: they exchange or merge gray levels, by which
# tissues are told apart. None has shear and translation: crops move images already, and sheared anatomy does not occur. Flips are settings
# of their own, as they may change the label.
RANDAUGMENT_LISTS: dict[RandAugmentModality, RandAugmentNames] = {
    # Radiographs: how a patient stands (rotate, zoom, elastic), and what exposure, detector and display do. No hue and saturation, which
    # gray images do not have.
    "cxr": ("rotate", "zoom", "elastic", "brightness", "contrast", "window", "gamma", "clahe", "blur", "noise", "cutout"),
    # Tiles: after Faryna et al. 2021 (MIDL, PMLR 143:168), RandAugment with stain and colour operations for H&E. No zoom: magnification
    # carries information, and the border would be black. Quarter turns are a setting of the preset. No local contrast (clahe, window).
    "histology": ("elastic", "stain", "brightness", "contrast", "saturation", "hue", "blur", "noise", "cutout"),
    # Dermoscopy: after Perez et al. 2018 (arXiv:1809.01442). Hue changes little, as colour is a criterion; no window, gamma or clahe, which
    # change the relation of colours.
    "dermoscopy": ("rotate", "elastic", "brightness", "contrast", "saturation", "hue", "blur", "noise", "cutout"),
    # CT: the gray levels are Hounsfield units, so only the window varies; no brightness, contrast, gamma, clahe.
    "ct": ("rotate", "zoom", "elastic", "window", "blur", "noise", "cutout"),
    # MR: the scale is arbitrary, so brightness, contrast and gamma vary; no clahe, which lifts the noise of the background.
    "mr": ("rotate", "zoom", "elastic", "brightness", "contrast", "gamma", "blur", "noise", "cutout"),
    # Retinal OCT: the layers have an order from top to bottom and speckle everywhere; no clahe, which lifts it, and no up-down flip.
    "oct": ("rotate", "zoom", "elastic", "brightness", "contrast", "gamma", "blur", "noise", "cutout"),
}


class RandAugmentSettings(Config):
    """Operations that are drawn for each image."""

    randaugment: int = Field(
        0, ge=0, description="RandAugment: number of different operations drawn for each image, besides the other settings; 0: none"
    )
    randaugment_strength: float = Field(
        5.0, gt=0, le=10, description="their strength; each changes an image by up to this share of its range"
    )
    randaugment_list: RandAugmentModality | RandAugmentNames = Field(
        (), description=f"the operations, or a documented list: {', '.join(RANDAUGMENT_LISTS)}; [] with randaugment=0 only"
    )

    @property
    def randaugment_names(self) -> RandAugmentNames:
        """The operations among which it draws."""
        return RANDAUGMENT_LISTS[self.randaugment_list] if isinstance(self.randaugment_list, str) else self.randaugment_list

    @model_validator(mode="after")
    def _check_randaugment(self) -> Self:
        names = self.randaugment_names
        if len(set(names)) < len(names):
            raise ValueError(f"randaugment_list: expected different operations, given {', '.join(names)}")
        if self.randaugment > len(names):
            known = f"a list ({', '.join(RANDAUGMENT_LISTS)}) or operations ({', '.join(get_args(RandAugmentName))})"
            raise ValueError(f"randaugment draws {self.randaugment} operations out of {len(names)}; set randaugment_list to {known}")
        return self
