"""Features and fine-tuning: a device gives what a CPU gives, and how fast it is."""

import time

import numpy as np
import torch

from encoders.features.embed import extract_features
from encoders.zoo import backbone
from tests.gpu.made_data import open_store, random_encoder
from tests.gpu.session import GpuSession, Result, cuda_code_path, relative_distance
from transfer.metrics import auroc
from transfer.protocols import finetune, finetune_training
from transfer.protocols.common import ImageSet

FEATURE_LIMITS = {"fp32": 1e-4, "bf16": 5e-2}  # relative
SCORE_LIMIT = 0.05  # of a probability after 12 steps
NETWORKS = {"resnet10t": {}, "vit_tiny_patch16_224": {"depth": 2}}


def compare_features(session: GpuSession) -> Result:
    """Features by `extract_features` in both precisions, also where TF32 was allowed before."""
    store, result = open_store(session, "small"), {}
    for arch, args in NETWORKS.items():
        want = extract_features(random_encoder(arch, "cpu", 32, **args), store, cache=False)
        for precision, limit in FEATURE_LIMITS.items():
            encoder = random_encoder(arch, session.device, 32, **args).with_precision(precision)  # type: ignore[arg-type]
            with cuda_code_path(session):
                got = extract_features(encoder, store, cache=False, workers=0 if session.tiny else 1)
            result[f"{arch} {precision}"] = off = relative_distance(torch.from_numpy(got), torch.from_numpy(want))
            if not off < limit:
                session.flag(f"embed {arch}: features in {precision} differ by {off:.1e} from those of the CPU in fp32")
    return result


def measure_embedding(session: GpuSession) -> Result:
    """Images a second of `encoders embed`, and of the forward pass alone."""
    result: Result = {}
    for kind, arch in (("gray", "resnet10t"),) if session.tiny else (("gray", "resnet50"), ("rgb", "vit_large_patch16_224")):
        store, size = open_store(session, kind), 32 if session.tiny else 224
        rows, channels = np.arange(min(len(store), 16 if session.tiny else 512)), store.channels
        for precision in ("fp32", "bf16"):
            encoder = random_encoder(arch, session.device, size, channels).with_precision(precision)  # type: ignore[arg-type]
            for workers in (0, session.workers):
                with cuda_code_path(session):
                    extract_features(encoder, store, index=rows[:8], cache=False)  # kernels are loaded
                    started = time.perf_counter()
                    extract_features(encoder, store, index=rows, workers=workers, cache=False, batch=64)
                result[f"{arch} {precision}, {workers} workers, images/s"] = len(rows) / (time.perf_counter() - started)
            x = torch.randn(8 if session.tiny else 64, channels, size, size, device=session.device)
            ms = session.milliseconds(lambda e=encoder, x=x: e.forward(x), repeats=1 if session.tiny else 5, warm_up=1)
            result[f"{arch} {precision}, forward pass alone, images/s"] = 1e3 * len(x) / ms
    return result


def compare_fine_tuning(session: GpuSession) -> Result:
    """Scores after 12 steps on both sides, and what `precision: auto` becomes."""
    store = open_store(session, "labeled")
    y, half = store.labels("y")[:, None], len(store) // 2
    result: Result = {}
    scores = []
    for device in ("cpu", session.device):
        encoder = random_encoder("test_resnet", device, 32)
        train, val = (_image_set(store, encoder, y, rows) for rows in (np.arange(half), np.arange(half, len(y))))
        cfg = finetune.Config(min_steps=12, max_steps=12, batch=16, evaluations=2, precision="fp32", augment={"preset": "none"})
        with cuda_code_path(session, device is session.device):
            scores.append(finetune.fit(cfg, train, val).scores(val))
        result["cpu auroc" if device == "cpu" else "device auroc"] = float(auroc(y[half:], scores[-1])[0])
    result["scores_off"] = off = float(np.abs(scores[0] - scores[1]).max())
    if not off < SCORE_LIMIT:
        session.flag(f"fine-tuning: scores differ by {off:.3f} between CPU and device")
    return result


def measure_fine_tuning(session: GpuSession) -> Result:
    """Milliseconds a step of a ViT-B and images a second of scoring, in the precisions that the device has."""
    store = open_store(session, "gray")
    size, arch = (32, "resnet10t") if session.tiny else (224, "vit_base_patch16_224")
    encoder, n = random_encoder(arch, session.device, size), len(store)
    y = (np.arange(n) % 2)[:, None].astype(np.float32)
    train, few = _image_set(store, encoder, y, np.arange(n)), _image_set(store, encoder, y, np.arange(min(n, 64)))
    steps, batch = (2, 8) if session.tiny else (14, 32)
    result: Result = {}
    for precision in ("fp32", "auto"):
        marks, real = [], finetune_training.set_lr

        def mark(*given, real=real, marks=marks):
            session.sync()
            marks.append(time.perf_counter())
            return real(*given)

        finetune_training.set_lr = mark
        budget = {"min_steps": steps, "max_steps": steps, "batch": batch, "evaluations": 1}
        cfg = finetune.Config(**budget, precision=precision, workers=0 if session.tiny else session.workers)
        try:
            with cuda_code_path(session):
                fitted = finetune.fit(cfg, train, few)
        finally:
            finetune_training.set_lr = real
        step = float(np.median(np.diff(marks)[steps // 3 :]))
        result[f"{arch}, batch {batch}, {precision}"] = {"ms_a_step": 1e3 * step, "images_s": batch / step}
    started = time.perf_counter()
    with cuda_code_path(session):
        fitted.scores(few if session.tiny else train)
    result["scoring in fp32, images/s"] = len(few if session.tiny else train) / (time.perf_counter() - started)
    return result


def _image_set(store, encoder, y: np.ndarray, rows: np.ndarray) -> ImageSet:
    key, patient = store.column("key"), store.column("patient")
    return ImageSet(store, encoder, rows, y[rows], key[rows], patient[rows], "binary")


def measure_forward_precisions(session: GpuSession) -> Result:
    """How far features in TF32 and bf16 are from fp32, by the network alone."""
    arch, size = ("resnet10t", 32) if session.tiny else ("resnet50", 224)
    encoder = random_encoder(arch, session.device, size)
    x, result = torch.randn(4 if session.tiny else 64, 1, size, size, device=session.device), {}
    want = encoder.forward(x)
    result["bf16_off"] = relative_distance(encoder.with_precision("bf16").forward(x), want)
    if session.cuda:
        before = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = True
        with torch.inference_mode():
            result["tf32_off"] = relative_distance(backbone.pooled_features(encoder.model, x), want)
        torch.backends.cudnn.allow_tf32 = before
    return result
