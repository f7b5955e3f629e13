"""A network that finds tissue, given as a file: ONNX (run by onnxruntime) or TorchScript (run by PyTorch).

Input: (1, 3, H, W) float32 RGB in [0, 1], at the resolution of --tissue-mpp. Output: (1, K, h, w), (1, h, w) or (h, w), of the same field.
K = 1 (or no axis K): the probability of tissue, from 0 to 1. K > 1: scores of classes, of which class 0 is no tissue.

Shapes: H, W of the overview; S side of a block; h, w of the output, which may be smaller than the input.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import BoolArray
from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.runtime.json_types import Json

MODEL_BLOCK, MODEL_MARGIN = 512, 64  # pixels: side of the input, unless the model fixes another; what adjacent blocks share on each side
MODEL_SUFFIXES = (".onnx", ".pt", ".pth", ".ts", ".torchscript")
MIN_PROBABILITY = 0.5
BlockModel = Callable[[NDArray[np.float32]], NDArray[np.float32]]  # (1, 3, S, S) to one of the outputs above


@dataclass(frozen=True)
class TissueModel:
    """A file with a network. Picklable: every process loads the network once."""

    path: Path
    sha256: str

    def recipe(self) -> dict[str, Json]:
        """What a store records of the model: its name and its checksum, no path."""
        return {"name": self.path.name, "sha256": self.sha256}

    def __call__(self, image: NDArray[np.uint8]) -> BoolArray:
        """(H, W): where the network finds tissue in the overview (H, W, 3). Raises Unreadable if it fails on this image."""
        run, side = load_tissue_network(self.path)
        margin = min(MODEL_MARGIN, side // 4)
        step = side - 2 * margin
        height, width = image.shape[:2]
        below, right = (step * math.ceil(length / step) - length + margin for length in (height, width))
        padded = np.pad(image, ((margin, below), (margin, right), (0, 0)), "symmetric")
        out = np.zeros((height, width), bool)
        for top in range(0, height, step):
            for left in range(0, width, step):
                block = padded[top : top + side, left : left + side].astype(np.float32) / 255  # (S, S, 3)
                found = self._block_mask(run, np.ascontiguousarray(block.transpose(2, 0, 1)[None]), side)
                part = found[margin : margin + step, margin : margin + step]
                out[top : top + step, left : left + step] = part[: height - top, : width - left]
        return out

    def _block_mask(self, run: BlockModel, block: NDArray[np.float32], side: int) -> BoolArray:
        """(S, S): the mask of one block."""
        try:
            scores = np.asarray(run(block), np.float32)
        except (RuntimeError, ValueError) as error:  # errors of TorchScript and of onnxruntime
            raise Unreadable(f"--tissue-model {self.path.name} fails on its overview: {str(error).strip().splitlines()[-1]}") from error
        return output_mask(scores, side, self.path.name)


def output_mask(scores: NDArray[np.float32], side: int, name: str) -> BoolArray:
    """(S, S): the output of a network as a mask, resized by the nearest pixel. Raises Unreadable for an output of another form."""
    planes = scores[0] if scores.ndim == 4 and len(scores) == 1 else scores
    planes = planes[None] if planes.ndim == 2 else planes
    if planes.ndim != 3 or not planes.size:
        raise Unreadable(f"--tissue-model {name} gives an output of shape {scores.shape}; expected (1, K, h, w), (1, h, w) or (h, w)")
    if not np.isfinite(planes).all():
        raise Unreadable(f"--tissue-model {name} gives values that are NaN or infinite")
    if len(planes) == 1 and not (planes.min() >= 0 and planes.max() <= 1):
        values = f"values from {planes.min():g} to {planes.max():g}"
        raise Unreadable(f"--tissue-model {name} gives {values}; expected a probability, so end it with a sigmoid")
    mask = planes[0] > MIN_PROBABILITY if len(planes) == 1 else planes.argmax(axis=0) > 0
    rows, columns = (((np.arange(side) + 0.5) * length / side).astype(int) for length in mask.shape)
    return np.asarray(mask[np.ix_(rows, columns)])


def open_tissue_model(path: Path) -> TissueModel:
    """The model in a file, loaded once to find errors early. Raises InputError if it cannot be loaded."""
    if not path.is_file():
        raise InputError(f"--tissue-model {path} does not exist; name a network as ONNX (.onnx) or TorchScript (.pt)")
    if path.suffix.lower() not in MODEL_SUFFIXES:
        raise InputError(f"--tissue-model {path.name}: expected ONNX (.onnx) or TorchScript ({', '.join(MODEL_SUFFIXES[1:])})")
    load_tissue_network(path)
    return TissueModel(path, sha256_file(path))


@cache
def load_tissue_network(path: Path) -> tuple[BlockModel, int]:
    """The network, and the side of its input in pixels. Raises InputError if the file cannot be loaded."""
    return load_onnx_network(path) if path.suffix.lower() == ".onnx" else load_torchscript_network(path)


def load_onnx_network(path: Path) -> tuple[BlockModel, int]:
    """An ONNX file, run on the CPU with one thread per process."""
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"--tissue-model {path.name} needs onnxruntime; install it with `pip install 'isograft[tissue]'`") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # slides are distributed over processes
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise InputError(f"--tissue-model {path.name} is not a network that onnxruntime loads: {error}") from error
    (entry, *more), shape = session.get_inputs(), session.get_inputs()[0].shape
    fixed = [side for side in shape[2:] if isinstance(side, int)] if len(shape) == 4 else []
    if more or len(shape) != 4 or (shape[1] not in (3, None) and not isinstance(shape[1], str)) or len(set(fixed)) > 1:
        raise InputError(
            f"--tissue-model {path.name} has inputs of shape {[i.shape for i in session.get_inputs()]}; expected one (1, 3, S, S)"
        )

    def run(block: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(session.run(None, {entry.name: block})[0])

    return run, fixed[0] if fixed else MODEL_BLOCK


def load_torchscript_network(path: Path) -> tuple[BlockModel, int]:
    """A TorchScript file, run on the CPU."""
    import warnings

    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns that TorchScript is deprecated
            network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        why = str(error).strip().splitlines()[0]
        raise InputError(f"--tissue-model {path.name} is not TorchScript ({why}); save it with torch.jit.script(model).save()") from error

    def run(block: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            output = network(torch.from_numpy(block))
        return np.asarray((output[0] if isinstance(output, (tuple, list)) else output).numpy())

    return run, MODEL_BLOCK
