"""Outputs of a network for the images of a split, with the deterministic preprocessing of the card.

On a CUDA device the host reads the images of a batch while the device computes the batch before.

Shapes: M images, B of a batch.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from encoders.features.input_batches import iterate_inputs
from encoders.runtime.device_copies import fetch_one_late
from encoders.zoo.encoder import EncoderInput
from encoders.zoo.tta_settings import TtaSettings
from transfer.protocols.common import ImageSet
from transfer.protocols.tta import average_views

FORWARD_BATCH = 128  # images in a forward pass


def iterate_image_inputs(images: ImageSet, batch: int = FORWARD_BATCH, workers: int = 0) -> Iterator[EncoderInput]:
    """Yields the prepared inputs of the images, B at a time, on the encoder's device.  workers: processes that read; 0: this one reads."""
    rows = np.asarray(images.index, np.int64)
    parts = [rows[start : start + batch] for start in range(0, len(rows), batch)]
    return iterate_inputs(images.encoder, images.store, parts, workers)


def predict_logits(network: Callable[[EncoderInput], Tensor], images: ImageSet, workers: int = 0, tta: TtaSettings | None = None) -> Tensor:
    """(M, C) float64 outputs of the network on the host, without gradients: their mean over the views of `tta`, if there are any."""
    with torch.inference_mode():
        of_input = average_views(network, tta)
        outputs = (of_input(x).double() for x in iterate_image_inputs(images, workers=workers))
        return torch.cat(list(fetch_one_late(outputs)))
