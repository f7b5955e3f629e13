"""Augmentation and batches: a device gives what a CPU gives."""

import numpy as np
import torch

from encoders.augment.apply import augment, to_planar_float
from encoders.augment.draw import draw_params
from encoders.augment.masks import RandomTokens
from encoders.augment.presets import PRESETS
from encoders.loading.batches import Batches, MicroBatch
from encoders.store.store import Store
from tests.gpu.made_data import made_up_pixels, made_up_preprocess, store_path
from tests.gpu.session import GpuSession, Result, cuda_code_path

VIEW_TOLERANCE = 1e-3  # of a view in [0, 1]
BATCH_TOLERANCE = 4e-3  # of a normalised view, in standard deviations
ALL_KNOBS = {"noise": 0.7, "cutout": 0.7, "window": 0.7, "gamma": 0.7, "solarise": 0.3, "elastic": 0.5, "clahe": 0.3}


def compare_augmentation(session: GpuSession) -> Result:
    """Every preset, and every knob at once, at several sizes of image and view: the largest difference of a pixel."""
    cases = {name: cfg for name, cfg in PRESETS.items() if name != "none"}
    cases["cxr, all knobs"] = PRESETS["cxr"].model_copy(update=ALL_KNOBS)
    cases["histology, all knobs"] = PRESETS["histology"].model_copy(update=ALL_KNOBS | {"rotate": 20.0})
    each: dict[str, float] = {}
    for name, cfg in cases.items():
        channels = 3 if any(word in name for word in ("histology", "dermoscopy")) else 1
        for side, size in ((40, 32),) if session.tiny else ((256, 224), (512, 96), (200, 224)):
            n = 6 if session.tiny else 12
            pixels = made_up_pixels(n, side, channels, seed=3)
            params = draw_params(cfg, 0, np.arange(n), 0, (side, side))
            want = augment(to_planar_float(pixels, 255.0), params, size)
            with cuda_code_path(session):
                got = augment(to_planar_float(torch.from_numpy(pixels).to(session.device), 255.0), params, size).cpu()
            each[f"{name} {side}->{size}"] = off = float((got - want).abs().max())
            if not off < VIEW_TOLERANCE:
                session.flag(f"augmentation {name}, {side} to {size} px: CPU and device differ by {off:.2e}")
    return {"largest": max(each.values()), "each": each}


def compare_batches(session: GpuSession) -> Result:
    """`Batches` with masks and patients, and with loader processes: the device gets what the CPU makes."""
    prep, store = made_up_preprocess(32, 1), store_path(session, "small")
    patients = np.repeat(np.arange(80), 2)

    def take(device: str | torch.device, workers: int) -> list[MicroBatch]:
        there = device is session.device
        with Batches(
            Store.open(store),
            [PRESETS["cxr"]] * 2,
            prep,
            seed=1,
            batch=32,
            accumulate=2,
            workers=workers,
            device=device,
            mask=RandomTokens(tokens=16, ratio=0.75),
            patients=patients,
        ) as batches:
            if session.as_cuda and there:
                batches._work.augments, batches._copy_ahead = False, True
            with cuda_code_path(session, there):
                return [micro for step in (0, 1, 4) for micro in batches.micro_batches(step)]

    want, worst = take("cpu", 0), 0.0
    for workers in (0, 1 if session.tiny else 2):
        for a, b in zip(take(session.device, workers), want, strict=True):
            for name in ("index", "positions", "patient_ids"):
                if not torch.equal(getattr(a, name).cpu(), getattr(b, name)):
                    session.flag(f"batches: {name} differs with {workers} loader processes")
            masks = [pair for p, q in zip(a.masks or [], b.masks or [], strict=True) for pair in zip(p, q, strict=True)]
            if not all(torch.equal(x.cpu(), y) for x, y in masks):
                session.flag(f"batches: masks differ with {workers} loader processes")
            worst = max(worst, *(float((x.cpu() - y).abs().max()) for x, y in zip(a.views, b.views, strict=True)))
    if not worst < BATCH_TOLERANCE:
        session.flag(f"batches: views differ by {worst:.1e} standard deviations")
    return {"largest": worst}
