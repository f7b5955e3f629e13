"""Small stores with patients for tests of `transfer`: labels appear as texture, patients as brightness."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from encoders.store.write import save_store
from tests.store_edits import edit_store
from transfer.records.looks import gather_looks
from transfer.records.record import Record
from transfer.records.test_usage import count_split_usage


def pictures(texture: np.ndarray, bright: np.ndarray, size: int = 32, seed: int = 0) -> np.ndarray:
    """(N, S, S, 1) uint8: noise with stripes where `texture` is 1, on a background of brightness `bright`."""
    draw = np.random.default_rng(seed)
    stripes = 40 * np.sin(np.arange(size) * np.pi / 2)[None, :, None] * np.nan_to_num(texture)[:, None, None]
    background = draw.normal(0, 20, (len(texture), size, size)) + 100 + bright[:, None, None] + stripes
    return np.clip(background, 0, 255).astype(np.uint8)[..., None]


def store(path: Path, patients: int = 30, each: int = 2, seed: int = 0, dataset: str = "toy", **columns) -> Path:
    """A store with the labels `sick` (half of the patients), `view` (text), `grade` (three classes) and `rare` (a fifth is NaN)."""
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


def times_scored(records: Sequence[Record]) -> list[tuple[int, int]]:
    """How often the test images of each split of the records were scored: the fewest and the most times."""
    usage = count_split_usage(records, gather_looks(records))
    return [(int(uses.times.min()), uses.most) for uses in usage.values()]


def add_slides(path: Path, names: Sequence[str] | None, **meta: Sequence[str]) -> Path:
    """The store with the slide of every tile, unless it is None, and text columns of /meta."""
    with edit_store(path) as file:
        if names is not None:
            file["index"].create_dataset("slide", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        for name, values in meta.items():
            file.require_group("meta").create_dataset(name, data=np.array(values, dtype=object), dtype=h5py.string_dtype())
    return path
