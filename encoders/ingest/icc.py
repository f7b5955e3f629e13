"""Tone curves and primaries of ICC profiles, compared with sRGB.

Pixels are stored as the file has them, without colour management. That is what every viewer of plain files shows if the profile is close
to sRGB (gray gamma 2.2 is); other profiles are reported, because images with and without them differ in brightness.

Source: ICC.1:2022, sec. 7.2 (header), 10.6 (curveType), 10.18 (parametricCurveType), 10.31 (XYZType).
"""

import struct

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Remark

CURVE_TOLERANCE = 0.05  # of the range of sRGB values; gamma 2.2 differs by 0.034
PRIMARY_TOLERANCE = 0.02  # XYZ
SRGB_PRIMARIES = {"rXYZ": (0.4361, 0.2225, 0.0139), "gXYZ": (0.3851, 0.7169, 0.0971), "bXYZ": (0.1431, 0.0606, 0.7142)}  # adapted to D50
PROFILE_NOT_APPLIED = "an embedded ICC profile that differs from sRGB is not applied"
GAMMA_NOT_APPLIED = "the gAMA chunk of the PNG, which differs from sRGB, is not applied"
Curve = NDArray[np.float64]


def describe_profile(profile: bytes) -> list[Remark]:
    """A remark on a gray or RGB profile that differs from sRGB; [] for others, and for profiles without a simple tone curve."""
    try:
        space, tags = profile[16:20].decode("ascii").strip(), read_tags(profile)
        differences = []
        curve = read_curve(tags.get("kTRC" if space == "GRAY" else "gTRC", b""))
        if curve is not None and (gap := curve_difference(curve)) > CURVE_TOLERANCE:
            differences.append(f"tone curve differs by up to {gap:.0%} of the range")
        if space == "RGB" and any(
            np.abs(np.subtract(read_xyz(tags[name]), want)).max() > PRIMARY_TOLERANCE
            for name, want in SRGB_PRIMARIES.items()
            if name in tags
        ):
            differences.append("other primaries")
    except (struct.error, UnicodeDecodeError, ValueError, IndexError):
        return [Remark("the embedded ICC profile is damaged, and not applied")]
    return [Remark(PROFILE_NOT_APPLIED, f"{space}: {', '.join(differences)}")] if differences and space in ("GRAY", "RGB") else []


def describe_png_gamma(gamma: float) -> list[Remark]:
    """A remark on a gAMA chunk (the exponent of the encoder) that differs from that of sRGB."""
    if gamma <= 0 or curve_difference(np.linspace(0, 1, 65) ** (1 / gamma)) <= CURVE_TOLERANCE:
        return []
    return [Remark(GAMMA_NOT_APPLIED, f"gamma {1 / gamma:.2f}")]


def read_tags(profile: bytes) -> dict[str, bytes]:
    """Signature to data of every tag."""
    count = struct.unpack_from(">I", profile, 128)[0]
    entries = [struct.unpack_from(">4sII", profile, 132 + 12 * k) for k in range(min(count, 100))]
    return {name.decode("latin-1"): profile[start : start + size] for name, start, size in entries}


def read_curve(data: bytes) -> Curve | None:
    """Relative luminance at 65 evenly spaced values; None if the data is not a curve."""
    x = np.linspace(0, 1, 65)
    if data[:4] == b"curv":
        count = struct.unpack_from(">I", data, 8)[0]
        if count == 0:
            return x
        if count == 1:
            return np.asarray(x ** (struct.unpack_from(">H", data, 12)[0] / 256))
        table = np.frombuffer(data, ">u2", count, 12) / 65535
        return np.interp(x, np.linspace(0, 1, count), table)
    if data[:4] == b"para":
        kind = struct.unpack_from(">H", data, 8)[0]
        number = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}[kind] if kind <= 4 else 0
        g, a, b, c, d, e, f = (
            (*np.frombuffer(data, ">i4", number, 12) / 65536, *[0.0] * (7 - number))[:7] if number else (1, 1, 0, 0, 0, 0, 0)
        )
        if kind == 0:
            return np.asarray(x**g)
        if a == 0:
            raise ValueError("a curve without slope")
        if kind in (1, 2):  # below -b/a the curve is constant
            return np.asarray(np.where(x >= -b / a, np.maximum(a * x + b, 0) ** g, 0) + (c if kind == 2 else 0))
        return np.asarray(np.where(x >= d, np.maximum(a * x + b, 0) ** g + e, c * x + f))
    return None


def read_xyz(data: bytes) -> tuple[float, float, float]:
    """X, Y and Z of an XYZType."""
    x, y, z = (value / 65536 for value in struct.unpack_from(">iii", data, 8))
    return x, y, z


def curve_difference(luminance: Curve) -> float:
    """Largest difference between a tone curve and that of sRGB, in sRGB values from 0 to 1.  luminance: at evenly spaced values."""
    y = np.clip(luminance, 0, 1)
    encoded = np.where(y <= 0.0031308, 12.92 * y, 1.055 * y ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    return float(np.abs(encoded - np.linspace(0, 1, len(y))).max())
