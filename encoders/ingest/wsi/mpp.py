"""Resolution of a slide in micrometres per pixel, and the source of this number."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from encoders.ingest.source import Unreadable

PLAUSIBLE_MPP = 0.05, 5.0  # micrometres per pixel; 72 dpi (353 um) in a TIFF tag is the resolution of a printer, not of a microscope
SQUARE_TOLERANCE = 0.02  # relative; pixels whose sides differ by more cause a warning
UM_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}  # micrometres
MppPair = tuple[float, float]


@dataclass(frozen=True)
class Resolution:
    """Micrometres per pixel at L0, along x and y."""

    x: float
    y: float
    source: str  # given, metadata, aperio.MPP, OME-XML, TIFF tags, or objective power (estimated)

    @property
    def oblong(self) -> bool:
        """Whether pixels are not square."""
        return abs(self.x - self.y) > SQUARE_TOLERANCE * max(self.x, self.y)


def find_resolution(properties: Mapping[str, str], given: float | None = None) -> Resolution:
    """The given resolution, or the first plausible one of: metadata of OpenSlide, of Aperio, OME-XML, TIFF tags, 10 um / objective power.

    Raises Unreadable with the properties of the file if there is none."""
    if given:
        return Resolution(given, given, "given")
    implausible = []
    for source, read in MPP_SOURCES.items():
        try:
            sides = read(properties)
        except (KeyError, ValueError, ZeroDivisionError, StopIteration, IndexError, SyntaxError):
            continue  # missing, or not a number
        if all(PLAUSIBLE_MPP[0] <= side <= PLAUSIBLE_MPP[1] for side in sides):
            return Resolution(*sides, source)
        implausible.append(f"{source}: {sides[0]:g} um")
    why = f" ({'; '.join(implausible)}: not within {PLAUSIBLE_MPP[0]} to {PLAUSIBLE_MPP[1]} um per pixel)" if implausible else ""
    raise Unreadable(f"has no resolution{why}; pass --slide-mpp, or a column mpp in --labels. {list_properties(properties)}")


def list_properties(properties: Mapping[str, str]) -> str:
    """The properties of a slide in one line; long values are truncated, except OME-XML, whose resolution may stand anywhere in it."""
    shown = (
        f"{name}={' '.join(value.split())[: None if 'OME' in value else 60]}"
        for name, value in sorted(properties.items())
        if ".level[" not in name
    )
    return f"It has: {', '.join(shown) or 'no properties'}"


def mpp_from_metadata(properties: Mapping[str, str]) -> MppPair:
    """The resolution in the metadata of OpenSlide."""
    return float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])


def mpp_from_aperio(properties: Mapping[str, str]) -> MppPair:
    """The resolution in the metadata of Aperio."""
    return float(properties["aperio.MPP"]), float(properties["aperio.MPP"])


def mpp_from_tiff(properties: Mapping[str, str]) -> MppPair:
    """The resolution in the TIFF tags."""
    unit = UM_PER_UNIT[properties["tiff.ResolutionUnit"]]
    return unit / float(properties["tiff.XResolution"]), unit / float(properties["tiff.YResolution"])


def mpp_from_ome(properties: Mapping[str, str]) -> MppPair:
    """The resolution in the OME-XML of a TIFF: of the image with the size of L0, else of the first. Source: OME schema 2016-06, Pixels."""
    text = next(text for name in OME_PROPERTIES if "<OME" in (text := properties.get(name, "")) or "<ome:OME" in text)
    pixels = [e.attrib for e in ElementTree.fromstring(text.strip().encode()).iter() if e.tag.rpartition("}")[2] == "Pixels"]
    size = properties.get("openslide.level[0].width"), properties.get("openslide.level[0].height")
    sized = [each for each in pixels if (each.get("SizeX"), each.get("SizeY")) == size and "PhysicalSizeX" in each]
    chosen = [*sized, *pixels][0]
    x, y = (float(chosen[f"PhysicalSize{axis}"]) * UM_PER_OME_UNIT[chosen.get(f"PhysicalSize{axis}Unit", "µm")] for axis in "XY")
    return x, y


def mpp_from_objective(properties: Mapping[str, str]) -> MppPair:
    """An estimate from the power of the objective."""
    side = 10.0 / float(properties["openslide.objective-power"])  # 40x is about 0.25 um
    return side, side


OME_PROPERTIES = ("openslide.comment", "tiff.ImageDescription")
# Micrometres; the unit of OME is the micrometre, written with either sign for micro.
UM_PER_OME_UNIT = (
    dict.fromkeys(("µm", "μm", "um", "micron"), 1.0)
    | {"nm": 1e-3, "pm": 1e-6, "Å": 1e-4, "mm": 1e3, "cm": 1e4, "m": 1e6}
    | {
        "in": 25_400.0,
        "pt": 25_400 / 72,
    }
)
MPP_SOURCES: dict[str, Callable[[Mapping[str, str]], MppPair]] = {
    "metadata": mpp_from_metadata,
    "aperio.MPP": mpp_from_aperio,
    "OME-XML": mpp_from_ome,
    "TIFF tags": mpp_from_tiff,
    "objective power (estimated)": mpp_from_objective,
}
