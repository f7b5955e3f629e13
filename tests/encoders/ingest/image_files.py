"""Image files for the tests: PNG with any bit depth and colour type, ICC profiles, damaged JPEG, and readings by libvips."""

import io
import struct
import zlib

import numpy as np
from PIL import Image


def texture(*shape, top=255, dtype=np.uint8, seed=0):
    """Smooth noise from 0 to `top`, which compresses like an image."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(np.cumsum(rng.normal(size=shape), axis=0), axis=1)
    low, high = walk.min((0, 1)), walk.max((0, 1))
    return np.rint((walk - low) / (high - low) * top).astype(dtype)


def png_bytes(pixels, extra_chunks=b""):
    """A PNG of 16 bits, by the specification: gray, gray + alpha, RGB or RGBA.  pixels: (H, W, S) uint16."""
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixels.shape[2]]
    raw = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + extra_chunks + png_chunk(b"IDAT", zlib.compress(raw)) + png_chunk(b"IEND", b"")


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def jpeg_bytes(pixels, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", **({"quality": 92} | options))
    return out.getvalue()


def flip_until_warned(data, seed=0):
    """The JPEG with one byte changed in the middle of its data so that libjpeg-turbo warns (most changes do)."""
    import simplejpeg

    rng = np.random.default_rng(seed)
    for _ in range(200):
        changed = bytearray(data)
        changed[int(rng.integers(len(data) // 2, len(data) - 40))] ^= int(rng.integers(1, 255))
        try:
            simplejpeg.decode_jpeg(bytes(changed), strict=False)
        except ValueError:
            continue  # an error, not a warning
        try:
            simplejpeg.decode_jpeg(bytes(changed))
        except ValueError:
            return bytes(changed)
    raise AssertionError("no change causes a warning")


def gray_profile(gamma):
    """A minimal gray ICC profile with a pure power as its tone curve."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    start = 128 + 4 + 2 * 12
    table = struct.pack(">I", 2) + struct.pack(">4sII", b"wtpt", start, len(white)) + struct.pack(">4sII", b"kTRC", start + 20, len(curve))
    body = table + white + curve
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02400000, b"mntr", b"GRAY", b"XYZ ") + bytes(12) + b"acsp"
    return head.ljust(68, b"\0") + struct.pack(">iii", 63190, 65536, 54061) + bytes(48) + body


def read_with_vips(path):
    """(H, W, S) as libvips reads a file, in the meaning 0 = black; alpha is the last band."""
    import pyvips

    image = pyvips.Image.new_from_file(str(path), access="sequential")
    values = np.asarray(image.numpy())
    return values.reshape(image.height, image.width, image.bands)


def on_black(samples):
    """(H, W, C) of (H, W, C + 1) with unassociated alpha, in float64."""
    top = np.iinfo(samples.dtype).max
    return samples[..., :-1] * (samples[..., -1:] / top)
