"""Pixels keep their depth and their meaning: 0 is black, alpha is on black. Compared with libvips, which the product does not use."""

import itertools

import numpy as np
import pytest
import tifffile
from PIL import Image

from encoders.ingest.decode import decode_file, read_image
from encoders.ingest.decoded import apply_orientation
from encoders.ingest.source import Unreadable
from tests.encoders.ingest.image_files import gray_profile, on_black, png_bytes, png_chunk, read_with_vips, texture

LAYOUTS = {"strips": {"rowsperstrip": 7}, "one strip": {}, "tiles": {"tile": (16, 32)}}
CODINGS = {"none": {}, "lzw": {"compression": "lzw"}, "deflate": {"compression": "zlib"}, "packbits": {"compression": "packbits"}}
CODINGS |= {"lzw+predictor": {"compression": "lzw", "predictor": True}, "zstd+predictor": {"compression": "zstd", "predictor": True}}


@pytest.mark.parametrize(("order", "layout", "coding"), list(itertools.product("<>", LAYOUTS, CODINGS)))
def test_sixteen_bit_white_is_zero_becomes_black_is_zero(tmp_path, order, layout, coding):
    meaning = texture(41, 53, top=65535, dtype=np.uint16)  # 0 is black
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, 65535 - meaning, photometric="miniswhite", byteorder=order, **LAYOUTS[layout], **CODINGS[coding])
    got = read_image(path)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got[..., 0], meaning)
    if "zstd" not in coding:  # this libvips has no zstd
        np.testing.assert_array_equal(got, read_with_vips(path))


@pytest.mark.parametrize("bits", [1, 8, 10, 12, 14, 16])
@pytest.mark.parametrize("photometric", ["miniswhite", "minisblack"])
def test_gray_of_every_depth_has_black_at_zero(tmp_path, bits, photometric):
    top = 2**bits - 1
    meaning = texture(24, 40, top=top, dtype=np.uint8 if bits <= 8 else np.uint16)
    stored = (top - meaning if photometric == "miniswhite" else meaning).astype(bool if bits == 1 else meaning.dtype)
    packed = {} if bits in (1, 8, 16) else {"bitspersample": bits}
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, **packed)
    got = read_image(tmp_path / "a.tif")[..., 0]
    np.testing.assert_array_equal(got, meaning * 255 if bits == 1 else meaning)
    if bits in (1, 8, 16):
        np.testing.assert_array_equal(got, read_with_vips(tmp_path / "a.tif")[..., 0])


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("coding", ["none", "lzw+predictor"])
def test_sixteen_bit_colour_keeps_its_bits(tmp_path, planar, order, coding):
    rgb = texture(20, 26, 3, top=65535, dtype=np.uint16)
    data = np.moveaxis(rgb, -1, 0) if planar == "separate" else rgb
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=planar, byteorder=order, **CODINGS[coding])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), rgb)
    np.testing.assert_array_equal(read_with_vips(tmp_path / "a.tif"), rgb)
    np.testing.assert_array_equal(read_image(write(tmp_path / "b.png", png_bytes(rgb))), rgb)


@pytest.mark.parametrize("channels", [2, 4])
def test_a_sixteen_bit_png_with_alpha_keeps_its_bits_on_black(tmp_path, channels):
    pixels = texture(18, 22, channels, top=65535, dtype=np.uint16)
    pixels[0, 0, -1], pixels[1, 1, -1] = 0, 65535
    path = write(tmp_path / "a.png", png_bytes(pixels))
    got, vips = read_image(path), read_with_vips(path)
    assert (got.dtype, got.shape[2]) == (np.uint16, channels - 1)
    np.testing.assert_array_equal(vips, pixels)
    np.testing.assert_allclose(got, on_black(vips), atol=0.5 + 1e-6)
    assert len(np.unique(got)) > 300  # 8 bits have 256


@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_value_of_a_sixteen_bit_png_is_black(tmp_path, channels):
    pixels = texture(16, 16, channels, top=65535, dtype=np.uint16) | 1
    pixels[3, 4] = 40001
    path = write(tmp_path / "a.png", png_bytes(pixels, png_chunk(b"tRNS", np.full(channels, 40001, ">u2").tobytes())))
    want = np.where((pixels == 40001).all(2, keepdims=True), 0, pixels)
    np.testing.assert_array_equal(read_image(path), want)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colour", [1, 3])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
def test_alpha_of_a_tiff_is_applied_once(tmp_path, dtype, colour, planar, kind):
    """Associated alpha is already in the samples: they are the image on black."""
    top = np.iinfo(dtype).max
    straight, alpha = texture(16, 20, colour, top=top, dtype=dtype), texture(16, 20, 1, top=top, dtype=dtype, seed=1)
    want = straight * (alpha / top)
    stored = np.rint(want).astype(dtype) if kind == "assocalpha" else straight
    data = np.concatenate([stored, alpha], axis=2)
    data = np.moveaxis(data, -1, 0) if planar == "separate" else data
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb" if colour == 3 else "minisblack", planarconfig=planar, extrasamples=[kind])
    got = read_image(tmp_path / "a.tif")
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, atol=0.5 + 1e-6)


def test_an_extra_channel_without_meaning_is_ignored_and_reported(tmp_path):
    rgb = texture(16, 20, 4, top=65535, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", extrasamples=["unspecified"])
    decoded = decode_file(tmp_path / "a.tif")
    np.testing.assert_array_equal(decoded.pixels, rgb[..., :3])
    assert "extra channel" in decoded.remarks[0].kind
    tifffile.imwrite(tmp_path / "b.tif", texture(16, 20, 5, dtype=np.uint8), photometric="minisblack", planarconfig="contig")
    with pytest.raises(Unreadable, match="5 channels"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize(
    ("dtype", "reason"),
    [
        (np.int8, "signed pixels from -128 to 127"),
        (np.int16, "signed pixels from -"),
        (np.int32, "signed pixels"),
        (np.float16, "floating-point"),
        (np.float32, "floating-point"),
        (np.float64, "floating-point"),
        (np.complex64, "complex"),
        (np.uint32, "values up to"),
    ],
)
@pytest.mark.parametrize("order", "<>")
def test_other_sample_formats_are_refused_with_the_reason(tmp_path, dtype, reason, order):
    kind = np.dtype(dtype)
    values = texture(16, 16, top=255, dtype=np.float64) - 128
    values = (values - values.min() + 2.0**20).astype(dtype) if kind == np.uint32 else np.rint(values).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", byteorder=order)
    with pytest.raises(Unreadable, match=reason):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32])
def test_integers_without_negative_values_are_kept(tmp_path, dtype):
    values = texture(16, 16, top=3000, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], values)


def test_sixteen_bit_cmyk_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", texture(16, 16, 4, top=65535, dtype=np.uint16), photometric="separated")
    with pytest.raises(Unreadable, match="SEPARATED with 16 bits"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(tmp_path, orientation):
    deep = texture(10, 14, top=65535, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="minisblack", extratags=[(274, "H", 1, orientation, True)])
    import pyvips

    want = pyvips.Image.new_from_file(str(tmp_path / "a.tif")).autorot().numpy()
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], want)
    np.testing.assert_array_equal(apply_orientation(deep[..., None], orientation)[..., 0], want)
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray((deep >> 8).astype(np.uint8)).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[..., 0], (want >> 8).astype(np.uint8))


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_truncated_deep_tiff_is_refused(tmp_path, coding, layout):
    tifffile.imwrite(tmp_path / "a.tif", texture(41, 53, top=65535, dtype=np.uint16), **LAYOUTS[layout], **CODINGS[coding])
    whole = (tmp_path / "a.tif").read_bytes()
    for cut in (40, len(whole) // 3):
        with pytest.raises(Unreadable, match="is broken"):
            read_image(write(tmp_path / "cut.tif", whole[:-cut]))


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_truncated_or_changed_deep_png_is_refused(tmp_path, channels):
    whole = png_bytes(texture(30, 30, channels, top=65535, dtype=np.uint16))
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 255
    for data in (whole[:-30], whole[: len(whole) // 2], whole[:-12], bytes(changed)):
        with pytest.raises(Unreadable, match="is broken"):
            read_image(write(tmp_path / "a.png", data))


@pytest.mark.parametrize(("gamma", "reported"), [(1.0, True), (1.8, True), (2.2, False), (2.6, True)])
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_a_gray_profile_unlike_srgb_is_reported_and_not_applied(tmp_path, gamma, reported, suffix):
    pixels = texture(16, 16)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", icc_profile=gray_profile(gamma))
    decoded = decode_file(tmp_path / f"a.{suffix}")
    assert bool(decoded.remarks) == reported
    if suffix != "jpg":
        np.testing.assert_array_equal(decoded.pixels[..., 0], pixels)
    if reported:
        assert "ICC profile" in decoded.remarks[0].kind


def test_profiles_of_colour_and_the_gamma_of_a_png(tmp_path):
    from PIL import ImageCms

    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(texture(16, 16, 3)).save(tmp_path / "a.png", icc_profile=srgb)
    assert not decode_file(tmp_path / "a.png").remarks
    deep = texture(16, 16, 3, top=65535, dtype=np.uint16)
    for gamma, number in ((100000, 1), (45455, 0)):  # 1.0 and 1 / 2.2
        chunk = png_chunk(b"gAMA", np.array([gamma], ">u4").tobytes())
        assert len(decode_file(write(tmp_path / "b.png", png_bytes(deep, chunk))).remarks) == number
    Image.fromarray(texture(16, 16)).save(tmp_path / "c.png", icc_profile=b"x" * 150)
    assert "damaged" in decode_file(tmp_path / "c.png").remarks[0].kind


def write(path, data):
    path.write_bytes(data)
    return path
