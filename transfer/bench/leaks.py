"""Leaks of one task: between the parts of its split, and between its test part and the pretraining of an encoder."""

from collections.abc import Callable, Sequence
from functools import partial

from encoders.runtime.paths import records_dir
from encoders.similarity.pixel_check import is_same_image
from transfer.bench.baselines import EncoderEntry, load_manifests
from transfer.leakage import check, image_copies, pictures
from transfer.tasks.load import LoadedTask


def gather_split_leaks(loaded: LoadedTask, near_duplicates: bool) -> list[check.Leak]:
    """Images and patients that the parts of the split share."""
    leaks = check.find_part_leaks(loaded.split, loaded.key, loaded.patient, loaded.sha256, loaded.task.split.patients_by_split)
    if near_duplicates and loaded.store.has_column("phash"):
        phash, pixels_agree = loaded.store.column("phash"), partial(is_same_image, loaded.store)
        leaks += image_copies.find_near_duplicates(loaded.split, loaded.key, phash, loaded.sha256, pixels_agree)
    return leaks


def gather_pretraining_leaks(loaded: LoadedTask, entry: EncoderEntry, near_duplicates: bool) -> list[check.Leak]:
    """Images and patients that the test part shares with the pretraining of an encoder, or of the encoders that it was initialised from."""
    rows, leaks = loaded.split.rows("test"), []
    for name, manifest in load_manifests(entry.name):
        leaks += check.find_manifest_leaks(name, manifest, rows, loaded.key, loaded.patient, loaded.sha256, loaded.store.datasets)
        if near_duplicates and loaded.store.has_column("phash"):
            phash, pixels_agree = loaded.store.column("phash"), partial(is_same_image, loaded.store)
            leaks += image_copies.find_manifest_near_duplicates(name, manifest, rows, loaded.key, phash, loaded.sha256, pixels_agree)
    return leaks


def save_leak_pictures(loaded: LoadedTask, leaks: Sequence[check.Leak], name: str, log: Callable[[str], None]) -> None:
    """Draws the pairs of leaks whose pixels are available locally, before the benchmark stops with an error, and reports the file."""
    path = pictures.draw_leak_pairs(loaded.store, leaks, records_dir() / loaded.task.name / name)
    if path is not None:
        log(f"{loaded.task.name}: pictures of the leaked or suspected pairs are in {path}")
