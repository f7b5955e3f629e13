"""Peak memory of tiling a slide of 100,000 x 100,000 pixels: glass with a disc of tissue, levels 1, 4 and 16; its tiles share their bytes.

    python tests/perf/slide_memory.py [--side 100000] [--tiles 1000]

Target: less than 1 GB per worker. Prints the maximum resident size of the process, libraries included.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TILE = 512


def make_slide(path: Path, side: int) -> None:
    """Writes the slide."""
    sys.path.insert(0, str(ROOT))
    from tests.encoders.ingest.wsi.slide_files import jpeg_tile, tissue_like, write_jpeg_slide

    pictures = [jpeg_tile(np.full((TILE, TILE, 3), 243, np.uint8)), *(jpeg_tile(tissue_like(TILE, TILE, seed)) for seed in range(8))]
    sizes = [(side // by, side // by) for by in (1, 4, 16)]

    def tile_index(level: int) -> np.ndarray:
        count = -(-sizes[level][0] // TILE)
        row, column = np.mgrid[:count, :count]
        middle = (np.stack([row, column]) + 0.5) * TILE / sizes[level][0] - 0.5
        return np.where(np.hypot(*middle) < 0.18, 1 + (row + 3 * column) % 8, 0)

    write_jpeg_slide(path, sizes, pictures, tile_index, side=TILE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=100_000)
    parser.add_argument("--tiles", type=int, default=1000, help="maximum number of tiles; 0: all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.tiff"
        make_slide(path, args.side)
        print(f"{args.side} x {args.side} pixels, {path.stat().st_size / 1e6:.0f} MB")
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        command = [
            "-m",
            "encoders.cli.main",
            "ingest",
            "wsi",
            str(path),
            f"{folder}/out",
            "--workers",
            "1",
            "--max-tiles",
            str(args.tiles),
        ]
        start = time.monotonic()
        subprocess.run([sys.executable, *command], check=True, cwd=ROOT)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        assert peak > before
        print(f"peak {peak / 1e6:.2f} GB in {time.monotonic() - start:.0f} s (target: less than 1 GB)")


if __name__ == "__main__":
    main()
