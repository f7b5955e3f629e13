"""The pixels of a DICOM image as displayed: 16 bits, 0 darkest and 65535 brightest, with a record of every step.

The order follows the standard (PS3.3 C.7.6.3 and C.11): stored values -> modality LUT or rescale -> VOI LUT or window -> inversion if the
lowest value is displayed white (MONOCHROME1, or PresentationLUTShape INVERSE) -> padding black. pydicom decodes the pixels. Tables and
windows are implemented here, because pydicom 3.0 wraps indices of 8-bit VOI tables with more than 256 entries, and does not support
modality tables of 10 to 15 bits.

Shapes: H, W rows and columns; C 1 or 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.dicom.stored_values import decode_stored_values, is_signed, padding_mask
from encoders.ingest.options import Voi
from encoders.ingest.source import PixelUnit, Unreadable, Value
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.errors import InputError, unknown_name_error

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DisplayRecord = dict[str, Value]  # what was done to an image; stored in the columns dicom_*
DISPLAY_MAX = 65535.0
DISPLAY_UNIT = PixelUnit(
    scale=DISPLAY_MAX, offset=0.0, meaning="0 = darkest, 1 = brightest displayed value of the window, VOI table or range used for the image"
)

# Centre and width in Hounsfield units, for CT images only.  Source: Radiopaedia, "Windowing (CT)".
CT_WINDOWS = {
    "lung": (-600.0, 1500.0),
    "mediastinum": (50.0, 350.0),
    "abdomen": (50.0, 400.0),
    "liver": (30.0, 150.0),
    "bone": (400.0, 1800.0),
    "brain": (40.0, 80.0),
    "subdural": (75.0, 215.0),
    "stroke": (40.0, 40.0),
}


@dataclass(frozen=True)
class VoiWindow:
    """The displayed range: `width` values around `center`.  name: of a CT window, or ""."""

    center: float
    width: float
    name: str = ""


def parse_window(text: str) -> VoiWindow:
    """The window from `CENTER,WIDTH` or from the name of a CT window. Raises InputError for other text."""
    if text in CT_WINDOWS:
        return VoiWindow(*CT_WINDOWS[text], name=text)
    parts = text.split(",")
    if len(parts) == 1:
        raise unknown_name_error("CT window", text, CT_WINDOWS, "or give numbers: --window CENTER,WIDTH, e.g. --window=-600,1500")
    try:
        center, width = map(float, parts)
    except ValueError:
        raise InputError(
            f"--window {text!r} is neither CENTER,WIDTH (two numbers, e.g. --window=-600,1500) nor the name of a CT window"
        ) from None
    if not width >= 1:
        raise InputError(f"--window {text!r}: the width is {width:g}, expected at least 1")
    return VoiWindow(center, width)


def render_display(ds: "Dataset", voi: Voi = "auto", window: VoiWindow | None = None) -> tuple[Array, DisplayRecord]:
    """The displayed image (H, W, C) uint16 of a pydicom data set, and the record of what was done.

    A `window` overrides `voi`. Raises Unreadable with the reason if there is no image."""
    stored = decode_stored_values(ds)
    if stored.ndim == 3:
        return render_colour(stored, ds)
    values, (low, high), rescaled = apply_modality(stored, ds)
    shown, used = apply_voi(values, low, high, ds, voi, window)
    inverted = is_inverted(ds)
    if inverted:
        shown = 1.0 - shown
    padded = padding_mask(stored, ds)
    shown[padded] = 0.0
    record: DisplayRecord = {**rescaled, **used, "inverted": int(inverted), "padding": float(padded.mean()) if padded.any() else 0.0}
    return np.rint(shown * DISPLAY_MAX).astype(np.uint16)[..., None], record  # (H, W, 1)


def apply_modality(stored: Array, ds: "Dataset") -> tuple[Array, tuple[float, float], DisplayRecord]:
    """Values (H, W) float64 in the units of the modality, their possible range, and the record."""
    bits = int(ds.BitsStored)
    low, high = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if is_signed(ds) else (0.0, 2.0**bits - 1)
    if ds.get("ModalityLUTSequence"):
        table, first, depth = read_lut(ds.ModalityLUTSequence[0], ds)
        return apply_lut(stored, table, first), (0.0, 2.0**depth - 1), {"modality_lut": 1}
    slope, intercept = number_or_default(ds, "RescaleSlope", 1.0), number_or_default(ds, "RescaleIntercept", 0.0)
    if slope == 0:
        raise Unreadable("RescaleSlope is 0: every pixel would have the same value")
    ends = sorted((low * slope + intercept, high * slope + intercept))
    return stored.astype(np.float64) * slope + intercept, (ends[0], ends[1]), {"rescale_slope": slope, "rescale_intercept": intercept}


def apply_voi(values: Array, low: float, high: float, ds: "Dataset", voi: Voi, window: VoiWindow | None) -> tuple[Array, DisplayRecord]:
    """Values (H, W) in [0, 1], and the table, window or range that maps to them.

    auto: the VOI table of the file, else its first window, else the full range of its bits."""
    has_lut = bool(ds.get("VOILUTSequence"))
    if window is not None:
        if window.name and ds.get("Modality") != "CT":
            raise Unreadable(
                f"the window {window.name!r} is in Hounsfield units, but the modality is {ds.get('Modality') or 'not given'}, not CT"
            )
        record = window_record("window given", window.center, window.width, "LINEAR")
        return apply_windowing(values, window.center, window.width, "LINEAR"), record
    if voi == "lut" or (voi == "auto" and has_lut):
        if not has_lut:
            raise Unreadable("has no VOI table; pass --voi auto")
        table, first, depth = read_lut(ds.VOILUTSequence[0], ds, bool(values.min() < 0))
        return apply_lut(np.rint(values), table, first) / (2.0**depth - 1), {"voi": "lut"}
    own = read_window(ds)
    if voi == "window" or (voi == "auto" and own):
        if own is None:
            raise Unreadable("has no window; pass --voi auto, or --window CENTER,WIDTH")
        function = str(ds.get("VOILUTFunction") or "LINEAR").upper()
        return apply_windowing(values, *own, function), window_record("window of the file", *own, function)
    return np.clip((values - low) / (high - low), 0.0, 1.0), {"voi": "none"}


def window_record(voi: str, center: float, width: float, function: str) -> DisplayRecord:
    """The record of a window."""
    return {"voi": voi, "window_center": center, "window_width": width, "window_function": function}


def read_window(ds: "Dataset") -> tuple[float, float] | None:
    """Centre and width of the first window of the file; None if there is none."""
    center, width = first_number(ds, "WindowCenter"), first_number(ds, "WindowWidth")
    return None if center is None or width is None else (center, width)


def apply_windowing(values: Array, center: float, width: float, function: str) -> Array:
    """(H, W) in [0, 1].  Source: PS3.3 C.11.2.1.2 (LINEAR) and C.11.2.1.3 (SIGMOID, LINEAR_EXACT)."""
    if not (width >= 1 if function == "LINEAR" else width > 0):
        raise Unreadable(f"its window has width {width:g}, which {function} does not allow; pass --voi none or --window")
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700, 700))))  # exp overflows beyond 709
    if function not in ("LINEAR", "LINEAR_EXACT"):
        raise Unreadable(f"VOILUTFunction {function!r} is unknown; pass --voi none or --window")
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def read_lut(item: "Dataset", ds: "Dataset", below_zero: bool = False) -> tuple[Array, int, int]:
    """A lookup table of the file: its entries, the value that maps to the first entry, and the bits of an entry."""
    entries, first, depth = (int(v) for v in item.LUTDescriptor)
    entries = entries or 2**16  # 65536 does not fit the descriptor's 16 bits
    if first >= 2**15 and (below_zero or is_signed(ds)):
        first -= 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        little = ds.file_meta.TransferSyntaxUID.is_little_endian
        data = np.frombuffer(data, "u1" if len(data) <= entries + 1 else ("<u2" if little else ">u2"))
    table = np.atleast_1d(np.asarray(data, dtype=np.float64))[:entries]
    if len(table) < entries or not 8 <= depth <= 16:
        raise Unreadable(f"its lookup table is damaged: {len(table)} of {entries} entries, {depth} bits")
    return table, first, depth


def apply_lut(values: Array, table: Array, first: int) -> Array:
    """(H, W) float64: values below or above the table map to its first or last entry."""
    return np.asarray(table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)])


def is_inverted(ds: "Dataset") -> bool:
    """Whether the lowest value is displayed white. DX images have both MONOCHROME1 and the shape INVERSE; together they invert once."""
    return bool(ds.PhotometricInterpretation == "MONOCHROME1" or str(ds.get("PresentationLUTShape") or "").upper() == "INVERSE")


def render_colour(stored: Array, ds: "Dataset") -> tuple[Array, DisplayRecord]:
    """(H, W, C) uint16 of an RGB image; C = 1 if it is gray in all pixels."""
    top = 2.0 ** (8 * stored.dtype.itemsize if ds.PhotometricInterpretation == "PALETTE COLOR" else int(ds.BitsStored)) - 1
    image = np.rint(np.clip(stored / top, 0, 1) * DISPLAY_MAX).astype(np.uint16)
    gray = bool((np.ptp(image, axis=2) == 0).all())
    return image[..., :1] if gray else image, {"voi": "none (colour)", "inverted": 0, "padding": 0.0}


def find_content_box(image: Array, tolerance: float = 0.02, max_share: float = 0.5) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the image (H, W, C) without uniform borders.

    Rows and columns are cut from the outside while their values span at most `tolerance` of the range of the image. An axis that would
    lose more than `max_share` is not cut."""
    gray = image.max(axis=2).astype(np.int64)  # (H, W)
    allowed = tolerance * (int(gray.max()) - int(gray.min()))
    top, left, (bottom, right) = 0, 0, gray.shape
    while True:
        box = gray[top:bottom, left:right]
        rows, columns = true_span(np.ptp(box, axis=1) > allowed), true_span(np.ptp(box, axis=0) > allowed)
        if rows == (0, bottom - top) and columns == (0, right - left):
            break
        top, bottom, left, right = top + rows[0], top + rows[1], left + columns[0], left + columns[1]
    if bottom - top < (1 - max_share) * gray.shape[0]:
        top, bottom = 0, gray.shape[0]
    if right - left < (1 - max_share) * gray.shape[1]:
        left, right = 0, gray.shape[1]
    return top, bottom, left, right


def true_span(mask: BoolArray) -> tuple[int, int]:
    """Index of the first True, and one past the last; the whole length if there is none."""
    places = np.flatnonzero(mask)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, len(mask))


def first_number(ds: "Dataset", keyword: str) -> float | None:
    """The first value of a tag as a number; None if it is missing, empty or not a number."""
    value = ds.get(keyword)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        value = value[0] if len(value) else None
    try:
        return float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        return None


def number_or_default(ds: "Dataset", keyword: str, default: float) -> float:
    """The first value of a tag as a number, or the default."""
    value = first_number(ds, keyword)
    return default if value is None else value
