"""Trains the smallest network of every timm family that has BatchNorm with frozen statistics, and checks that they stay bit-identical.

    python tests/perf/frozen_families.py [--only WORD]

A family is a module of timm and the letters that a name begins with. Each network takes two steps of MoCo on noise, at 64 px or the
smallest size that it accepts, from statistics drawn at random; the EMA copy is checked as well. `frozen` and `train`: statistics that
changed with and without freezing (the second must not be 0). `weights`: tensors that changed, of all; `affine`: scales and shifts of the
frozen layers that changed, of all. A weight that the features do not depend on, such as that of a second head, does not change.
"""

import argparse
import os
import time
import traceback

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from tests.pretrain import frozen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    started, families, failures, layers = time.perf_counter(), 0, [], 0
    for (module, prefix), arch in frozen.smallest_members():
        if only not in arch:
            continue
        families += 1
        try:
            kept, moved = frozen.train(arch), frozen.train(arch, frozen=False)
        except (RuntimeError, AssertionError, TypeError, ValueError):
            print(f"{module:22} {prefix:16} {arch:40} could not be trained\n{traceback.format_exc()}", flush=True)
            failures.append(arch)
            continue
        layers += kept.layers
        good = not kept.statistics_changed and not kept.others_changed and kept.weights_changed and moved.statistics_changed
        failures += [] if good else [arch]
        print(
            f"{module:22} {prefix:16} {arch:40} layers {kept.layers:4}  frozen {len(kept.statistics_changed)}  "
            f"train {len(moved.statistics_changed):4}  weights {kept.weights_changed}/{kept.weights}  "
            f"affine {kept.affine_changed}/{kept.affine}  other buffers {kept.others_changed}{'' if good else '  WRONG'}",
            flush=True,
        )
    print(f"{families - len(failures)} of {families} families as expected, {layers} layers, {time.perf_counter() - started:.0f} s")
    print(f"not as expected: {failures}" if failures else "all statistics of frozen networks are bit-identical")


if __name__ == "__main__":
    main()
