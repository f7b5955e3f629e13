"""The arithmetic of matrix products and convolutions: fp32 (IEEE single precision, without TF32), or half precision by autocast.

By default an NVIDIA GPU rounds the factors of float32 convolutions to TF32 (10 bits of mantissa), and those of matrix products if it is
told to. Features that are called fp32 must not depend on it: TF32 is switched off and restored here, and nowhere else.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from encoders.runtime.precision_names import TrainingPrecision

AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def without_tf32() -> Iterator[None]:
    """float32 matrix products and convolutions are computed in single precision inside the block; the settings are restored after it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = False, False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextmanager
def use_precision(device: torch.device, precision: TrainingPrecision) -> Iterator[None]:
    """Forward passes on `device` are computed in `precision` inside the block, whatever autocast surrounds it."""
    half = AUTOCAST_DTYPES.get(precision)
    with without_tf32(), torch.autocast(device.type, half, enabled=half is not None):
        yield


def has_bf16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 natively. Others emulate it: ResNet-18 took ten times as long as in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # torch has no public name for it yet


def resolve_training_precision(precision: Literal["auto"] | TrainingPrecision, device: torch.device | str) -> TrainingPrecision:
    """`precision`, with `auto` as what it means on `device`: fp32 on a CPU; on a GPU bf16, or fp16 where it has no bf16."""
    if precision != "auto":
        return precision
    device = torch.device(device)
    if device.type != "cuda":
        return "fp32"
    return "bf16" if has_bf16(device) else "fp16"
