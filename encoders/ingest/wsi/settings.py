"""The settings that determine the tiles of a cohort."""

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace

from encoders.ingest.options import Codec
from encoders.ingest.wsi.tissue_model import TissueModel
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.stain.normalise import validate_stain_method

# Recorded, so that stores of different methods are not mixed.
TISSUE_METHOD = "saturation relative to glass"
INK_METHOD = "hue of green and blue; even neighbourhoods of black, gray and red"
MOST_UPSCALE = 4.0  # beyond, three of four rows of a tile would be invented
MIN_SHARPNESS_SIDE_UM = 12.0  # smallest side of a tile whose sharpness is measured: six pixels of the small copy


@dataclass(frozen=True)
class TilingSettings:
    """How slides become tiles. Shares are of the area of a tile, from 0 to 1."""

    mpp: float = 0.5  # micrometres per pixel of the tiles
    tile: int = 256  # pixels, side of a tile
    overlap: int = 0  # pixels that adjacent tiles share
    max_upscale: float = 1.02  # how many times coarser than the tiles a slide may be; it is then interpolated
    min_tissue: float = 0.5  # share
    tissue_mpp: float = 8.0  # micrometres per pixel of overview and mask, and of the input of the tissue model
    tissue_threshold: int | None = None  # of 255: saturation relative to the glass; None: measured on the glass of each slide
    tissue_model: TissueModel | None = None  # network that finds tissue, instead of the threshold
    min_sharpness: float = 100.0  # variance of the Laplacian, (gray levels of 255)^2 at 2 um per pixel; sharp tissue has 800 to 8,000
    max_pen: float = 0.1  # share of ink: green or blue by hue, or black, gray or red by neighbourhood, whichever is larger
    max_white: float = 0.9  # share that is colourless and brighter than 220 of 255
    max_black: float = 0.1  # share darker than 40 of 255
    max_tiles: int = 0  # per slide; 0: all
    seed: int = 0  # seed of the random choice of max_tiles
    normalise: str | None = None  # method of stain normalisation: macenko or reinhard
    icc: bool = False  # convert colours to sRGB by the profile of the slide
    codec: Codec = "jpeg"
    coords: bool = False  # tiles stand at the coordinates of files, not on a grid; tissue is not looked for
    accept_damaged: bool = False  # keep tiles whose JPEG is damaged, as they are decoded
    include: tuple[str, ...] = ()  # classes of regions to take tiles from
    exclude: tuple[str, ...] = ()  # classes of regions without tiles

    def __post_init__(self) -> None:
        """Raises InputError with the name of the option."""
        if not 0.05 <= self.mpp <= 50:
            raise InputError(f"--mpp is {self.mpp}; expected micrometres per pixel, e.g. 0.5 (about 20x) or 0.25 (about 40x)")
        if self.tile < 16:
            raise InputError(f"--tile is {self.tile}; expected at least 16 pixels, e.g. 224, 256 or 512")
        if not 0 <= self.overlap < self.tile:
            raise InputError(f"--overlap is {self.overlap} pixels for tiles of {self.tile}; expected less than the tile")
        if not 1 <= self.max_upscale <= MOST_UPSCALE:
            raise InputError(f"--max-upscale is {self.max_upscale}; expected a factor of 1 to {MOST_UPSCALE:g}, e.g. 1.02")
        if self.tissue_mpp < self.mpp:
            raise InputError(f"--tissue-mpp {self.tissue_mpp} is finer than the tiles ({self.mpp}); expected a coarser value, e.g. 8")
        if self.min_sharpness and self.tile * self.mpp < MIN_SHARPNESS_SIDE_UM:
            small = f"a tile of {self.tile * self.mpp:g} um is too small to measure its sharpness (minimum {MIN_SHARPNESS_SIDE_UM:g} um)"
            raise InputError(f"{small}; pass --min-sharpness 0, or a larger --tile")
        if self.tissue_threshold is not None and not 1 <= self.tissue_threshold <= 254:
            raise InputError(f"--tissue-threshold is {self.tissue_threshold}; expected a saturation of 1 to 254, e.g. 8")
        if self.tissue_threshold is not None and self.tissue_model:
            raise InputError("--tissue-threshold and --tissue-model both find tissue; pass one of them")
        if self.coords and (self.min_tissue or self.overlap or self.tissue_model or self.tissue_threshold is not None):
            raise InputError("--coords takes the tiles of a file; do not pass --min-tissue, --overlap, --tissue-threshold, --tissue-model")
        shares = {"min-tissue": self.min_tissue, "max-pen": self.max_pen, "max-white": self.max_white, "max-black": self.max_black}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"--{name} is {share}; expected a share from 0 to 1")
        validate_stain_method(self.normalise)
        if self.codec not in ("jpeg", "raw"):
            raise unknown_name_error("codec", self.codec, ["jpeg", "raw"])

    def recipe(self) -> dict[str, Json]:
        """The settings as JSON, without those that are None."""
        every = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        plain = {name: value for name, value in every.items() if value is not None and name not in ("tissue_model", "coords")}
        if not self.accept_damaged:
            del plain["accept_damaged"]  # as in recipes of earlier versions
        plain["ink"] = INK_METHOD
        if self.coords:
            return plain | {"tiles": "coordinates of files"}
        model: dict[str, Json] = {"tissue_model": self.tissue_model.recipe()} if self.tissue_model else {"tissue": TISSUE_METHOD}
        return plain | model

    def for_coordinates(self, kept: Collection[str] = ()) -> "TilingSettings":
        """The settings for coordinates of files: without limits on tissue and quality, except those of the fields `kept`.

        The user has chosen the tiles: their quality is measured, and nothing is rejected unless asked for."""
        return replace(
            self,
            coords=True,
            min_tissue=self.min_tissue if "min_tissue" in kept else 0.0,
            min_sharpness=self.min_sharpness if "min_sharpness" in kept else 0.0,
            max_pen=self.max_pen if "max_pen" in kept else 1.0,
            max_white=self.max_white if "max_white" in kept else 1.0,
            max_black=self.max_black if "max_black" in kept else 1.0,
        )
