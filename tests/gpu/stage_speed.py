"""Images a second of the real loop, with launches and the device's busy share, for the shapes of docs/performance.md."""

import statistics
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from pretrain.loop.setup import Setup
from pretrain.loop.timing import STEP_PARTS
from pretrain.loop.train import autocast, set_memory_format
from tests.gpu.made_data import store_path
from tests.gpu.session import GpuSession, Result, cuda_code_path
from tests.gpu.training import build_run, train

LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
VIT_TINY = ["arch=vit_tiny_patch16_224", "model_args={depth: 1, patch_size: 8, embed_dim: 48, dynamic_img_size: true}"]


class Shape(NamedTuple):
    """A recipe at the size of an aim. aim: images a second on one H200; None: measured without an aim."""

    recipe: str
    words: tuple[str, ...]
    store: str
    aim: int | None
    tiny: tuple[str, ...]  # settings of the dry run


ADAMW, VIT_S = "optim.kind=adamw", "arch=vit_small_patch16_224"
SMALL_MOCO = ("arch=test_resnet", "method.hidden=32", "method.queue=32")
SMALL_DINO = (*VIT_TINY, "method.prototypes=64", "method.n_local=2")
SHAPES = {
    "SimCLR ViT-S/16, 2 x 256": Shape("cxr_simclr_tiny", (VIT_S, "batch=256", ADAMW, "augment.preset=cxr"), "gray", 3300, (*VIT_TINY,)),
    "VICReg ViT-S/16, 2 x 256": Shape("cxr_vicreg", (VIT_S, "batch=256", ADAMW), "gray", 3300, (*VIT_TINY, "method.dim=32")),
    "MoCo v2 ResNet-50, 256": Shape("cxr_moco", ("batch=256",), "gray", 2800, SMALL_MOCO),
    "MoCo v2 ResNet-50, 256, histology": Shape("path_moco", ("arch=resnet50", "batch=256", "optim.kind=sgd"), "rgb", None, SMALL_MOCO),
    "DINO ViT-S/16, 10 views, 128": Shape("cxr_dino", ("batch=128",), "gray", 1800, SMALL_DINO),
    "MAE ViT-B/16, 256": Shape(
        "cxr_mae",
        ("arch=vit_base_patch16_224", "batch=256", "method.mask_ratio=0.75", "method.decoder_depth=8"),
        "gray",
        4500,
        (*VIT_TINY, "method.decoder_width=32", "method.decoder_depth=1", "method.decoder_heads=2"),
    ),
}


def shape_run(session: GpuSession, name: str, *more: str, steps: int = 12) -> Setup:
    """The run of a shape; small in a dry run."""
    shape = SHAPES[name]
    channels = 1 if shape.store == "gray" else 3
    small = session.tiny
    words = [
        *shape.words,
        f"data.store={store_path(session, shape.store)}",
        "init=null",
        "epochs=null",
        f"steps={2 if small else steps}",
        "warmup_epochs=0",
        "warmup_steps=1",
        f"log_every={1 if small else 2}",
        "accumulate=1",
        f"size={32 if small else 224}",
        f"data.workers={session.workers}",
        f"precision={'bf16' if session.cuda else 'fp32'}",
        f"preprocess.mean={[0.5] * channels}",
        f"preprocess.std={[0.25] * channels}",
        *(("batch=8", "threads=1", *shape.tiny) if small else ()),
    ]
    return build_run(session, shape.recipe, [*words, *more], session.device)


def measure_shape(session: GpuSession, name: str) -> Result:
    """Images a second of the loop and where its time goes, then augmentation alone and network with optimizer alone."""
    if session.cuda:
        torch.cuda.reset_peak_memory_stats(session.device)
    setup = shape_run(session, name)
    lines = train(session, setup)
    late = lines[len(lines) // 2 :]
    result: Result = {
        "images_s": statistics.median(line["time/images_per_s"] for line in late),
        "aim_images_s": SHAPES[name].aim,
        "data_wait": statistics.median(line["time/data_wait"] for line in late),
        "memory_gib": lines[-1]["time/memory_gib"],
        "loss": [lines[0]["loss"], lines[-1]["loss"]],
        "shares": {part: round(statistics.median(line[f"time/{part}"] for line in late), 3) for part in STEP_PARTS},
    }
    with cuda_code_path(session):
        result |= _measure_parts(session, setup)
    if session.cuda:
        torch.cuda.empty_cache()
    return result


def _measure_parts(session: GpuSession, setup: Setup) -> Result:
    """The device's time of augmentation alone, and of network with optimizer alone; launches and busy share of both."""
    batches, method, cfg, repeats = setup.batches, setup.method, setup.recipe, 1 if session.tiny else 4
    raw = batches._work.read_raw(0)
    made: Any = None

    def augment() -> None:
        nonlocal made
        made = batches._augment_on_device(raw)
        batches._copies.hand_over([made.index])

    result: Result = {"augment_ms": session.milliseconds(augment, repeats, 1), "augment_profile": profile_device(session, augment, 1)}
    made = made._replace(**{name: column[made.index] for name, column in batches._columns.items()})
    method.train()

    def step() -> None:
        with autocast(cfg.precision, setup.device):
            views = set_memory_format(made.views, cfg.channels_last)
            outputs = method(views, made.masks, progress=0.5, **made.image_values())
        outputs["loss"].backward()
        method.after_backward(0.5)
        setup.optimizer.step()
        method.after_step(0.5)
        setup.optimizer.zero_grad(set_to_none=True)

    ms = session.milliseconds(step, repeats, 0 if session.tiny else 2)
    result |= {"network_ms": ms, "network_images_s": 1e3 * cfg.batch / ms, "network_profile": profile_device(session, step, 2)}
    batches.close()
    return result


def profile_device(session: GpuSession, work: Callable[[], None], repeats: int) -> Result:
    """Launches, copies and waits of one repetition, the device's busy share, and its longest kernels; {} without a GPU."""
    if not session.cuda:
        return {}
    session.sync()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        session.sync()
        wall = time.perf_counter() - started
    busy, counts, longest = 0.0, Counter[str](), Counter[str]()
    for event in seen.events():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            busy += event.device_time
            longest[event.name[:70]] += event.device_time
            counts["copies" if "Memcpy" in event.name or "Memset" in event.name else "kernels"] += 1
        elif event.name in LAUNCHES:
            counts["launches"] += 1
        elif event.name in WAITS:
            counts["waits"] += 1
    return {
        "ms": 1e3 * wall / repeats,
        "busy_share": busy / 1e6 / wall,
        **{name: n / repeats for name, n in counts.items()},
        "longest_ms": {name: round(us / 1e3 / repeats, 2) for name, us in longest.most_common(8)},
    }


def measure_compilation(session: GpuSession) -> Result:
    """`compile: true`: seconds until the first line, and images a second then."""
    if not session.cuda:
        return {"note": "needs a GPU"}
    result: Result = {}
    for name in ("SimCLR ViT-S/16, 2 x 256", "MAE ViT-B/16, 256"):
        if session.seconds_left() < 60:
            result[name] = "skipped: less than 60 s left"
            continue
        started = time.perf_counter()
        lines = train(session, shape_run(session, name, "compile=true", steps=16))
        result[name] = {
            "images_s": statistics.median(line["time/images_per_s"] for line in lines[-3:]),
            "until_first_line_s": lines[0]["at"] - started,
            "seconds": time.perf_counter() - started,
            "loss": [lines[0]["loss"], lines[-1]["loss"]],
        }
    return result
