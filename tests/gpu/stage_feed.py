"""What the host gives to a device: images a second that are read and drawn, and the seconds of a look of the watchdog."""

import time

import torch

from encoders.augment.presets import PRESETS
from encoders.loading.batches import Batches
from pretrain.watch.probe import feature_statistics
from tests.gpu.made_data import made_up_preprocess, open_store
from tests.gpu.session import GpuSession, Result


def measure_feed(session: GpuSession) -> Result:
    """Images a second that `Batches` reads and draws, without a device, with and without loader processes."""
    result: Result = {}
    for kind, channels, preset in (("gray", 1, "cxr"), ("rgb", 3, "histology")):
        store, prep = open_store(session, kind), made_up_preprocess(32 if session.tiny else 224, channels)
        for workers in (0, session.workers):
            batch, micro_batches = (8, 2) if session.tiny else (256, 16)
            with Batches(store, [PRESETS[preset]] * 2, prep, seed=0, batch=batch, workers=workers) as batches:
                batches._work.augments = False  # as for a device: read and drawn only
                make = batches._next_micro_batch if workers else batches._work.read_raw
                for turn in range(2):
                    make(turn)
                started = time.perf_counter()
                for turn in range(2, 2 + micro_batches):
                    raw = make(turn)
                    if session.cuda:
                        raw.images.pin_memory()
                result[f"{kind}, {workers} workers, images/s"] = micro_batches * batch / (time.perf_counter() - started)
    return result


def measure_watchdog(session: GpuSession) -> Result:
    """Seconds of the spectrum of features and of wide heads."""
    result: Result = {}
    for width in (384, 2048) if session.tiny else (384, 2048, 8192, 65536):
        x = torch.randn(32 if session.tiny else 256, width)
        started = time.perf_counter()
        feature_statistics(x, "")
        result[f"{width} wide, s"] = time.perf_counter() - started
    return result
