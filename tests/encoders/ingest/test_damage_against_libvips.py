"""What is refused as damaged is what libvips refuses when warnings are errors, and what is accepted has the pixels that libvips reads."""

from random import Random

import numpy as np
import pytest
import pyvips

from encoders.ingest.decode import decode_file
from encoders.ingest.source import Unreadable
from tests.encoders.ingest.image_files import jpeg_bytes, texture

GRAY, COLOUR = texture(72, 80), texture(72, 80, 3)
KINDS = {
    "gray": jpeg_bytes(GRAY),
    "420": jpeg_bytes(COLOUR, subsampling=2),
    "444": jpeg_bytes(COLOUR, subsampling=0),
    "progressive": jpeg_bytes(COLOUR, progressive=True),
    "restart": jpeg_bytes(GRAY, restart_marker_blocks=4),
}


def read_strictly(data):
    """(H, W, C) as libvips reads it, or None if it warns."""
    try:
        image = pyvips.Image.new_from_buffer(data, "", fail_on="warning")
        return image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error:
        return None


def damage(data, rng):
    """A bit flipped, a range zeroed, two ranges exchanged, or the end cut off, after the first scan header."""
    start = data.index(b"\xff\xda") + 14
    changed, at, kind = bytearray(data), rng.randrange(start, len(data) - 60), rng.randrange(4)
    if kind == 0:
        changed[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[at : at + 20] = bytes(20)
    elif kind == 2:
        other = rng.randrange(start, len(data) - 60)
        changed[at : at + 9], changed[other : other + 9] = changed[other : other + 9], changed[at : at + 9]
    else:
        del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_is_refused_if_libvips_warns(tmp_path, kind):
    whole, rng, reasons, other_pixels = decode_file_of(tmp_path, KINDS[kind]), Random(kind), [], 0
    np.testing.assert_array_equal(whole, read_strictly(KINDS[kind]))
    for number in range(60):
        changed = damage(KINDS[kind], rng)
        want = read_strictly(changed)  # libvips misses warnings about the last lines
        try:
            found = decode_file_of(tmp_path, changed)
        except Unreadable as error:
            reasons.append(str(error))
            continue
        assert want is not None, f"libvips warns about number {number}"
        np.testing.assert_array_equal(found, want)
        other_pixels += not np.array_equal(want, whole)
    assert len(reasons) > 20
    assert all(reason.startswith("is broken: damaged JPEG: ") for reason in reasons)
    assert other_pixels, "JPEG has no checksum: some changes give another stream without a warning, as docs/data.md says"


def decode_file_of(folder, data):
    """The pixels of a file with this content."""
    (folder / "a.jpg").write_bytes(data)
    return decode_file(folder / "a.jpg").pixels
