"""A fixed probe of the encoder: the same images of the corpus, with the card's preprocessing, in evaluation mode.

It does not change the run: it draws no random number, keeps no gradient, updates no BatchNorm average, and restores all modes.

Shapes: N probe images, C channels, S the card's size, D width, K outcomes of a teacher.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from encoders.runtime.arrays import FloatArray, IntArray
from encoders.store.store import Store
from encoders.zoo.backbone import pooled_features
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import prepare_input
from pretrain.methods import Method
from pretrain.watch import spectrum
from pretrain.watch.start import feature_drift, neighbour_overlap

PROBE_BATCH = 64  # images per pass: bounds memory


class Probe:
    """Measures the spectrum of features, of the head's outputs, the entropies of a teacher, and the distance from the start."""

    def __init__(self, store: Store, rows: IntArray, n: int, preprocess: Preprocess, device: torch.device):
        """n: number of images, evenly spaced over `rows` of the store; all of them if there are fewer."""
        self.rows = rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int)]
        self.images = prepare_probe_images(store, self.rows, preprocess)
        self.device = device
        self.features: FloatArray | None = None  # (N, D) at the newest measurement
        self.start: FloatArray | None = None  # (N, D) at the start; None if it is not compared with

    def measure(self, method: Method, progress: float) -> dict[str, float]:
        """Metrics whose names begin with `watch/`.  progress: fraction of the run that is done."""
        with eval_mode(method):
            x = map_in_batches(lambda part: pooled_features(method.encoder(), part), self.device, self.images)
            assert x is not None
            z = map_in_batches(method.loss_embedding, self.device, self.images, x)
            p = map_in_batches(lambda part: method.teacher_probs(part, progress), self.device, x)
        metrics = feature_statistics(x, "")
        if z is not None:
            metrics |= feature_statistics(z, "head_")
        if p is not None:
            metrics["watch/teacher_entropy"], metrics["watch/teacher_marginal"] = spectrum.teacher_entropies(p)
        self.features = x.numpy()
        if self.start is not None:
            finite = bool(torch.isfinite(x).all())
            metrics["watch/drift"] = feature_drift(self.features, self.start) if finite else float("nan")
            metrics["watch/overlap"] = neighbour_overlap(self.features, self.start) if finite else float("nan")
        return metrics


def feature_statistics(x: Tensor, prefix: str) -> dict[str, float]:
    """Metrics of features x: (N, D); all NaN if one of them is NaN or inf.  prefix: "", or "head_" for what the loss compares."""
    statistics = {"std": spectrum.unit_vector_std, "rank": spectrum.rankme, "alpha": spectrum.alpha_req, "cosine": spectrum.mean_cosine}
    finite = bool(torch.isfinite(x).all())
    x = x.double()  # once for all
    return {f"watch/{prefix}{name}": statistic(x) if finite else float("nan") for name, statistic in statistics.items()}


def prepare_probe_images(store: Store, rows: IntArray, preprocess: Preprocess) -> Tensor:
    """(N, C, S, S) as the exported encoder receives them; prepared one by one, because sizes may vary."""
    return torch.cat([prepare_input(store.unit_images([row]), preprocess) for row in rows])


@contextmanager
def eval_mode(method: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; afterwards each module is in its own mode again."""
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def map_in_batches(function: Callable[..., Tensor | None], device: torch.device, *tensors: Tensor) -> Tensor | None:
    """`function` of the tensors (N, ...), PROBE_BATCH rows at a time, as float32 on the host, without autocast; None if it returns None."""
    with torch.autocast(device.type, enabled=False):
        batches = zip(*(each.split(PROBE_BATCH) for each in tensors), strict=True)
        parts = [function(*(part.to(device) for part in batch)) for batch in batches]
        return None if parts[0] is None else torch.cat([part.float().cpu() for part in parts if part is not None])
