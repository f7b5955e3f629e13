"""Prints images per second and data wait of pretraining ViT-S/16, two views, batch 256, bf16, from an HDF5 store.

    python tests/perf/pretrain_throughput.py [--method simclr] [--workers 8] [--steps 60] [--compile] [--small]

For comparison: stable-pretraining publishes 870.9 images/s for the same shape on one H200. Target on an H200: 4,000 images/s, data wait
under 2 %. The images are noise: 2,048 of 256 px, gray, uncompressed in the store, as `encoders ingest` writes radiographs. The first third
of the steps, in which memory is allocated and kernels are compiled, is not counted. `--small` is a ViT of two blocks at 32 px with batch 16
for a CPU: it shows that the script runs, and its result is not comparable.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np

PUBLISHED = 870.9  # images per second, stable-pretraining, one H200
METHODS = ("byol", "moco", "simclr", "vicreg")
PARTS = ("wait", "augment", "forward", "backward", "optimizer", "logging")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="simclr", choices=METHODS)
    parser.add_argument("--workers", type=int, default=min(8, len(os.sched_getaffinity(0)) - 1))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"ISOGRAFT_HOME": home, "WANDB_MODE": "disabled"}
        lines, device = run_and_read_record(Path(home), args)
    counted = lines[len(lines) // 3 :]
    rate = statistics.median(line["time/images_per_s"] for line in counted)
    shares = "  ".join(f"{p} {100 * statistics.median(line[f'time/{p}'] for line in counted):.1f} %" for p in PARTS)
    print(f"{device}, {args.method}, {'small' if args.small else 'ViT-S/16, 224 px, batch 256'}, {args.workers} worker(s)")
    print(f"{rate:.0f} images/s (median of {len(counted)} readings); published for the full shape on one H200: {PUBLISHED}")
    print(f"data wait {100 * statistics.median(line['time/data_wait'] for line in counted):.1f} % (target: under 2 %); {shares}")


def run_and_read_record(home: Path, args: argparse.Namespace) -> tuple[list[dict[str, float]], str]:
    """The logged lines, and the name of the device."""
    import torch

    from encoders.store.write import save_store
    from pretrain.loop.setup import build_setup
    from pretrain.loop.train import StopRequest, TrainState, fit
    from pretrain.recipe import config

    side, n = (40, 64) if args.small else (256, 2048)
    pixels = np.random.default_rng(0).integers(0, 256, (n, side, side, 1)).astype(np.uint8)
    shape = ["arch=vit_small_patch16_224", "size=224", "batch=256"]
    if args.small:
        shape = ["arch=vit_tiny_patch16_224", "model_args={depth: 2, patch_size: 8}", "size=32", "batch=16"]
    settings = [
        f"data.store={save_store(home / 'noise.h5', pixels)}",
        f"data.workers={args.workers}",
        f"compile={str(args.compile).lower()}",
        *shape,
    ]
    more = [
        f"precision={'fp32' if args.small else 'bf16'}",
        f"steps={args.steps}",
        "epochs=null",
        "warmup_steps=1",
        "log_every=2",
        "augment.preset=cxr",
    ]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    setup = build_setup(config.load_recipe(f"cxr_{args.method}_tiny", [*settings, *more]), device)
    lines: list[dict[str, float]] = []

    def log(step: int, **numbers: object) -> None:
        lines.append({k: float(v) for k, v in numbers.items()})  # type: ignore[arg-type]

    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, setup.steps, setup.warmup, TrainState(), log,
        lambda state: None, StopRequest(), setup.device)  # fmt: skip
    setup.batches.close()
    return lines, torch.cuda.get_device_name() if device == "cuda" else "CPU"


if __name__ == "__main__":
    main()
