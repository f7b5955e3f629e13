"""Turned, resized, inverted and padded copies are found and confirmed; other images are not."""

import numpy as np
import pytest

from encoders.ingest.decode import read_image
from encoders.similarity import near_duplicates, turned_search
from encoders.similarity.near_duplicates import canonical_hashes, compute_copies, list_pairs
from encoders.similarity.perceptual_hash import hash_signs
from encoders.similarity.pixel_check import MIN_CORRELATION, are_copies, structure_correlation
from encoders.similarity.turned_search import Candidate, find_candidates, read_signs
from encoders.similarity.turns import TURNS
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.encoders.similarity.pictures import COPIES, inverted, padded, recompressed, resized, textured
from tests.store_edits import edit_store


def candidates(originals, copies, **options):
    signs, others = (np.stack([hash_signs(np.ascontiguousarray(i)) for i in images]) for images in (copies, originals))
    return find_candidates(signs, others[:, 0], others[:, 2], **options)


@pytest.mark.parametrize("change", COPIES)
def test_a_copy_is_found_and_confirmed_and_only_its_own_original(change):
    originals = [textured(seed) for seed in range(40)]
    copies = [COPIES[change](i) for i in originals]
    found = candidates(originals, copies)
    confirmed = {
        c.query for c in found if c.query == c.match and are_copies(copies[c.query] / 255, originals[c.match] / 255, TURNS[c.turn])
    }
    assert len(confirmed) >= 38, f"{len(confirmed)} of 40"
    assert all(c.query == c.match for c in found)
    back = candidates(copies, originals)  # the copy in the data that are searched, the original among the queries
    assert len({c.query for c in back if c.query == c.match}) >= 38


@pytest.mark.parametrize(
    "change",
    [
        lambda i, other: other,
        lambda i, other: other[:, ::-1],
        lambda i, other: inverted(other),
        lambda i, other: np.rot90(padded(other)),
        lambda i, other: (0.5 * i + 0.5 * other).astype(np.uint8),  # half of it is the image
        lambda i, other: i[15:, 15:],  # a crop, which stays invisible
    ],
)
def test_other_images_are_not_confirmed_under_any_turn(change):
    images = [textured(seed) for seed in range(12)]
    for i, image in enumerate(images):
        changed = change(image, images[i - 1])
        assert max(structure_correlation(changed / 255, image / 255, turn) for turn in TURNS) < MIN_CORRELATION


def test_without_hashes_of_trimmed_images_only_copies_padded_on_the_other_side_are_missed():
    images = [textured(seed) for seed in range(10)]
    framed = [padded(i, 255) for i in images]
    signs, plain = np.stack([hash_signs(i) for i in images]), np.stack([hash_signs(i)[0] for i in framed])
    assert find_candidates(signs, plain, None) == []
    others = np.stack([hash_signs(i) for i in framed])
    assert {c.query for c in find_candidates(others, signs[:, 0], None)} == set(range(10))


def test_blank_images_are_not_turned():
    blank = np.zeros((3, 64, 64, 1), np.uint8)
    blank[:, 30:, 20:] = 9
    assert {c.turn for c in candidates(blank, blank)} == {0}


def test_a_pair_is_listed_once_and_of_equal_hashes_only_the_first():
    rotated, back = (next(n for n, t in enumerate(TURNS) if str(t) == f"rotated by {d} degrees") for d in (90, 270))
    found = [Candidate(0, 0, 0, 0), Candidate(0, 1, 0, 0), Candidate(0, 2, 3, 0), Candidate(0, 2, 3, rotated)]
    found += [Candidate(1, 0, 0, 0), Candidate(1, 1, 0, 0), Candidate(2, 0, 3, 0), Candidate(2, 0, 3, back), Candidate(3, 3, 0, 1)]
    assert list(list_pairs(found)) == [(0, 2, 0), (0, 2, rotated), (0, 1, 0)]


def copies_in(path, images):
    return compute_copies(Store.open(save_store(path, np.stack(images))))


def test_copies_within_a_store_are_found_whatever_was_done_to_them(tmp_path):
    images = [textured(seed) for seed in range(30)]
    images += [
        np.rot90(images[3]),
        recompressed(inverted(images[5])[:, ::-1]),
        resized(padded(images[7], 255), 96),
        recompressed(images[3]),
        images[9],
    ]
    pairs = copies_in(tmp_path / "s.h5", images)
    assert [tuple(p) for p in pairs] == [(3, 30), (3, 33), (5, 31), (7, 32), (30, 33)]  # 34 is identical to 9
    store = Store.open(tmp_path / "s.h5")
    names = canonical_hashes(store, store.column("sha256"))
    assert names[3] == names[30] == names[33]
    assert len(set(names)) == 30


def test_different_images_with_equal_hashes_are_no_copies(tmp_path):
    """The hash does not see a fine pattern, the pixels do."""
    base = np.add.outer(np.arange(96), np.arange(96)) + 30
    checks = np.kron(np.random.default_rng(0).choice([-8, 8], (2, 32, 32)), np.ones((3, 3), int))
    images = [(base + c).astype(np.uint8)[..., None] for c in checks]
    assert candidates(images[:1], images[1:])
    assert len(copies_in(tmp_path / "s.h5", images)) == 0


def test_a_store_without_the_stored_signs_gives_the_same_from_its_pixels_once(tmp_path, monkeypatch):
    images = np.stack([textured(0), padded(textured(1), 0, 0.1, 0.1, 0.1, 0.1)[:96, :96], np.rot90(textured(0))])
    path = save_store(tmp_path / "s.h5", images)
    stored = read_signs(Store.open(path))
    with edit_store(path) as file:
        del file["index/phash_signs"]
    old = Store.open(path)
    np.testing.assert_array_equal(read_signs(old), stored)
    assert [tuple(p) for p in compute_copies(old)] == [(0, 2)]
    monkeypatch.setattr(turned_search, "hash_signs", None)
    np.testing.assert_array_equal(read_signs(Store.open(path)), stored)


def test_what_is_cached_depends_on_the_search(tmp_path, monkeypatch):
    store = Store.open(save_store(tmp_path / "s.h5", np.stack([textured(0), np.rot90(textured(0))])))
    assert len(near_duplicates.find_copies(store)) == 1
    monkeypatch.setattr(near_duplicates, "compute_copies", lambda store: np.empty((0, 2), np.int64))
    assert len(near_duplicates.find_copies(store)) == 1
    monkeypatch.setattr(near_duplicates, "MIN_CORRELATION", 0.999)
    assert len(near_duplicates.find_copies(store)) == 0


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("folder", "step"), [("cxr_kermany224", 120), ("cxr_hannover", 15), ("path_lc25000_lung224", 120)])
def test_copies_of_real_images_are_found_and_confirmed(data_dir, folder, step):
    originals = [read_image(path)[..., :1] for path in sorted((data_dir / folder / "images").iterdir())[::step]]
    for name, change in COPIES.items():
        copies = [change(i) for i in originals]
        own = [c for c in candidates(originals, copies) if c.query == c.match]
        found = {c.query for c in own}
        confirmed = {c.query for c in own if are_copies(copies[c.query] / 255, originals[c.match] / 255, TURNS[c.turn])}
        least = 0.8 if "padded" in name else 1
        assert len(found) >= least * len(originals), name
        assert len(confirmed) >= least * len(originals), name


@pytest.mark.real
@pytest.mark.slow
def test_mirrored_radiographs_of_other_patients_are_neither_candidates_nor_confirmed(data_dir):
    """All 17 million pairs of Kermany's radiographs under every turn; the nearest of each turn are compared on their pixels."""
    paths = sorted((data_dir / "cxr_kermany224" / "images").iterdir())
    images = [read_image(path)[..., :1] for path in paths]
    signs = np.stack([hash_signs(i) for i in images])
    pairs = [c for c in find_candidates(signs, signs[:, 0], signs[:, 2]) if c.query != c.match]
    assert {c.turn for c in pairs} == {0}, "no flipped, rotated or inverted image of another patient is a candidate"
    assert {tuple(sorted(c[:2])) for c in pairs if (images[c.query] != images[c.match]).any()} == set()
