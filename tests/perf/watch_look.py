"""Prints the CPU time of one look of the watchdog at features: by decompositions of the whole matrix, and as it is. Takes a minute.

    python -m tests.perf.watch_look [--images 256] [--widths 128 2048 65536]

A head of DINO has 65,536 outcomes. The features are noise ("plain") and noise around a common direction ("collapsing": the mean is 1,000
times the noise, which the Gram matrix alone could not resolve).
"""

import argparse
import time
from unittest.mock import patch

import torch
from torch import Tensor

from pretrain.watch import spectrum
from pretrain.watch.probe import feature_statistics


def decompose(x: Tensor, count: int | None = None) -> Tensor:
    return torch.linalg.svdvals(x.double())[:count]


def look(x: Tensor) -> tuple[float, float]:
    """CPU seconds of all statistics of (N, D), and the effective rank."""
    start = time.process_time()
    rank = feature_statistics(x, "")["watch/rank"]
    return time.process_time() - start, rank


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--images", type=int, default=256)
    ask.add_argument("--widths", type=int, nargs="+", default=[128, 2048, 65536])
    args = ask.parse_args()
    torch.set_num_threads(1)
    for width in args.widths:
        noise = torch.randn(args.images, width, generator=torch.Generator().manual_seed(0))
        for name, x in {"plain": noise, "collapsing": noise + 1000}.items():
            with patch.object(spectrum, "singular_values", decompose):
                slow, rank = look(x)
            fast, got = look(x)
            print(
                f"{args.images} x {width}, {name}: {slow:.3f} s by decompositions, {fast:.3f} s; ranks differ by {abs(got / rank - 1):.0e}"
            )


if __name__ == "__main__":
    main()
