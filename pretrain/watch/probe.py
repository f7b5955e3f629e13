"""A fixed look at the encoder: the same images of the corpus, through the card's preprocessing, in evaluation mode.

It changes nothing of the run: no random number is drawn, no gradient is kept, BatchNorm's averages stay, modes are put back.

Shapes: N probe images, C channels, S the card's size, D width, K outcomes of a teacher.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.zoo.backbone import pooled_features
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import prepare_input
from pretrain.watch import spectrum

PROBE_BATCH = 64  # images in a pass: bounds memory


class Probe:
    """`look(method, progress)` gives the numbers of a moment."""

    def __init__(self, store: Any, rows: np.ndarray, n: int, preprocess: Preprocess, device: torch.device):
        """n: images, evenly spaced over `rows` of the store, all of them where there are fewer."""
        self.rows = rows[np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(int)]
        self.images = prepare_probe_images(store, self.rows, preprocess)
        self.device = device

    def look(self, method: Any, progress: float) -> dict[str, float]:
        """Numbers whose names begin with `watch/`."""
        with eval_mode(method):
            x = map_in_batches(lambda part: pooled_features(method.encoder(), part), self.device, self.images)
            assert x is not None
            z = map_in_batches(method.embed, self.device, self.images, x)
            told = map_in_batches(lambda part: method.outcomes(part, progress), self.device, x)
        seen = feature_statistics(x, "")
        if z is not None:
            seen |= feature_statistics(z, "head_")
        if told is not None:
            seen["watch/teacher_entropy"], seen["watch/teacher_marginal"] = spectrum.teacher_entropies(told)
        return seen


def feature_statistics(x: Tensor, kind: str) -> dict[str, float]:
    """The numbers of features x: (N, D); all NaN when one of them is no number.  kind: "", or "head_" for what the loss compares."""
    numbers = {"std": spectrum.unit_vector_std, "rank": spectrum.rankme, "alpha": spectrum.alpha_req, "cosine": spectrum.mean_cosine}
    whole = bool(torch.isfinite(x).all())
    return {f"watch/{kind}{name}": number(x) if whole else float("nan") for name, number in numbers.items()}


def prepare_probe_images(store: Any, rows: np.ndarray, preprocess: Preprocess) -> Tensor:
    """(N, C, S, S) as the exported encoder will see them; one at a time, because sizes may vary."""
    return torch.cat([prepare_input(store.unit_images([row]), preprocess) for row in rows])


@contextmanager
def eval_mode(method: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; every module's own mode as before outside."""
    modes = {module: module.training for module in method.modules()}
    method.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def map_in_batches(what: Callable[..., Tensor | None], device: torch.device, *of_all: Tensor) -> Tensor | None:
    """`what` of parts of tensors (N, ...), in float32 on the host, whatever autocast the run uses; None where it gives nothing."""
    with torch.autocast(device.type, enabled=False):
        split = zip(*(each.split(PROBE_BATCH) for each in of_all), strict=True)
        parts = [what(*(part.to(device) for part in together)) for together in split]
        return None if parts[0] is None else torch.cat([part.float().cpu() for part in parts if part is not None])
