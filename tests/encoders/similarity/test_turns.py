"""The hashes of the sixteen turns of an image, computed from its signs, are those of the turned images."""

import numpy as np
import pytest

from encoders.similarity.perceptual_hash import hash_signs, phash256
from encoders.similarity.turns import TURNS, Turn, inverse_turn, turn_hashes
from tests.encoders.similarity.pictures import textured


def turned(image, turn):
    """The turn written as NumPy's own operations."""
    image = 255 - image if turn.inverted else image
    image = image.swapaxes(0, 1) if turn.transposed else image
    image = np.flipud(image) if turn.flipped_rows else image
    return np.fliplr(image) if turn.flipped_columns else image


@pytest.mark.parametrize("size", [(96, 96), (80, 120)])
def test_hashes_of_turned_images_follow_from_the_signs(size):
    images = [textured(seed, 128)[: size[0], : size[1]] for seed in range(12)]
    for image in images[:4]:
        image[:20, :30], image[-10:] = 0, 255  # flat areas, in which cells are equal
    signs = np.stack([hash_signs(image) for image in images])
    hashes = turn_hashes(signs[:, 0], signs[:, 1])
    assert hashes.shape == (16, 12, 32)
    for number, turn in enumerate(TURNS):
        want = np.stack([phash256(np.ascontiguousarray(turned(image, turn))) for image in images])
        assert np.unpackbits(want ^ hashes[number]).sum() <= 2, f"{turn}: rounding of a cell or two"


def test_the_turns_are_all_different_and_include_the_rotations():
    corner = np.arange(6.0).reshape(2, 3)
    views = {(turn.inverted, turn.apply(corner).tobytes(), turn.apply(corner).shape) for turn in TURNS}
    assert len(views) == 16
    for quarter, degrees in ((1, 90), (2, 180), (3, 270)):
        (turn,) = [t for t in TURNS if str(t) == f"rotated by {degrees} degrees"]
        np.testing.assert_array_equal(turn.apply(corner), np.rot90(corner, quarter))
    assert str(TURNS[0]) == ""
    assert str(Turn(True, False, False, True)) == "inverted, mirrored"


@pytest.mark.parametrize("number", range(16))
def test_the_inverse_of_a_turn_brings_the_image_back(number):
    image = np.arange(24.0).reshape(2, 3, 4)
    back = TURNS[inverse_turn(number)]
    np.testing.assert_array_equal(back.apply(TURNS[number].apply(image)), image)
    assert back.inverted == TURNS[number].inverted
