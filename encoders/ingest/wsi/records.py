"""What is recorded about a slide: its facts in the store, and the outcome of its ingest."""

from typing import NotRequired, TypedDict, cast

from encoders.runtime.json_types import Json
from encoders.stain.normalise import StainLook

Corners = list[list[int]]  # L0 (x, y) of tiles


class RequiredSlideFacts(TypedDict):
    """Facts that every slide has."""

    name: str
    source: str  # path relative to the folder of slides
    vendor: str
    quickhash: str
    dimensions: list[int]  # W, H at L0
    bounds: list[int]  # x, y, W, H at L0 of the scanned area
    mpp: list[float]  # micrometres per pixel at L0, along x and y
    mpp_source: str
    oblong: bool
    level: int
    downsample: float
    field: list[float]  # W, H of a tile at L0
    icc: str


class CoordinateFacts(TypedDict):
    """What the file of a slide's coordinates holds."""

    file: str  # its name
    given: int  # number of coordinates
    over_edge: int  # tiles that reach over the edge of the slide
    side: NotRequired[list[float]]  # W, H of a tile at L0, if the file states it


class SlideFacts(RequiredSlideFacts, total=False):
    """Facts of a slide that its store keeps."""

    glass: list[int]  # RGB of the glass, 255 each if none was seen
    upscale: float  # how many times coarser than its tiles the slide is, if they were interpolated upwards
    tissue_threshold: int  # of 255: saturation relative to the glass
    non_glass: float  # tiles: sum of the shares of the grid that are not glass, without tiles that the user excluded
    non_glass_rejected: float  # the same of the tiles that were rejected
    coords: CoordinateFacts  # if tiles stand at the coordinates of a file
    tile_mpp: float  # micrometres per pixel of the tiles, if the file of coordinates determines their size
    mpp_said: float  # the resolution in the metadata, if the user gave a different one
    stain: StainLook
    regions: dict[str, int]  # class of the drawn regions to the number of areas


class SlideRecord(TypedDict, total=False):
    """Outcome of one slide; `tiles` is present if the slide has a store, otherwise `reason`."""

    name: str
    source: str
    stamp: str  # see SlideItem.content_stamp
    told: str  # see SlideItem.metadata_stamp
    tiles: int
    rejected: dict[str, int]  # reason to number of tiles
    read: int  # tiles read, kept or not
    seconds: float
    facts: SlideFacts
    reason: str
    needs_mpp: float  # of a slide that is too coarse: its micrometres per pixel
    traceback: str
    damage: list[str]  # why each tile that is `damaged` cannot be read
    accepted_damage: list[str]  # the damage of each tile that is kept nevertheless (--accept-damaged)


def facts_to_json(facts: SlideFacts) -> dict[str, Json]:
    """The facts as a value of an attribute."""
    return cast(dict[str, Json], dict(facts))
