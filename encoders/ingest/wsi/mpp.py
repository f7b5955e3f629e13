"""How many micrometres a pixel of a slide is wide, and who says so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from encoders.ingest.source import Unreadable

PLAUSIBLE_MPP = 0.05, 5.0  # um a pixel: a printer's 72 dpi (353 um) in a TIFF tag is no resolution of a microscope
SQUARE_TOLERANCE = 0.02  # pixels whose sides differ by more are worth a word
UM_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}  # um
MppPair = tuple[float, float]


@dataclass(frozen=True)
class Resolution:
    """Micrometres a pixel at L0, along x and y."""

    x: float
    y: float
    source: str  # given, metadata, aperio.MPP, TIFF tags, or objective power (estimated)

    @property
    def oblong(self) -> bool:
        return abs(self.x - self.y) > SQUARE_TOLERANCE * max(self.x, self.y)


def find_resolution(properties: Mapping[str, str], given: float | None = None) -> Resolution:
    """The first plausible answer of: the one given, OpenSlide's metadata, Aperio's, the TIFF tags, 10 um over the objective's power.

    Raises Unreadable that lists what the file says when there is none."""
    if given:
        return Resolution(given, given, "given")
    doubted = []
    for source, ask in MPP_SOURCES.items():
        try:
            found = ask(properties)
        except (KeyError, ValueError, ZeroDivisionError):
            continue  # not there, or not a number
        if all(PLAUSIBLE_MPP[0] <= side <= PLAUSIBLE_MPP[1] for side in found):
            return Resolution(*found, source)
        doubted.append(f"{source}: {found[0]:g} um")
    why = f" ({'; '.join(doubted)}: not within {PLAUSIBLE_MPP[0]} to {PLAUSIBLE_MPP[1]} um a pixel)" if doubted else ""
    raise Unreadable(
        f"does not say how large its pixels are{why}; pass --slide-mpp, or a column mpp in --labels. {list_properties(properties)}"
    )


def list_properties(properties: Mapping[str, str]) -> str:
    """The properties of a slide in one line; long values are cut."""
    shown = (f"{name}={' '.join(value.split())[:60]}" for name, value in sorted(properties.items()) if ".level[" not in name)
    return f"It has: {', '.join(shown) or 'no properties'}"


def mpp_from_metadata(properties: Mapping[str, str]) -> MppPair:
    return float(properties["openslide.mpp-x"]), float(properties["openslide.mpp-y"])


def mpp_from_aperio(properties: Mapping[str, str]) -> MppPair:
    return float(properties["aperio.MPP"]), float(properties["aperio.MPP"])


def mpp_from_tiff(properties: Mapping[str, str]) -> MppPair:
    unit = UM_PER_UNIT[properties["tiff.ResolutionUnit"]]
    return unit / float(properties["tiff.XResolution"]), unit / float(properties["tiff.YResolution"])


def mpp_from_objective(properties: Mapping[str, str]) -> MppPair:
    side = 10.0 / float(properties["openslide.objective-power"])  # 40x is about 0.25 um
    return side, side


MPP_SOURCES: dict[str, Callable[[Mapping[str, str]], MppPair]] = {
    "metadata": mpp_from_metadata,
    "aperio.MPP": mpp_from_aperio,
    "TIFF tags": mpp_from_tiff,
    "objective power (estimated)": mpp_from_objective,
}
