"""Damage inside a JPEG is found by the warnings of the decoder, and pixels of whole files are those of Pillow."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from encoders.ingest.decode import decode_file, read_image
from encoders.ingest.folder import FolderSource
from encoders.ingest.shards import ingest
from encoders.ingest.source import Unreadable
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.image_files import flip_until_warned, jpeg_bytes, texture

KINDS = {
    "gray": (1, {}),
    "420": (3, {"subsampling": 2}),
    "422": (3, {"subsampling": 1}),
    "444": (3, {"subsampling": 0}),
    "progressive": (3, {"progressive": True}),
    "progressive gray": (1, {"progressive": True}),
    "RGB": (3, {"keep_rgb": True}),
    "restart markers": (3, {"restart_marker_blocks": 4}),
    "optimized": (1, {"optimize": True}),
    "CMYK": (4, {}),
}


def example(kind):
    channels, options = KINDS[kind]
    pixels = texture(120, 136, channels)
    if channels == 4:
        out = io.BytesIO()
        Image.fromarray(pixels, "CMYK").save(out, "JPEG", quality=92)
        return out.getvalue()
    return jpeg_bytes(pixels[..., 0] if channels == 1 else pixels, **options)


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_jpeg_has_the_pixels_of_pillow_and_a_damaged_one_is_refused(tmp_path, kind):
    data = example(kind)
    (tmp_path / "a.jpg").write_bytes(data)
    decoded = decode_file(tmp_path / "a.jpg")
    with Image.open(io.BytesIO(data)) as image:
        want = np.asarray(image.convert("L" if image.mode == "L" else "RGB"))
    np.testing.assert_array_equal(decoded.pixels.reshape(want.shape), want)
    assert not decoded.remarks
    for seed in range(3):
        (tmp_path / "b.jpg").write_bytes(flip_until_warned(data, seed))
        Image.open(tmp_path / "b.jpg").load()  # Pillow does not notice
        with pytest.raises(Unreadable, match=r"damaged JPEG: .*(Corrupt JPEG data|bad Huffman|premature end|marker)"):
            decode_file(tmp_path / "b.jpg")
        accepted = decode_file(tmp_path / "b.jpg", accept_damaged=True)
        assert accepted.pixels.shape == decoded.pixels.shape
        assert "--accept-damaged" in accepted.remarks[0].kind
        assert accepted.remarks[0].detail


def test_a_truncated_jpeg_is_refused_or_accepted(tmp_path):
    data = example("420")
    for keep in (len(data) - 2, len(data) // 2):
        (tmp_path / "a.jpg").write_bytes(data[:keep])
        with pytest.raises(Unreadable, match="is broken"):
            read_image(tmp_path / "a.jpg")
        assert decode_file(tmp_path / "a.jpg", accept_damaged=True).remarks
    (tmp_path / "a.jpg").write_bytes(data[:200])  # inside the tables: nothing can be decoded
    with pytest.raises(Unreadable, match="is broken"):
        decode_file(tmp_path / "a.jpg", accept_damaged=True)


@pytest.mark.parametrize("tail", [b"\0" * 1000, b"\xff\xd9", b"trailing text", b"\xff" * 9])
def test_bytes_after_the_end_are_no_damage(tmp_path, tail):
    data = example("420")
    (tmp_path / "a.jpg").write_bytes(data + tail)
    assert not decode_file(tmp_path / "a.jpg").remarks


def test_an_odd_header_is_no_damage(tmp_path):
    """Some encoders write other numbers than 0, 63, 0 into the scan header of a baseline JPEG; decoders ignore them."""
    data = bytearray(example("gray"))
    scan = data.index(b"\xff\xda")
    data[scan + 7 : scan + 10] = b"\0\0\0"
    (tmp_path / "a.jpg").write_bytes(bytes(data))
    (tmp_path / "b.jpg").write_bytes(example("gray"))
    decoded = decode_file(tmp_path / "a.jpg")
    np.testing.assert_array_equal(decoded.pixels, read_image(tmp_path / "b.jpg"))
    assert not decoded.remarks
    damaged = flip_until_warned(example("gray"))
    (tmp_path / "a.jpg").write_bytes(damaged[: scan + 7] + b"\0\0\0" + damaged[scan + 10 :])
    with pytest.raises(Unreadable, match=r"damaged JPEG: .*(Corrupt JPEG data|bad Huffman|premature end|marker)"):
        read_image(tmp_path / "a.jpg")  # damage is found behind the odd header


def test_a_damaged_jpeg_of_a_store_is_refused_with_its_key(tmp_path):
    for k in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(texture(64, 64, seed=k)).save(tmp_path / "in" / f"{k}.png")
    ingest(FolderSource(tmp_path / "in", size=0, codec="jpeg"), tmp_path / "a.h5")
    store = Store.open(tmp_path / "a.h5")
    part, whole = store.parts[0], [store.image(k).copy() for k in range(3)]
    stream, start = part.encoded(1), int(part.offsets[1])
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[start : start + len(stream)] = flip_until_warned(stream)  # other decoders read it
    (tmp_path / "a.h5").write_bytes(bytes(data))
    store = Store.open(tmp_path / "a.h5")
    with pytest.raises(InputError, match=r"the JPEG of 1\.png cannot be decoded \((Corrupt|.*bad Huffman|.*premature|.*marker)"):
        store.image(1)
    np.testing.assert_array_equal(store.image(2), whole[2])


def test_a_jpeg_of_12_bits_is_refused_with_its_reason(tmp_path):
    deep = texture(40, 48, top=4095, dtype=np.uint16)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(deep, level=95, bitspersample=12))
    with pytest.raises(Unreadable, match="is a JPEG that cannot be decoded: .*precision"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(("transform", "mode"), [(1, "RGB"), (0, "RGB"), (2, "CMYK")])
def test_an_unknown_transform_of_adobe_is_read_as_decoders_assume(tmp_path, transform, mode):
    """libjpeg assumes YCbCr of three components and YCCK of four. The marker stands before the number of components."""
    data = example("CMYK" if mode == "CMYK" else "444")
    data = data[:2] + data[20:] if data[2:4] == b"\xff\xe0" else data  # JFIF, which is always YCbCr
    marker = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
    at = data.find(marker[:9])
    whole = data if at < 0 else data[:at] + data[at + 16 :]
    path = tmp_path / "a.jpg"
    path.write_bytes(whole[:2] + marker + bytes([transform]) + whole[2:])
    known = read_image(path)
    path.write_bytes(whole[:2] + marker + b"\x77" + whole[2:])
    unknown = decode_file(path)
    assert not unknown.remarks
    assert np.array_equal(known, unknown.pixels) == (transform != 0)


def test_a_damaged_jpeg_inside_a_tiff_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, texture(128, 128, 3), photometric="rgb", compression="jpeg", tile=(64, 64))
    read_image(path)
    data, (start, count) = bytearray(path.read_bytes()), first_segment(path)
    data[start : start + count] = flip_until_warned(bytes(data[start : start + count]))
    path.write_bytes(bytes(data))
    with pytest.raises(Unreadable, match=r"damaged JPEG: .*strip or tile at byte"):
        read_image(path)


def first_segment(path):
    with tifffile.TiffFile(path) as file:
        return file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
