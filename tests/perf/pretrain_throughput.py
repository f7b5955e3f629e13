"""Prints images a second and data-wait of pretraining ViT-S/16, two views, batch 256, bf16, from an HDF5 store.

    python tests/perf/pretrain_throughput.py [--method simclr] [--workers 8] [--steps 60] [--compile] [--small]

Beside it stands stable-pretraining's published 870.9 images/s for the same shape on one H200. Aim there: 4,000, data-wait under 2 %.
Noise stands for the images: 2,048 of 256 px, gray, raw in the store, as `encoders ingest` leaves radiographs. The first third of the steps,
in which memory is allocated and kernels are compiled, is not counted. `--small` is a ViT of two blocks at 32 px with batch 16 for a CPU: it
shows that the script runs, its figure compares with nothing.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np

PUBLISHED = 870.9  # images a second, stable-pretraining, one H200
METHODS = ("byol", "moco", "simclr", "vicreg")
PARTS = ("wait", "augment", "forward", "backward", "optimizer", "logging")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--method", default="simclr", choices=METHODS)
    ask.add_argument("--workers", type=int, default=min(8, len(os.sched_getaffinity(0)) - 1))
    ask.add_argument("--steps", type=int, default=60)
    ask.add_argument("--compile", action="store_true")
    ask.add_argument("--small", action="store_true")
    args = ask.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"ISOGRAFT_HOME": home, "WANDB_MODE": "disabled"}
        lines, device = run_and_read_record(Path(home), args)
    counted = lines[len(lines) // 3 :]
    rate = statistics.median(line["time/images_per_s"] for line in counted)
    shares = "  ".join(f"{p} {100 * statistics.median(line[f'time/{p}'] for line in counted):.1f} %" for p in PARTS)
    print(f"{device}, {args.method}, {'small' if args.small else 'ViT-S/16, 224 px, batch 256'}, {args.workers} worker(s)")
    print(f"{rate:.0f} images/s (median of {len(counted)} readings); published for the full shape on one H200: {PUBLISHED}")
    print(f"data-wait {100 * statistics.median(line['time/data_wait'] for line in counted):.1f} % (aim: under 2 %); {shares}")


def run_and_read_record(home: Path, args: argparse.Namespace) -> tuple[list[dict[str, float]], str]:
    """The lines of the record, and the device."""
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
    words = [
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
    made = build_setup(config.load_recipe(f"cxr_{args.method}_tiny", [*words, *more]), device)
    lines: list[dict[str, float]] = []

    def log(step: int, **numbers: object) -> None:
        lines.append({k: float(v) for k, v in numbers.items()})  # type: ignore[arg-type]

    fit(made.method, made.batches, made.optimizer, made.scaler, made.recipe, made.steps, made.warmup, TrainState(), log, lambda state: None,
        StopRequest(), made.device)  # fmt: skip
    made.batches.close()
    return lines, torch.cuda.get_device_name() if device == "cuda" else "CPU"


if __name__ == "__main__":
    main()
