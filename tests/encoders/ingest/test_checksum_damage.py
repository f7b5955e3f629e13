"""PNG and TIFF: every wrong checksum and every missing byte is found, odd but whole files are accepted, and damage is stored on request."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from encoders.ingest.decode import decode_file, read_image
from encoders.ingest.png_check import PNG_SIGNATURE, read_chunks, write_chunk
from encoders.ingest.source import Unreadable
from tests.encoders.ingest.image_files import png_bytes, texture

GRAY, COLOUR, DEEP = texture(60, 72), texture(60, 72, 3), texture(60, 72, top=65535, dtype=np.uint16)


def save(image, kind="PNG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_text():
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "none")
    info.add(b"tEXt", b"later\0none", after_idat=True)
    return info


PNGS = {
    "gray": save(Image.fromarray(GRAY), pnginfo=with_text()),
    "colour": save(Image.fromarray(COLOUR)),
    "palette": save(Image.fromarray(COLOUR).convert("P"), transparency=0),
    "deep": save(Image.fromarray(DEEP)),
    "deep colour": png_bytes(texture(20, 24, 3, top=65535, dtype=np.uint16)),
}


def interlaced_png(pixels):
    """A PNG of 8 bits in seven passes, by the specification.  pixels: (H, W, 3)."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[y::dy, x::dx] for x, y, dx, dy in passes]
    raw = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(write_chunk(kind, content) for kind, content in chunks)


def decode_bytes(folder, data, suffix=".png", **options):
    (folder / f"a{suffix}").write_bytes(data)
    return decode_file(folder / f"a{suffix}", **options)


@pytest.mark.parametrize("kind", PNGS)
def test_no_changed_byte_and_no_truncation_of_a_png_is_accepted(tmp_path, kind):
    data, rng = PNGS[kind], np.random.default_rng(0)
    whole = decode_bytes(tmp_path, data)
    assert not whole.remarks
    for at in {*rng.integers(8, len(data), 50).tolist(), len(data) - 1, len(data) - 20}:
        for changed in (data[:at] + bytes([data[at] ^ 1 << int(rng.integers(8))]) + data[at + 1 :], data[:at]):
            with pytest.raises(Unreadable):
                decode_bytes(tmp_path, changed)


@pytest.mark.parametrize("kind", PNGS)
def test_a_wrong_crc_of_every_chunk_is_named(tmp_path, kind):
    data = PNGS[kind]
    for chunk in read_chunks(data):
        end = chunk.at + 12 + len(chunk.data)
        with pytest.raises(Unreadable, match=f"damaged PNG: the CRC of the chunk {chunk.kind.decode()} at byte {chunk.at:,} is wrong"):
            decode_bytes(tmp_path, data[: end - 1] + bytes([data[end - 1] ^ 4]) + data[end:])


def test_chunks_out_of_place_and_streams_that_end_early_are_damage(tmp_path):
    chunks = [(chunk.kind, chunk.data) for chunk in read_chunks(PNGS["palette"])]
    kinds = [kind for kind, _ in chunks]
    pixels = next(content for kind, content in chunks if kind == b"IDAT")
    moved = [chunk for chunk in chunks if chunk[0] != b"tRNS"]
    moved.insert(-1, chunks[kinds.index(b"tRNS")])
    cases = {
        "the chunk tRNS is out of place": moved,
        "the chunk PLTE is out of place": [*chunks[:-1], chunks[kinds.index(b"PLTE")], chunks[-1]],
        "its compressed pixels end after": [(k, pixels[:-9] if k == b"IDAT" else content) for k, content in chunks],
        "incorrect data check": [(k, pixels[:-1] + b"!" if k == b"IDAT" else content) for k, content in chunks],
        "bytes, expected 4,380": [(k, zlib.compress(zlib.decompress(pixels)[:-73]) if k == b"IDAT" else content) for k, content in chunks],
    }
    for words, parts in cases.items():
        with pytest.raises(Unreadable, match=words):
            decode_bytes(tmp_path, PNG_SIGNATURE + b"".join(write_chunk(*part) for part in parts))


def test_odd_but_whole_files_are_no_damage(tmp_path):
    np.testing.assert_array_equal(decode_bytes(tmp_path, interlaced_png(COLOUR)).pixels, COLOUR)
    chunks = [(chunk.kind, chunk.data) for chunk in read_chunks(PNGS["colour"])]
    pixels = b"".join(content for kind, content in chunks if kind == b"IDAT")
    pieces = [(b"IDAT", pixels[k : k + 100]) for k in range(0, len(pixels), 100)]
    longer = zlib.compress(zlib.decompress(pixels) + bytes(50))
    for parts in (
        [chunks[0], (b"abCd", b"x"), *pieces, (b"zzZz", b""), chunks[-1]],  # private chunks, and pixels in many
        [chunks[0], (b"IDAT", b""), (b"IDAT", pixels), chunks[-1]],
        [chunks[0], (b"IDAT", longer), chunks[-1]],
        [chunks[0], (b"IDAT", pixels + b"more"), chunks[-1]],
    ):
        decoded = decode_bytes(tmp_path, PNG_SIGNATURE + b"".join(write_chunk(*part) for part in parts) + b"after the end")
        np.testing.assert_array_equal(decoded.pixels, COLOUR)
        assert not decoded.remarks


@pytest.mark.parametrize("kind", PNGS)
def test_what_can_be_read_of_a_png_is_stored_on_request(tmp_path, kind):
    data = PNGS[kind]
    whole = decode_bytes(tmp_path, data).pixels
    half = decode_bytes(tmp_path, data[: len(data) // 2 + 40], accept_damaged=True)
    assert half.pixels.shape == whole.shape
    assert half.pixels.dtype == whole.dtype
    assert "truncated" in half.remarks[0].detail
    rows = len(whole) // 4
    np.testing.assert_array_equal(half.pixels[:rows], whole[:rows])
    with pytest.raises(Unreadable, match=r"IHDR at byte 8 is wrong$"):  # without a header, nothing can be read: no advice
        decode_bytes(tmp_path, data[:20] + b"!" + data[21:], accept_damaged=True)


TIFFS = {
    "deflate": (COLOUR, {"compression": "zlib", "photometric": "rgb", "rowsperstrip": 16}),
    "deflate tiles": (DEEP, {"compression": "zlib", "tile": (32, 32), "predictor": True}),
    "lzw": (COLOUR, {"compression": "lzw", "photometric": "rgb", "rowsperstrip": 7}),
    "packbits": (GRAY // 32, {"compression": "packbits", "rowsperstrip": 16}),
    "lzma": (DEEP, {"compression": "lzma"}),
    "zstd": (GRAY, {"compression": "zstd", "rowsperstrip": 13}),
    "plain": (DEEP, {"rowsperstrip": 16}),
    "planes": (COLOUR.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate", "compression": "zlib"}),
    "jpeg": (COLOUR, {"compression": "jpeg", "photometric": "ycbcr", "tile": (32, 32)}),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_a_whole_tiff_is_accepted_and_one_that_lacks_a_byte_is_not(tmp_path, kind):
    path, (pixels, options) = tmp_path / "a.tif", TIFFS[kind]
    tifffile.imwrite(path, pixels, **options)
    data, decoded = path.read_bytes(), decode_file(path)
    assert not decoded.remarks
    want = pixels.transpose(1, 2, 0) if kind == "planes" else tifffile.imread(path) if kind != "jpeg" else np.asarray(Image.open(path))
    np.testing.assert_array_equal(decoded.pixels.reshape(want.shape), want)
    with tifffile.TiffFile(path) as file:
        starts, counts = file.pages.first.dataoffsets, file.pages.first.databytecounts
    end, last = starts[-1] + counts[-1], len(starts) - 1
    for changed in (data[: end - 1], data[: starts[last] + counts[last] // 2]):
        path.write_bytes(changed)
        with pytest.raises(Unreadable, match=r"its pixels end at byte .*; it is truncated"):
            read_image(path)
        accepted = decode_file(path, accept_damaged=True)
        assert accepted.pixels.shape == decoded.pixels.shape
        assert accepted.remarks
    if kind not in ("plain", "jpeg", "zstd", "lzw"):  # zeros in the middle: the data of these may be of any kind
        middle = starts[0] + counts[0] // 2
        path.write_bytes(data[:middle] + bytes(12) + data[middle + 12 :])
        with pytest.raises(Unreadable, match=r"\(strip or tile at byte "):
            read_image(path)
        accepted = decode_file(path, accept_damaged=True)
        if last and kind != "planes":  # the other strips are whole
            np.testing.assert_array_equal(accepted.pixels[-7:], decoded.pixels[-7:])


def test_subsampled_strips_of_deflate_are_checked_without_their_length(tmp_path):
    """YCbCr with half of the colour: libtiff converts it, and only the checksum of the strip can be compared."""
    from encoders.ingest.tiff_check import find_segment_damage

    packed = zlib.compress(bytes(900_000))
    assert find_segment_damage(packed, 8, (0, 1 << 62), b"", False) == ""
    assert "incorrect data check" in find_segment_damage(packed[:-1] + b"!", 8, (0, 1 << 62), b"", False)


def test_a_last_strip_that_is_as_long_as_the_others_is_no_damage(tmp_path):
    """Some writers pad it: here of 16 rows, of which the image has 12."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.vstack([GRAY, GRAY[:4]]), compression="lzw", rowsperstrip=16)
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["ImageLength"].valueoffset
    data[place : place + 2] = struct.pack("<H", 60)
    path.write_bytes(bytes(data))
    np.testing.assert_array_equal(read_image(path)[..., 0], GRAY)
