"""Small stores with patients, for tests of the transfer side: labels show as texture, patients as brightness."""

from pathlib import Path

import numpy as np

from encoders.store.write import save_store


def pictures(texture: np.ndarray, bright: np.ndarray, size: int = 32, seed: int = 0) -> np.ndarray:
    """(N, S, S, 1) uint8: noise with stripes where `texture` is 1, on a ground of brightness `bright`."""
    draw = np.random.default_rng(seed)
    stripes = 40 * np.sin(np.arange(size) * np.pi / 2)[None, :, None] * np.nan_to_num(texture)[:, None, None]
    ground = draw.normal(0, 20, (len(texture), size, size)) + 100 + bright[:, None, None] + stripes
    return np.clip(ground, 0, 255).astype(np.uint8)[..., None]


def store(path: Path, patients: int = 30, each: int = 2, seed: int = 0, dataset: str = "toy", **columns) -> Path:
    """A store with the binary label `sick` by patient (half of them), the text label `view`, and `grade` of three classes."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(patients), each)
    sick = (who % 2).astype(float)
    labels = {
        "sick": sick,
        "view": np.where(who % 3 == 0, "ap", "pa"),
        "grade": np.array(["low", "mid", "high"])[who % 3],
        "rare": np.where(draw.random(len(who)) < 0.2, np.nan, (who % 5 == 0).astype(float)),
    }
    images = pictures(sick, draw.normal(0, 10, patients)[who], seed=seed)
    return save_store(path, images, patient=[f"p{i}" for i in who], labels={**labels, **columns}, dataset=dataset)
