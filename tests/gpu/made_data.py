"""Stores and encoders that the stages use: made-up images, networks with random weights."""

from pathlib import Path

import numpy as np
import torch

from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import backbone
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder
from tests.gpu.session import GpuSession


def made_up_pixels(n: int, side: int, channels: int, seed: int = 0) -> np.ndarray:
    """(N, side, side, C) uint8: blocks of 8 pixels with noise, so that a crop is not noise alone."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (n, -(-side // 8), -(-side // 8), channels)).astype(np.int16).repeat(8, 1).repeat(8, 2)[:, :side, :side]
    return np.clip(coarse + rng.integers(-24, 25, coarse.shape, dtype=np.int16), 0, 255).astype(np.uint8)


def store_path(session: GpuSession, kind: str) -> Path:
    """The file of a store, written when it is first asked for.

    small: 160 gray images of 40 px, two per patient.  labeled: the label `y` is a bright corner.  gray, rgb: of 256 px, for speed."""
    path = session.home / f"{kind}.h5"
    if path.exists():
        return path
    tiny = session.tiny
    n, side, channels = {
        "small": (160, 40, 1),
        "labeled": (96 if tiny else 320, 40 if tiny else 64, 1),
        "gray": (48 if tiny else 1024, 64 if tiny else 256, 1),
        "rgb": (48 if tiny else 768, 64 if tiny else 256, 3),
    }[kind]
    pixels, y = made_up_pixels(n, side, channels), np.arange(n) % 2
    if kind == "labeled":
        pixels[y == 1, :16, :16] = 250
    modality = "cxr" if channels == 1 else "histology"
    meta = {"view": ["AP" if i % 3 else "PA" for i in range(n)], "age": [20.0 + i % 50 for i in range(n)]}
    return save_store(path, pixels, patient=[i // 2 for i in range(n)], labels={"y": y.astype(np.float32)}, meta=meta, modality=modality)


def open_store(session: GpuSession, kind: str) -> Store:
    """The opened store of a kind, see `store_path`."""
    return Store.open(store_path(session, kind))


def made_up_preprocess(size: int, channels: int) -> Preprocess:
    """Centre crop, mean 0.5 and standard deviation 0.25."""
    return Preprocess(size=size, resize="crop", channels=channels, mean=(0.5,) * channels, std=(0.25,) * channels)


def random_encoder(arch: str, device: str | torch.device, size: int, channels: int = 1, seed: int = 0, **args: int) -> Encoder:
    """An encoder of random weights, the same on every device."""
    model = backbone.build_backbone(arch, args, channels, size, seed=seed)
    prep = made_up_preprocess(size, channels)
    return Encoder(Card(name="made-up", arch=arch, model_args=args, dim=backbone.feature_dim(model), preprocess=prep), model, device)
