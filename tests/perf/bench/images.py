"""Rows on images: augmentation, reads, tiling, copies, registering a task."""

import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tests.perf.bench.measure import NOT_INSTALLED, Row, alternate, cpu_seconds, is_installed

AUGMENTATIONS = (("moco", 1, 1.0), ("moco", 3, 1.0), ("cxr", 1, 1.0))  # preset, channels, limit against float32 albumentations
TURNS = 3  # of 64 images each, per round
DATA = Path(os.environ.get("ISOGRAFT_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


def augmentation() -> Iterator[Row]:
    """Two views of 64 images of 256 px, with the same operations by each peer."""
    from tests.perf.augment import PEERS, SIDE, N, augment_with_ours

    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    for name, channels, limit in AUGMENTATIONS:
        images = rng.integers(0, 256, (N, 32, 32, channels), dtype=np.uint8).repeat(SIDE // 32, 1).repeat(SIDE // 32, 2)
        work = f"two views, {name}, {'RGB' if channels == 3 else 'gray'}, {TURNS * N} images"
        present = {peer: make for peer, make in PEERS.items() if is_installed(peer)}
        turns = [partial(repeat_turn, make(name, images)) for make in (augment_with_ours, *present.values())]
        ours, *others = alternate(5, *turns)
        for peer, seconds in zip(present, others, strict=True):
            yield Row(work, peer, limit, ours, seconds)
        yield from (Row(work, peer, note=NOT_INSTALLED, ours=ours) for peer in PEERS if peer not in present)


def augmentation_without_antialiasing() -> Iterator[Row]:
    """The views of MoCo in gray with the operation of albumentations: crops are reduced without antialiasing on both sides."""
    from encoders.augment import resize_crops
    from tests.perf.augment import SIDE, N, augment_with_albumentations, augment_with_ours

    work = f"the same, gray, no antialiasing on either side, {TURNS * N}"
    if not is_installed("albumentations"):
        yield Row(work, "albumentations", note=NOT_INSTALLED)
        return
    warnings.simplefilter("ignore")
    images = np.random.default_rng(0).integers(0, 256, (N, 32, 32, 1), dtype=np.uint8).repeat(SIDE // 32, 1).repeat(SIDE // 32, 2)
    ours, theirs = (partial(repeat_turn, make("moco", images)) for make in (augment_with_ours, augment_with_albumentations))

    def interpolated() -> None:
        with patch.object(resize_crops, "_band_rows", lambda low, extent, flip, picked, *rest: [None] * len(picked)):
            ours()

    yield Row(work, "albumentations", 1.0, *alternate(5, interpolated, theirs))


def repeat_turn(turn) -> None:
    for number in range(TURNS):
        turn(number)


def store_reads() -> Iterator[Row]:
    """Random images of 256 px through the store, and by np.memmap."""
    from tests.perf.store_reads import write_both

    with tempfile.TemporaryDirectory() as folder:
        store, mapped = write_both(Path(folder), 2000, (256, 256, 1))
        order = np.random.default_rng(1).permutation(2000).tolist() * 5
        turns = [lambda: [np.array(store.image(i)) for i in order], lambda: [np.array(mapped[i]) for i in order]]
        ours, theirs = alternate(5, *turns)
    yield Row("10,000 random reads, 256 px", "np.memmap", 2.0, ours, theirs)


def tiling() -> Iterator[Row]:
    """Tiling of a real slide, and a loop that only reads its tiles."""
    from encoders.ingest.wsi.settings import TilingSettings
    from encoders.ingest.wsi.slide_item import SlideItem
    from encoders.ingest.wsi.tile_plan import plan_tiles
    from tests.perf.tiling import time_bare_reads, time_tiling

    for name, mpp, slide_mpp in (("cmu-1-small-region.svs", 0.499, None), ("tcga-cr-7395-01a-01-ts1.svs", 0.5, 0.25)):
        path, work = DATA / "wsi" / name, f"tiling {name} at {mpp} um"
        if not path.exists():
            yield Row(work, "read_region", 1.3, note="needs the folder of real images (ISOGRAFT_DATA)")
            continue
        settings = TilingSettings(mpp=mpp)
        plan = plan_tiles(SlideItem("a", path, path.name, slide_mpp), settings)
        passes = -(-200 // len(plan.x))
        pairs = [(time_tiling(path, plan, settings, passes), time_bare_reads(path, plan, passes)) for _ in range(4)][1:]
        yield Row(work, "read_region", 1.3, *(list(side) for side in zip(*pairs, strict=True)))


def near_copies() -> Iterator[Row]:
    """Pairs of similar hashes among 32,768 images, and faiss, which compares all with all."""
    import faiss

    from encoders.similarity.hash_search import find_near_pairs
    from tests.perf.leak import hash_signs_of_random_images

    hashes = np.ascontiguousarray(hash_signs_of_random_images(32_768, np.random.default_rng(0))[:, 0])
    index = faiss.IndexBinaryFlat(256)
    index.add(hashes)
    ours, theirs = alternate(3, lambda: find_near_pairs(hashes), lambda: index.range_search(hashes, 9))
    yield Row("near-duplicates among 32,768 hashes (doctor)", "faiss, all pairs", 0.5, ours, theirs)


def tasks_add() -> Iterator[Row]:
    """`transfer tasks add` of 28,030 images (a quarter of NIH) with 14 labels, with its search for copies, and again."""
    from tests.perf.tasks_add import write_synthetic_store

    with tempfile.TemporaryDirectory() as folder:
        store = write_synthetic_store(Path(folder) / "s.h5", 28_030, 14)
        labels = [word for i in range(14) for word in ("--label", f"finding_{i:02d}")]
        command = [sys.executable, "-m", "transfer", "tasks", "add", "nih", str(store), "--replace", *labels]
        env = os.environ | {"ISOGRAFT_HOME": folder}
        first, again = (cpu_seconds(lambda: subprocess.run(command, check=True, env=env, stdout=subprocess.DEVNULL)) for _ in range(2))
    yield Row("tasks add, 28,030 images x 14 labels, with imports", limit=5.0, ours=[first])
    yield Row("the same again", limit=5.0, ours=[again])
