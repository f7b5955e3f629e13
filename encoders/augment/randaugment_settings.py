"""The settings of RandAugment, and the operations among which it draws: one list for each modality, with what is left out and why."""

from typing import Literal, NamedTuple, Self, TypeAlias, get_args

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


class ToleratedOperations(NamedTuple):
    """names: what RandAugment may do to images of a modality.  left_out: what it may not, and why."""

    names: RandAugmentNames
    left_out: str


# Of the operations of the paper, none of these lists has solarise, posterise and equalise: they exchange or merge gray levels, by which
# tissues are told apart. None has shear and translation: crops move images already, and sheared anatomy does not occur. Flips are settings
# of their own, as they may change the label.
RANDAUGMENT_LISTS: dict[RandAugmentModality, ToleratedOperations] = {
    "cxr": ToleratedOperations(
        ("rotate", "zoom", "elastic", "brightness", "contrast", "window", "gamma", "clahe", "blur", "noise", "cutout"),
        "stain, saturation, hue: radiographs are gray",
    ),
    "histology": ToleratedOperations(
        ("stain", "brightness", "contrast", "saturation", "hue", "blur", "noise", "cutout"),
        "rotate, elastic, zoom: they make borders black, the preset has quarter turns, and magnification carries information; window, "
        "gamma, clahe: they change the relation of the stains. RandAugment with stain and hue for H&E: Faryna et al. 2021, PMLR 143:168",
    ),
    "dermoscopy": ToleratedOperations(
        ("rotate", "elastic", "brightness", "contrast", "saturation", "hue", "blur", "noise", "cutout"),
        "window, gamma, clahe: they change the relation of the channels, and the hue of a lesion is a criterion (it varies little); after "
        "Perez et al. 2018, arXiv:1809.01442",
    ),
    "ct": ToleratedOperations(
        ("rotate", "zoom", "elastic", "window", "blur", "noise", "cutout"),
        "brightness, contrast, gamma, clahe: gray levels are Hounsfield units, of which only the window varies",
    ),
    "mr": ToleratedOperations(
        ("rotate", "zoom", "elastic", "brightness", "contrast", "gamma", "blur", "noise", "cutout"),
        "clahe: it lifts the noise of the background; window: contrast and brightness do the same, as the scale is arbitrary",
    ),
    "oct": ToleratedOperations(
        ("rotate", "zoom", "elastic", "brightness", "contrast", "gamma", "blur", "noise", "cutout"),
        "clahe, window: they lift the speckle of the vitreous; an up-down flip: the layers of the retina have an order",
    ),
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
        return RANDAUGMENT_LISTS[self.randaugment_list].names if isinstance(self.randaugment_list, str) else self.randaugment_list

    @model_validator(mode="after")
    def _check_randaugment(self) -> Self:
        names = self.randaugment_names
        if len(set(names)) < len(names):
            raise ValueError(f"randaugment_list: expected different operations, given {', '.join(names)}")
        if self.randaugment > len(names):
            known = f"a list ({', '.join(RANDAUGMENT_LISTS)}) or operations ({', '.join(get_args(RandAugmentName))})"
            raise ValueError(f"randaugment draws {self.randaugment} operations out of {len(names)}; set randaugment_list to {known}")
        return self
