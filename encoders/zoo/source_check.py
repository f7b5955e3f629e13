"""Comparing an encoder with its source: the module that its weights were trained in, in the source's own environment.

`write_probe` writes prepared tensors and a short script. The script runs where the source's code and weights are, and writes an answer:
the source's features of these tensors, and on request its prepared pixels of the canary images. `compare_answer` compares.

The answer of a network that this code built proves nothing, so an answer made in a process that had imported isograft is refused.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, ensure_writable, sha256_file
from encoders.runtime.npz_file import read_npz
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.zoo.canary import canary_images, network_tensors
from encoders.zoo.card import Card, SourceCheck
from encoders.zoo.encoder import Encoder
from encoders.zoo.preprocess import prepare_input

SCRIPT = '''"""Run this where the source's own code loads its weights; then: encoders verify {name} --answer answer.npz"""
import hashlib, json, sys
import numpy as np, torch

model = ...      # EDIT: the source's module with its weights
features = model # EDIT: the function from (B, {channels}, {size}, {size}) to the (B, {dim}) features that are used
transform = None # EDIT, optional: the source's transform, from a PIL image to a ({channels}, {size}, {size}) tensor

model.eval()
x = np.load("inputs.npy")
with torch.inference_mode():
    answer = dict(features=features(torch.from_numpy(x)).float().numpy(), inputs=hashlib.sha256(x.tobytes()).hexdigest())
if transform is not None:
    from PIL import Image
    answer["pixels"] = np.stack([np.asarray(transform(Image.fromarray(i))) for i in np.load("images.npy")])
own = sorted(m for m in sys.modules if m in ("encoders", "timm", "transformers", "torchvision", "open_clip", "monai"))
kind = type(model).__module__ + "." + type(model).__name__
np.savez("answer.npz", software=json.dumps([kind, "torch " + torch.__version__, *own]), **answer)
'''


def probe_tensors(card: Card) -> Tensor:
    """(6, K, S, S) prepared tensors: three that no card changes, and the canary images in the range that the card states."""
    p = card.preprocess
    return torch.cat([network_tensors(p.channels, p.size), prepare_input(canary_images(p.channels), p)]).contiguous()


def write_probe(card: Card, folder: Path) -> list[Path]:
    """Writes inputs.npy, images.npy and probe.py; returns the files."""
    ensure_writable(folder)
    p = card.preprocess
    images = to_8_bit(canary_images(p.channels))
    for name, array in (("inputs.npy", probe_tensors(card).numpy()), ("images.npy", images[..., 0] if p.channels == 1 else images)):
        with atomic_write(folder / name) as part, part.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    with atomic_write(folder / "probe.py") as part:
        part.write_text(SCRIPT.format(name=card.name, channels=p.channels, size=p.size, dim=card.dim))
    return [folder / name for name in ("inputs.npy", "images.npy", "probe.py")]


def to_8_bit(images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Images in [0, 1] as 8-bit values, as a source reads them."""
    return np.round(images * 255).astype(np.uint8)


def compare_answer(encoder: Encoder, answer: Path) -> SourceCheck:
    """The comparison of an encoder with the answer of its source.

    Raises InputError for a file that `probe.py` did not write, an answer to other tensors, features of another width, and an answer that
    was computed by isograft itself."""
    card = encoder.card
    arrays = _read_answer(answer)
    software = _read_software(arrays["software"], answer)
    x = probe_tensors(card)
    if str(arrays["inputs"]) != hashlib.sha256(x.numpy().tobytes()).hexdigest():
        raise InputError(
            f"{answer} answers other tensors than those of {card.name}: write them again with `encoders probe {card.name} FOLDER`"
        )
    if "encoders" in software or software[0].startswith("encoders."):
        raise InputError(
            f"{answer} was computed with isograft, which is not the source of {card.name}; run probe.py where isograft is not used"
        )
    theirs, ours = torch.from_numpy(arrays["features"]), encoder.forward(x.to(encoder.device)).cpu()
    if theirs.shape != ours.shape or not torch.isfinite(theirs).all():
        raise InputError(
            f"{answer} holds features {tuple(theirs.shape)}, expected finite ones of {tuple(ours.shape)}: return the pooled features that "
            "are used, one row per tensor"
        )
    off = float((theirs - ours).abs().max())
    return SourceCheck(
        relative=off / max(float(theirs.abs().max()), 1e-12),
        absolute=off,
        tensors=len(x),
        gray_levels=_compare_pixels(card, arrays.get("pixels"), answer),
        software=", ".join(software),
        answer_sha256=sha256_file(answer),
    )


def record_source_check(card_file: Path, check: SourceCheck) -> Card:
    """Writes the comparison on a card, and returns the card."""
    card = Card.read(card_file).replace(source_check=check.model_dump())
    card.write(card_file)
    return card


def _compare_pixels(card: Card, pixels: NDArray[np.float32] | None, answer: Path) -> float | None:
    if pixels is None:
        return None
    p = card.preprocess
    ours = prepare_input(to_8_bit(canary_images(p.channels)) / np.float32(255), p)
    if pixels.shape != tuple(ours.shape):
        raise InputError(f"{answer} holds pixels {pixels.shape}, expected {tuple(ours.shape)}: the sizes of transform and card differ")
    std = torch.tensor(p.unit_mean_std[1]).reshape(1, -1, 1, 1)
    return float(((torch.from_numpy(pixels) - ours).abs() * std).max()) * 255


def _read_software(stored: NDArray[Any], answer: Path) -> list[str]:
    """The module of the source and its libraries. Raises InputError for another list."""
    try:
        software = json.loads(str(stored))
    except (ValueError, RecursionError):
        software = None
    if not isinstance(software, list) or not software or not all(isinstance(name, str) for name in software):
        raise InputError(f"{answer} is not an answer of probe.py: its list of software is none")
    return software


def _read_answer(path: Path) -> dict[str, NDArray[np.float32]]:
    try:
        with path.open("rb") as content:
            arrays = read_npz(content)
    except READ_ERRORS as error:
        raise InputError(f"{path} is not an answer of probe.py ({describe_reason(error)})") from error
    if missing := {"features", "inputs", "software"} - set(arrays):
        raise InputError(f"{path} is not an answer of probe.py: it lacks {', '.join(sorted(missing))}")
    return arrays
