"""What determines the tiles of a cohort, besides its slides."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.stain.normalise import validate_stain_method

MIN_SHARPNESS_SIDE_UM = 12.0  # side of the least tile whose sharpness is judged: six pixels of the small copy that it is judged on


@dataclass(frozen=True)
class TilingSettings:
    """How slides become tiles. Shares are of a tile's area, from 0 to 1."""

    mpp: float = 0.5  # um a pixel of the tiles
    tile: int = 256  # pixels, the side
    overlap: int = 0  # pixels that neighbours share
    min_tissue: float = 0.5  # share
    tissue_mpp: float = 8.0  # um a pixel of overview and mask
    min_sharpness: float = 100.0  # variance of the Laplacian, (gray levels of 255)^2 at 2 um a pixel; sharp tissue has 800 to 8,000
    max_pen: float = 0.1  # share with the hue of green or blue ink
    max_white: float = 0.9  # share brighter than 220 of 255 without colour
    max_black: float = 0.1  # share darker than 40 of 255
    max_tiles: int = 0  # a slide; 0: all
    seed: int = 0  # of the choice of max_tiles
    normalise: str | None = None  # stain: macenko or reinhard
    icc: bool = False  # colours to sRGB by the slide's profile
    codec: Literal["jpeg", "raw"] = "jpeg"
    include: tuple[str, ...] = ()  # classes of regions that tiles are taken from
    exclude: tuple[str, ...] = ()  # classes of regions that tiles stay out of

    def __post_init__(self) -> None:
        """Raises InputError naming the option."""
        if not 0.05 <= self.mpp <= 50:
            raise InputError(f"--mpp is {self.mpp}; micrometres a pixel are expected, e.g. 0.5 (about 20x) or 0.25 (about 40x)")
        if self.tile < 16:
            raise InputError(f"--tile is {self.tile}; at least 16 pixels are expected, usual are 224, 256 and 512")
        if not 0 <= self.overlap < self.tile:
            raise InputError(f"--overlap is {self.overlap} pixels of a tile of {self.tile}; it must be smaller than the tile")
        if self.tissue_mpp < self.mpp:
            raise InputError(f"--tissue-mpp {self.tissue_mpp} is finer than the tiles ({self.mpp}); 8 is usual")
        if self.min_sharpness and self.tile * self.mpp < MIN_SHARPNESS_SIDE_UM:
            wide = f"a tile of {self.tile * self.mpp:g} um is too small to be called sharp or not ({MIN_SHARPNESS_SIDE_UM:g} um)"
            raise InputError(f"{wide}; pass --min-sharpness 0, or a larger --tile")
        for name in ("min_tissue", "max_pen", "max_white", "max_black"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}; a share from 0 to 1 is expected")
        validate_stain_method(self.normalise)
        if self.codec not in ("jpeg", "raw"):
            raise unknown_name_error("codec", self.codec, ["jpeg", "raw"])

    def recipe(self) -> dict[str, Any]:
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {name: value for name, value in plain.items() if value is not None}
