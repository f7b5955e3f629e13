"""What is here, and what `--device` takes."""

import sys

import numpy as np
import timm
import torch

from encoders.runtime.devices import describe_device, resolve_device
from encoders.runtime.errors import InputError
from tests.gpu.session import GpuSession, Result


def describe_machine(session: GpuSession) -> Result:
    """Versions, and the speed of matrix products and copies."""
    result: Result = {"torch": torch.__version__, "timm": timm.__version__, "numpy": np.__version__, "python": sys.version.split()[0]}
    result |= {"device": describe_device(session.device), "cores": session.cores}
    if not session.cuda:
        return result
    properties = torch.cuda.get_device_properties(session.device)
    half = torch.randn(8192, 8192, device=session.device, dtype=torch.bfloat16)
    full = torch.randn(4096, 4096, device=session.device)
    big = torch.empty(2**30, dtype=torch.uint8, device=session.device)
    return result | {
        "gpu": properties.name,
        "gib": properties.total_memory / 2**30,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": {"products": torch.backends.cuda.matmul.allow_tf32, "convolutions": torch.backends.cudnn.allow_tf32},
        "bf16_tflops": 2 * 8192**3 / session.milliseconds(lambda: half @ half) / 1e9,
        "fp32_tflops": 2 * 4096**3 / session.milliseconds(lambda: full @ full) / 1e9,
        "copy_tb_s": 2 * 2**30 / session.milliseconds(big.clone) / 1e9,
    }


def check_device_names(session: GpuSession) -> Result:
    """What every spelling of `--device` becomes."""
    result: Result = {}
    for name in ("cuda", "cuda:0", "auto", "cpu") if session.cuda else ("cpu", "auto"):
        try:
            result[name] = resolve_device(name)
        except InputError as error:
            result[name] = str(error)
            session.flag(f"--device {name}: {error}")
    if session.cuda and result["cuda"] != "cuda:0":
        session.flag(f"--device cuda became {result['cuda']}, expected the GPU of this process, cuda:0")
    return result
