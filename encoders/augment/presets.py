"""Augmentation presets by name: published values and their sources.

`moco`, `simclr`, `byol` and `mae` are for natural and microscopic colour images. A radiograph has no hue, its brightness is calibrated
and much of what distinguishes patients is small: `cxr*` are mild. A flip changes the side of the heart and of laterality markers: set
`flip=0` where the task depends on the side.

`randaugment_*` draw two operations for each image out of those that the modality tolerates (`randaugment_settings`), after a crop and
flips.
"""

from collections.abc import Mapping

from encoders.augment.config import Augment
from encoders.runtime.config import merge_settings, validate_config
from encoders.runtime.errors import unknown_name_error
from encoders.runtime.json_types import Json

# SimCLR, appendix A (Chen et al. 2020, arXiv:2002.05709; google-research/simclr data_util.py): colour strength 1.0.
_SIMCLR = Augment(crop=(0.08, 1.0), flip=0.5, jitter=0.8, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale=0.2, blur=0.5)
# BYOL, appendix B (Grill et al. 2020, arXiv:2006.07733; deepmind-research byol/utils/augmentations.py), first view; see `byol_views`.
_BYOL = Augment(
    crop=(0.08, 1.0),
    interpolation="bicubic",
    flip=0.5,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grayscale=0.2,
    blur=1.0,
)

# Radiographs. MoCo-CXR (Sowrirajan et al. 2021, arXiv:2010.05352): flip and +-10 degrees, no colour, no blur. We add a mild crop
# and mild display changes (brightness, contrast, gamma: what exposure and windowing do), and neither hue nor solarise.
_CXR = Augment(
    crop=(0.4, 1.0),
    flip=0.5,
    rotate=10,
    jitter=0.8,
    brightness=0.2,
    contrast=0.2,
    gamma=0.3,
    gamma_range=(0.8, 1.25),
    blur=0.2,
    blur_sigma=(0.1, 1.0),
)
# Dermoscopy has no upright orientation. Perez et al. 2018 (arXiv:1809.01442, "basic set", the best of 13 scenarios for melanoma): crops of
# 40 % to 100 % of the area, all rotations, both flips, brightness, contrast and saturation within 30 %, hue within a tenth of a turn.
# Colour is a diagnostic criterion (blue-white veil, red vessels): nothing becomes gray or solarised, and hue changes half as much here.
_DERMOSCOPY = Augment(
    crop=(0.4, 1.0),
    flip=0.5,
    flip_vertical=0.5,
    turn=0.75,
    rotate=45,
    jitter=0.8,
    brightness=0.3,
    contrast=0.3,
    saturation=0.3,
    hue=0.05,
    blur=0.2,
    blur_sigma=(0.1, 1.0),
)
# Slices of CT and MR. nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z, supplementary note on augmentation): rotations up to 30
# degrees, mirroring, Gaussian noise, blur of sigma 0.5 to 1, brightness and contrast within 25 %, gamma 0.7 to 1.5. Ours keep the patient
# upright (15 degrees, no up-down flip). A CT is calibrated in Hounsfield units: its window varies slightly instead of gamma and contrast.
# The scale of an MR is arbitrary, so brightness, contrast and gamma vary. A left-right flip changes the side of organs: see `flip`.
_CT = Augment(
    crop=(0.4, 1.0), flip=0.5, rotate=15, window=0.5, window_width=0.1, blur=0.2, blur_sigma=(0.5, 1.0), noise=0.15, noise_std=(0.0, 0.03)
)
_MR = Augment(
    crop=(0.4, 1.0),
    flip=0.5,
    rotate=15,
    jitter=0.8,
    brightness=0.25,
    contrast=0.25,
    gamma=0.3,
    gamma_range=(0.7, 1.5),
    blur=0.2,
    blur_sigma=(0.5, 1.0),
    noise=0.15,
    noise_std=(0.0, 0.03),
)
PRESETS: dict[str, Augment] = {
    "none": Augment(),
    # MoCo v2 (Chen et al. 2020, arXiv:2003.04297; facebookresearch/moco main_moco.py, --aug-plus).
    "moco": Augment(crop=(0.2, 1.0), flip=0.5, jitter=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, blur=0.5),
    "simclr": _SIMCLR,
    "byol": _BYOL,
    # MAE (He et al. 2021, arXiv:2111.06377; facebookresearch/mae main_pretrain.py).
    "mae": Augment(crop=(0.2, 1.0), interpolation="bicubic", flip=0.5),
    # LeJEPA (Balestriero and LeCun 2025, arXiv:2511.08544): two global views; the colour part is DINO's.
    "lejepa": _BYOL.model_copy(update={"crop": (0.3, 1.0), "blur": 0.5, "solarise": 0.2}),
    "cxr": _CXR,
    # For tasks that depend on the side (left or right effusion, dextrocardia): a flipped view has the opposite label.
    "cxr_laterality": _CXR.model_copy(update={"flip": 0.0}),
    # Medical MAE (Xiao et al. 2022, arXiv:2210.12843; lambert-x/medical_mae PRETRAIN.md).
    "cxr_mae": Augment(crop=(0.5, 1.0), interpolation="bicubic", flip=0.5),
    "finetune_cxr": Augment(
        crop=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5, rotate=10, jitter=0.8, brightness=0.15, contrast=0.15, noise=0.2, noise_std=(0.0, 0.02)
    ),
    # Histology has no upright orientation: all eight flips and turns (as UNI and Virchow). The stain is jittered in densities of
    # haematoxylin and eosin: Tellez et al. 2019, arXiv:1902.06543, "HED-light" (sigma 0.05; "HED-strong": stain_sigma=0.2), so hue is not
    # changed. Magnification carries information, so crops are milder than MoCo's; so does fine chromatin, so blur is milder too.
    "histology": Augment(
        crop=(0.4, 1.0),
        flip=0.5,
        flip_vertical=0.5,
        turn=0.75,
        stain=0.8,
        stain_sigma=0.05,
        jitter=0.8,
        brightness=0.2,
        contrast=0.2,
        saturation=0.2,
        grayscale=0.1,
        blur=0.2,
        blur_sigma=(0.1, 1.0),
    ),
    "dermoscopy": _DERMOSCOPY,
    "finetune_dermoscopy": _DERMOSCOPY.model_copy(update={"rotate": 90, "jitter": 1.0, "hue": 0.1, "blur": 0.0}),
    "ct": _CT,
    "finetune_ct": _CT.model_copy(update={"crop": (0.7, 1.0), "ratio": (0.9, 1.1), "window": 0.3, "blur": 0.1}),
    "mr": _MR,
    "finetune_mr": _MR.model_copy(update={"crop": (0.7, 1.0), "ratio": (0.9, 1.1), "jitter": 0.3, "blur": 0.1}),
    "histology_mae": Augment(crop=(0.2, 1.0), interpolation="bicubic", flip=0.5, flip_vertical=0.5, turn=0.75),
    "finetune_histology": Augment(
        crop=(0.6, 1.0),
        ratio=(0.9, 1.1),
        flip=0.5,
        flip_vertical=0.5,
        turn=0.75,
        stain=0.5,
        stain_sigma=0.03,
        jitter=0.5,
        brightness=0.1,
        contrast=0.1,
        saturation=0.1,
        hue=0.02,
    ),
    # RandAugment (Cubuk et al. 2020, arXiv:1909.13719): two operations of strength 5 of 10. Medical MAE fine-tunes on radiographs with
    # timm's `rand-m6`, the same number at strength 6. The crop is that of the `finetune_*` preset.
    "randaugment_cxr": Augment(crop=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5, randaugment=2, randaugment_list="cxr"),
    "randaugment_histology": Augment(
        crop=(0.6, 1.0), ratio=(0.9, 1.1), flip=0.5, flip_vertical=0.5, turn=0.75, randaugment=2, randaugment_list="histology"
    ),
    "randaugment_dermoscopy": Augment(
        crop=(0.4, 1.0), flip=0.5, flip_vertical=0.5, turn=0.75, randaugment=2, randaugment_list="dermoscopy"
    ),
    "randaugment_ct": Augment(crop=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5, randaugment=2, randaugment_list="ct"),
    "randaugment_mr": Augment(crop=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5, randaugment=2, randaugment_list="mr"),
    # A flip of an OCT exchanges the nasal and the temporal side, and right eyes with left ones.
    "randaugment_oct": Augment(crop=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5, randaugment=2, randaugment_list="oct"),
}


def get_preset(name: str, origin: str = "") -> Augment:
    """The preset `name`. Raises InputError, which names the nearest presets, when there is none.  origin: where the name is from."""
    if name not in PRESETS:
        raise unknown_name_error("augmentation preset", name, PRESETS, f"({origin})" if origin else "")
    return PRESETS[name]


def resolve_augment(raw: Mapping[str, Json], origin: str = "the recipe", within: str = "augment") -> Augment:
    """`{"preset": NAME, setting: value, ...}` as an Augment: the preset ("none" by default) with these settings changed.

    Raises InputError for an unknown preset or setting."""
    rest = dict(raw)
    base = get_preset(str(rest.pop("preset", "none")), origin)
    return validate_config(Augment, merge_settings(base.model_dump(), rest), origin, within)


def byol_views(base: Augment) -> list[Augment]:
    """BYOL's two asymmetric views (also MoCo v3, Barlow Twins, VICReg): blur always or rarely, solarise never or sometimes.

    A base without blur stays without, and solarise is added only to a base with hue: an inverted radiograph has another meaning."""
    always_blurred = {"blur": 1.0} if base.blur else {}
    rarely_blurred = {"blur": 0.1} if base.blur else {}
    solarised = {"solarise": 0.2} if base.hue else {}
    return [base.model_copy(update=always_blurred), base.model_copy(update=rarely_blurred | solarised)]


def local_view(base: Augment, size: int, crop: tuple[float, float]) -> Augment:
    """A small view for multi-crop methods, e.g. DINO's `local_view(base, 96, (0.05, 0.4))`."""
    return base.model_copy(update={"size": size, "crop": crop})
