"""Tiling a slide against a plain loop that only reads the same tiles: read_region, RGB, NumPy.

    python tests/perf/tiling.py [--data ../shared/data] [--rounds 7] [--tiles 600]

Tiling is: read, composite, check quality, JPEG, hash, write. CPU seconds, alternating, median of the rounds, so that other load matters
less. The slides are small, so each is read several times per round and opened again each time: tiles of one pass must not be in
OpenSlide's cache in the next, as is the case with a large slide. Target: a ratio of at least 0.7 on one core, and with --cores, 1.8 times
the tiles with two processes (wall time: the machine must be idle).
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import openslide

from encoders.ingest.wsi.cohort import Cohort
from encoders.ingest.wsi.ingest_slides import ingest_slides
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.slide import Slide
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.tile_plan import TilePlan, plan_tiles
from encoders.ingest.wsi.tile_shard import TILES_PER_SHARD, write_tile_shard
from encoders.runtime.allocator import keep_freed_memory
from encoders.runtime.cli import progress_counter


def time_bare_reads(path: Path, plan: TilePlan, passes: int) -> float:
    """CPU seconds of only reading the tiles of a plan."""
    size = [round(span) for span in plan.cut.span]
    start = time.process_time()
    for _ in range(passes):
        slide = openslide.OpenSlide(path)
        for x, y in zip(plan.x.tolist(), plan.y.tolist(), strict=True):
            np.asarray(slide.read_region((x, y), plan.cut.level, size).convert("RGB"))
        slide.close()
    return time.process_time() - start


def time_tiling(path: Path, plan: TilePlan, settings: TilingSettings, passes: int) -> float:
    """CPU seconds of tiling them."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        for _ in range(passes):
            slide = Slide(path)
            for number in range(-(-len(plan.x) // TILES_PER_SHARD)):
                write_tile_shard(slide, plan, number, settings, Path(folder), lambda n: None)
            slide.close()
        return time.process_time() - start


def compare_on_one_core(path: Path, slide_mpp: float | None, mpp: float, rounds: int, tiles: int) -> None:
    settings = TilingSettings(mpp=mpp)
    plan = plan_tiles(SlideItem("a", path, path.name, slide_mpp), settings)
    passes = -(-tiles // len(plan.x))
    pairs = [(time_bare_reads(path, plan, passes), time_tiling(path, plan, settings, passes)) for _ in range(rounds)]
    ratios = sorted(a / b for a, b in pairs)
    each = [statistics.median(side) / len(plan.x) / passes * 1e3 for side in zip(*pairs, strict=True)]
    how = f"level {plan.cut.level}, {'unscaled' if plan.cut.exact and plan.cut.shrink == (1, 1) else 'resampled'}"
    print(
        f"{path.name} at {mpp} um ({how}): plain {each[0]:.2f} ms, tiling {each[1]:.2f} ms per tile ({1e3 / each[1]:.0f} tiles/s);"
        f" ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}, {rounds} rounds, {passes} x {len(plan.x)} tiles)"
    )


def compare_process_counts(path: Path, rounds: int) -> None:
    """Wall time of the whole command in one process and in two, on copies of a slide."""
    settings, items = TilingSettings(mpp=0.25), tuple(SlideItem(f"s{k}", path, path.name) for k in range(96))
    gains = []
    for _ in range(rounds):
        seconds = []
        for workers in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                ingest_slides(Cohort(items, settings, Path(folder) / "out", "perf"), workers, False, progress_counter)
                seconds.append(time.monotonic() - start)
        gains.append(seconds[0] / seconds[1])
    print(f"two processes over one: {statistics.median(gains):.2f} ({min(gains):.2f}-{max(gains):.2f}, {rounds} rounds; target 1.8)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tiles", type=int, default=600, help="tiles per round")
    parser.add_argument("--cores", action="store_true", help="also compare two processes with one")
    args = parser.parse_args()
    keep_freed_memory()  # as every command does
    slides = args.data / "wsi"
    for name, resolution, mpp in (
        ("cmu-1-small-region.svs", None, 0.499),
        ("derived/monuseg_tma_pyramid.tiff", None, 0.5),
        ("cmu-1-small-region.svs", None, 0.5),
        ("cmu-1-small-region.svs", None, 1.0),
        ("tcga-cr-7395-01a-01-ts1.svs", 0.25, 0.5),
    ):
        compare_on_one_core(slides / name, resolution, mpp, args.rounds, args.tiles)
    if args.cores:
        compare_process_counts(slides / "derived" / "monuseg_tma_pyramid.tiff", max(3, args.rounds // 2))


if __name__ == "__main__":
    main()
