"""The registry of acquisition shifts: changes of increasing strength of images in [0, 1], before the preprocessing of an encoder.

They change what another scanner, exposure, detector or staining would change, and keep the diagnosis. SHIFTS holds the values at strengths
1 to 5; strength 0 is the identity. `shift_functions` changes the pixels, `shifted_store` applies a shift to a store. Nothing heavy is
imported here: the command line reads the registry before it computes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from encoders.runtime.errors import InputError, unknown_name_error

if TYPE_CHECKING:
    from torch import Tensor

    from encoders.runtime.arrays import FloatArray
    from encoders.store.store import Store

    ShiftFunction = Callable[[Tensor, float, FloatArray, str], Tensor]

VERSION = 2  # raise it when the same shift and strength would give other pixels


@dataclass(frozen=True)
class Shift:
    """An acquisition shift.

    title: one line.  unit: of `values`, one per strength from 1 on.
    load: imports the function (images (B, C, H, W), value, u (B, 6) uniform random numbers, modality) -> images."""

    title: str
    unit: str
    values: tuple[float, ...]
    load: "Callable[[], ShiftFunction]"


def _load_gamma() -> "ShiftFunction":
    from transfer.bench.shift_functions import gamma

    return gamma


def _load_noise() -> "ShiftFunction":
    from transfer.bench.shift_functions import noise

    return noise


def _load_blur() -> "ShiftFunction":
    from transfer.bench.shift_functions import blur

    return blur


def _load_jpeg() -> "ShiftFunction":
    from transfer.bench.shift_functions import jpeg

    return jpeg


def _load_rotate() -> "ShiftFunction":
    from transfer.bench.shift_functions import rotate

    return rotate


def _load_crop() -> "ShiftFunction":
    from transfer.bench.shift_functions import crop

    return crop


def _load_stain() -> "ShiftFunction":
    from transfer.bench.shift_functions import stain

    return stain


# Append only: the random numbers of a shift depend on its position in this dict.
SHIFTS: dict[str, Shift] = {
    "gamma": Shift("gamma: darker middle grays", "exponent", (1.25, 1.5, 2.0, 2.5, 3.0), _load_gamma),
    "noise": Shift("Gaussian noise", "standard deviation at 224", (0.02, 0.04, 0.07, 0.1, 0.15), _load_noise),
    "blur": Shift("Gaussian blur", "sigma, px at 224", (0.5, 1.0, 1.5, 2.5, 4.0), _load_blur),
    "jpeg": Shift("JPEG compression", "quality", (60, 40, 20, 10, 5), _load_jpeg),
    "rotate": Shift("rotation about the centre", "degrees", (3, 6, 10, 15, 20), _load_rotate),
    "crop": Shift("central crop, enlarged", "share of the side kept", (0.95, 0.9, 0.8, 0.7, 0.6), _load_crop),
    "stain": Shift("stain jitter", "sigma of the HED jitter", (0.05, 0.1, 0.15, 0.2, 0.3), _load_stain),
}


def shift_help() -> str:
    """The names of all shifts with their titles, for an option of the command line."""
    return "; ".join(f"{name} ({shift.title})" for name, shift in SHIFTS.items())


def expand_shifts(names: Sequence[str], strengths: Sequence[int]) -> list[tuple[str, int]]:
    """Every shift at every strength, weakest first. Raises InputError for an unknown shift or strength."""
    for name in names:
        if name not in SHIFTS:
            raise unknown_name_error("acquisition shift", name, SHIFTS)
    unknown = [s for s in strengths if not 1 <= s <= 5]
    if unknown or (names and not strengths):
        raise InputError(f"--strengths holds {unknown or 'nothing'}; strengths are integers from 1 (slight) to 5 (strong)")
    return [(name, s) for name in dict.fromkeys(names) for s in sorted(set(strengths))]


def check_shifts(shifts: Sequence[tuple[str, int]], store: "Store") -> None:
    """Raises InputError for a shift that cannot be applied to the images of a store."""
    if any(name == "stain" for name, _ in shifts) and store.channels != 3:
        raise InputError(
            f"the shift `stain` needs RGB images, and {store.paths[0]} has {store.channels} channel; remove `stain` from --shift"
        )
