"""Exporting an encoder's network to ONNX: prepared tensors in, pooled features out, with any number of images.

The file is run with ONNX Runtime and compared with PyTorch for several batch sizes. Its card states the input, so that the preprocessing,
which is not in the file, can be written anywhere. Needs `pip install 'isograft[onnx]'`.
"""

import hashlib
import importlib.util
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import yaml
from pydantic import Field

from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, prepared_text
from encoders.zoo import backbone, zoo
from encoders.zoo.canary import network_tensors
from encoders.zoo.card import Preprocess
from encoders.zoo.encoder import Encoder
from encoders.zoo.export_folder import list_licences
from encoders.zoo.licences import governing_licence, licence_warnings

OPSET = 18
MAX_DIFFERENCE = 1e-5  # relative to the largest feature
CHECKED_BATCHES = (1, 3, 5)  # the network is traced with two images
LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


class OnnxCard(Config):
    """What an ONNX file computes and how it was checked."""

    encoder: str
    encoder_sha256: str = Field(description="of weights, network and preprocessing (`encoders show`)")
    sha256: str = Field(description="of the ONNX file")
    opset: int
    input: str = Field(description="name of the input: float32 (batch, channels, size, size), prepared as `preprocess` says")
    output: str = Field(description="name of the output: float32 (batch, dim)")
    preprocess: Preprocess
    dim: int
    licence: str
    max_difference: float = Field(description="largest difference of a feature from PyTorch, relative to the largest feature")
    checked_batches: list[int]
    versions: dict[str, str]


def export_onnx(name: str, file: Path) -> tuple[OnnxCard, list[str]]:
    """Writes FILE.onnx and its card FILE.onnx.yaml; returns the card and warnings about licences.

    Raises InputError if the libraries are missing, the network cannot be exported, or the file gives other features."""
    _require_libraries()
    location = zoo.find_encoder(name)
    if location.origin in ("parts", "computed"):
        raise InputError(f"{name} is not one network; export each part")
    encoder = zoo.load_location(location)
    content = _to_onnx(encoder)
    difference = _largest_difference(encoder, content)
    if difference > MAX_DIFFERENCE:
        raise InputError(f"ONNX Runtime gives other features for {name} (relative difference {difference:.2g}); nothing was written")
    ancestors = list_licences(name)
    card = OnnxCard(
        encoder=encoder.card.name,
        encoder_sha256=encoder.sha256,
        sha256=hashlib.sha256(content).hexdigest(),
        opset=OPSET,
        input="pixels",
        output="features",
        preprocess=encoder.card.preprocess,
        dim=encoder.card.dim,
        licence=governing_licence(encoder.card.licence, ancestors),
        max_difference=float(f"{difference:.3g}"),
        checked_batches=list(CHECKED_BATCHES),
        versions={library: version(library) for library in ("torch", "timm", *LIBRARIES)},
    )
    text = yaml.safe_dump(card.model_dump(mode="json", exclude_none=True), sort_keys=False, default_flow_style=None)
    with prepared_text(file.with_name(f"{file.name}.yaml"), text), atomic_write(file) as part:
        part.write_bytes(content)
    return card, licence_warnings(encoder.card.licence, ancestors)


class _PooledNetwork(torch.nn.Module):
    """A network whose call is the pooled features."""

    def __init__(self, network: torch.nn.Module):
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return backbone.pooled_features(self.network, pixels)


def _to_onnx(encoder: Encoder) -> bytes:
    """The bytes of the file."""
    p = encoder.card.preprocess
    x = network_tensors(p.channels, p.size)[:2].contiguous()
    batch = torch.export.Dim("batch", min=1, max=65536)
    network = _PooledNetwork(encoder.model.cpu().to(memory_format=torch.contiguous_format)).eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about its own future
            program = torch.onnx.export(
                network,
                (x,),
                dynamo=True,
                opset_version=OPSET,
                input_names=["pixels"],
                output_names=["features"],
                dynamic_shapes=({0: batch},),
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{encoder.card.arch} cannot be exported to ONNX ({str(error).splitlines()[0][:200]})") from error
    assert program is not None, "the exporter returns a program"
    content: bytes = program.model_proto.SerializeToString()
    return content


def _largest_difference(encoder: Encoder, content: bytes) -> float:
    """Of the features by ONNX Runtime from those by PyTorch, for several batch sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    p, worst = encoder.card.preprocess, 0.0
    tensors = torch.cat([network_tensors(p.channels, p.size), network_tensors(p.channels, p.size).flip(-1)])
    for size in CHECKED_BATCHES:
        x = tensors[:size].contiguous()
        ours = encoder.forward(x).numpy()
        theirs = session.run(None, {"pixels": x.numpy()})[0]
        worst = max(worst, float(np.abs(theirs - ours).max() / max(float(np.abs(ours).max()), 1e-12)))
    return worst


def _require_libraries() -> None:
    missing = [library for library in LIBRARIES if importlib.util.find_spec(library) is None]
    if missing:
        raise InputError(f"exporting to ONNX needs {', '.join(missing)}; install them with `pip install 'isograft[onnx]'`")
