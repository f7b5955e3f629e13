"""How many loader processes a rank starts. Batches are bit-identical for any number."""

import torch

from encoders.runtime.cpus import count_allowed_cpus
from encoders.store.store import Store

MOST_WORKERS = 16  # more seldom read faster, and each keeps batches in memory


def choose_worker_count(asked: int | None, device: torch.device, store: Store) -> int:
    """Loader processes of this rank.  asked: as the user set it; None: what the CPUs of this rank allow.

    None is 0 on a CPU, which trains on all of them. A GPU gets one process per CPU, except for one CPU that the training process keeps;
    decoding JPEG in that process would stop the GPU at each batch, so that `asked` is at least 1 there."""
    if device.type == "cpu":
        return asked or 0
    if asked is None:
        return min(max(count_allowed_cpus() - 1, 1), MOST_WORKERS)
    return max(asked, 1) if holds_jpeg(store) else asked


def holds_jpeg(store: Store) -> bool:
    """Whether images are decoded when they are read."""
    return any(part.codec == "jpeg" for part in store.parts)


def describe_loading(asked: int | None, prefetch: int, device: torch.device, store: Store) -> str:
    """Who reads the images, in words."""
    workers = choose_worker_count(asked, device, store)
    if not workers:
        return "images are read by the training process"
    reason = " (not 0, because the store holds JPEG)" if asked == 0 else ""
    processes = f"{workers} loader process{'es' if workers > 1 else ''}{reason}"
    return f"{processes}, {'each ' if workers > 1 else ''}{prefetch} micro-batch{'es' if prefetch > 1 else ''} ahead"
