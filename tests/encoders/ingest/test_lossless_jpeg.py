"""The compressed data of lossless JPEG have the length that their pixels need; damage that changes the length is found."""

import imagecodecs
import numpy as np
import pytest
from libjpeg import decode

from encoders.ingest.dicom.lossless_jpeg import find_unused_data
from encoders.ingest.dicom.stream_check import find_lossless_damage
from tests.encoders.ingest.image_files import texture

DEEP = texture(41, 50, top=4095, dtype=np.uint16)


@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize(("pixels", "bits"), [(DEEP, 12), (texture(20, 33), 8), (texture(30, 20, top=65535, dtype=np.uint16), 16)])
def test_the_length_is_that_of_whole_streams_of_libjpeg_turbo(predictor, pixels, bits):
    stream = imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=bits, predictor=predictor)
    np.testing.assert_array_equal(decode(stream).reshape(pixels.shape), pixels)
    assert find_unused_data(stream, decode(stream)) == ""


def test_colour_and_the_streams_of_another_encoder_are_whole():
    colour = texture(30, 41, 3)
    for stream in (
        imagecodecs.jpeg8_encode(colour, lossless=True, colorspace="rgb", outcolorspace="rgb"),
        imagecodecs.ljpeg_encode(DEEP, bitspersample=12),
    ):
        assert find_lossless_damage(stream) == ""


def test_a_missing_part_is_always_found_and_a_flipped_bit_often():
    stream = imagecodecs.ljpeg_encode(DEEP, bitspersample=12)
    start, rng, found, wrong = stream.index(b"\xff\xda") + 10, np.random.default_rng(0), 0, 0
    for at in rng.integers(start, len(stream) - 60, 40).tolist():
        cut = stream[:at] + stream[at + 40 : -2] + stream[-2:]
        assert find_lossless_damage(cut), at
        flipped = bytearray(stream)
        flipped[at] ^= 1 << int(rng.integers(8))
        words = find_lossless_damage(bytes(flipped))
        found += bool(words)
        wrong += not words and not np.array_equal(decode(bytes(flipped)), DEEP)
    assert found >= 5
    assert wrong, "most flips change a value and no length; docs/data.md says so"
