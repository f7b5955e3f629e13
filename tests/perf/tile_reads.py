"""Tile reads for training: random 256-px JPEG tiles through Store.image, in tiles per second on one core.

    python tests/perf/tile_reads.py [--data ../shared/data] [--reads 2000]

The tiles are those of the real slides in the data folder, ingested at 0.5 um. CPU seconds, best and median of seven rounds, so that other
load matters less. Target: 1,800 per second.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from encoders.ingest.wsi.cohort import Cohort
from encoders.ingest.wsi.ingest_slides import ingest_slides
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.runtime.allocator import keep_freed_memory
from encoders.runtime.cli import progress_counter
from encoders.store.store import Store

SLIDES = {"cmu-1-small-region.svs": None, "derived/monuseg_tma_pyramid.tiff": None, "tcga-cr-7395-01a-01-ts1.svs": 0.25}


def cpu_seconds(read: Callable[[int], object], order: list[int]) -> float:
    """CPU seconds of reading the rows `order`."""
    start = time.process_time()
    for i in order:
        read(i)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--reads", type=int, default=2000)
    args = parser.parse_args()
    keep_freed_memory()  # as every command does
    with tempfile.TemporaryDirectory() as folder:
        items = tuple(SlideItem(Path(name).stem, args.data / "wsi" / name, name, mpp) for name, mpp in SLIDES.items())
        ingest_slides(Cohort(items, TilingSettings(), Path(folder) / "out", "perf"), 1, False, progress_counter)
        store = Store.open(f"{folder}/out/*.h5")
        order = np.random.default_rng(0).integers(0, len(store), args.reads).tolist()
        sizes = [np.diff(part.offsets).mean() / 1e3 for part in store.parts]
        blobs = [part.path.read_bytes()[a:b] for part in store.parts for a, b in pairwise(part.offsets.tolist())]
        rates, decoder_rates = [], []
        for _ in range(7):
            rates.append(args.reads / cpu_seconds(store.image, order))
            decoder_rates.append(args.reads / cpu_seconds(lambda i: Image.open(io.BytesIO(blobs[i])).load(), order))
    print(f"{len(store)} tiles of {', '.join(f'{size:.0f}' for size in sizes)} kB in {len(store.parts)} slides")
    print(f"{max(rates):.0f} tiles/s at best, {statistics.median(rates):.0f} in the median (target: 1,800)")
    ratios = sorted(a / b for a, b in zip(rates, decoder_rates, strict=True))
    spread = f"{ratios[0]:.2f}-{ratios[-1]:.2f}"
    print(f"{statistics.median(ratios):.2f} ({spread}) of the rate of Pillow's decoder alone, which reached {max(decoder_rates):.0f}")


if __name__ == "__main__":
    main()
