"""The pixels of an encoder's pretraining images, as far as their stores are available locally.

A manifest holds hashes, and the fingerprints of the stores. Cards name stores without folders, because they are shared. The stores are
therefore looked for where this machine keeps stores: in the recipes of the runs and the registered tasks, and under their names beside the
stores of the task, in the working folder and among the staged copies. A file is used only if its fingerprint is in the manifest.

Shapes: P images of the manifest.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.config import read_yaml
from encoders.runtime.errors import InputError
from encoders.runtime.paths import home_dir, runs_dir
from encoders.similarity.perceptual_hash import Hashes
from encoders.similarity.turned_search import read_signs
from encoders.zoo.card import Card
from transfer.leakage.image_copies import ImageRow
from transfer.tasks.task import list_tasks, read_task

if TYPE_CHECKING:
    from encoders.store.store import Store


@dataclass(frozen=True)
class PretrainingImages:
    """The images of the manifest of encoder `name`.  store: of the task, which may hold some of them.  card: of the encoder."""

    name: str
    manifest: Mapping[str, Array]
    card: Card
    store: "Store"

    def locate(self, image: int) -> ImageRow | None:
        """The image of a row of the manifest: in a pretraining store, or in the task's store; None if it is in neither."""
        if "sha256" not in self.manifest:
            return None
        digest = bytes(self.manifest["sha256"][image])
        row = self._task_rows.get(digest)
        return (self.store, row) if row is not None else self._found_rows.get(digest)

    def trimmed_hashes(self) -> Hashes | None:
        """(P, 32) hashes without uniform borders: of the manifest, or computed where its images are available."""
        if "phash_trimmed" in self.manifest:
            return np.asarray(self.manifest["phash_trimmed"], np.uint8)
        return self._computed_hashes[0]

    def list_uncompared(self) -> list[str]:
        """Which copies cannot be found because the manifest lacks hashes and the pixels are not available."""
        if not len(self.manifest.get("phash", ())):
            return [f"near-duplicates in the pretraining of {self.name} were not searched: its manifest has no perceptual hashes"]
        if "phash_trimmed" in self.manifest or not (missing := self._computed_hashes[1]):
            return []
        return [
            f"copies that were padded for the pretraining of {self.name} could not be found among {missing} of its {len(self._digests)} "
            "images: its manifest, of an earlier version, lacks their hashes without borders, and its stores are not available here"
        ]

    @cached_property
    def _digests(self) -> list[bytes]:
        return [bytes(row) for row in self.manifest.get("sha256", ())]

    @cached_property
    def _task_rows(self) -> dict[bytes, int]:
        return index_digests(self.store.column("sha256"))

    @cached_property
    def _found_rows(self) -> dict[bytes, ImageRow]:
        return {digest: (store, row) for store in self._stores for digest, row in index_digests(store.column("sha256")).items()}

    @cached_property
    def _stores(self) -> list["Store"]:
        return list(find_pretraining_stores(self.manifest, self.card, [path.parent for path in self.store.paths]))

    @cached_property
    def _computed_hashes(self) -> tuple[Hashes, int]:
        """(P, 32) the hashes without borders, those of images that are not available with their borders, and how many these are."""
        known = {digest: hashes for store in self._stores for digest, hashes in index_trimmed(store).items()}
        plain = self.manifest["phash"]
        digests = self._digests or [b""] * len(plain)
        hashes = np.stack([known.get(digest, row) for digest, row in zip(digests, plain, strict=True)])
        return hashes, sum(digest not in known for digest in digests)


def index_digests(sha256: Array) -> dict[bytes, int]:
    """SHA-256 -> row, for hex digests (N,)."""
    return {bytes.fromhex(str(digest)): row for row, digest in enumerate(sha256)}


def index_trimmed(store: "Store") -> dict[bytes, Hashes]:
    """SHA-256 -> hash without uniform borders, of the images of a store."""
    return dict(zip(index_digests(store.column("sha256")), read_signs(store)[:, 2], strict=True)) if store.has_column("phash") else {}


def find_pretraining_stores(manifest: Mapping[str, Array], card: Card, folders: Sequence[Path]) -> Iterator["Store"]:
    """The stores of a manifest that are available, each once.  folders: where they may be, beside the usual places."""
    from encoders.store.store import Store

    wanted = {str(fingerprint) for fingerprint in manifest.get("store_fingerprint", ())}
    for path in list_store_paths(card, folders, wanted):
        if not wanted:
            return
        try:
            store = Store.open(path)
        except InputError:  # not a store, or of another version
            continue
        if store.fingerprint in wanted:
            wanted.discard(store.fingerprint)
            yield store


def list_store_paths(card: Card, folders: Sequence[Path], fingerprints: set[str]) -> Iterator[Path]:
    """Existing files that may be stores of a manifest, likely ones first."""
    from encoders.store.staging import staging_dir

    names = as_list(((card.config or {}).get("data") or {}).get("store"))
    bases = list(dict.fromkeys([*folders, Path.cwd(), home_dir()]))
    for name in names:
        for folder in bases:
            yield from match_pattern(folder, name)
    staged = staging_dir()
    for fingerprint in sorted(fingerprints) if staged else ():
        assert staged is not None
        yield from match_pattern(staged, f"{fingerprint[:16]}-*")
    for recipe in sorted(runs_dir().glob("*/config.yaml")):
        for name in list_recipe_stores(recipe):
            for folder in bases:
                yield from match_pattern(folder, name)
    for name in list_task_stores():
        yield from match_pattern(home_dir(), name)


def list_recipe_stores(recipe: Path) -> list[str]:
    """The stores that the recipe of a run names; [] if it cannot be read."""
    try:
        data = read_yaml(recipe).get("data")
    except InputError:
        return []
    return as_list(data.get("store")) if isinstance(data, dict) else []


def list_task_stores() -> list[str]:
    """The stores of the registered tasks, of which one may have been trained on; none of a task that cannot be read."""
    names = []
    for task in list_tasks():
        with suppress(InputError):
            names += read_task(task).store
    return names


def as_list(stores: object) -> list[str]:
    """The value of `data.store`, which is a name, a list of names, or nothing."""
    return [stores] if isinstance(stores, str) else [str(s) for s in stores] if isinstance(stores, list) else []


def match_pattern(folder: Path, name: str) -> Iterator[Path]:
    """The files that a name or pattern, relative to the folder or absolute, stands for."""
    from encoders.store.store import match_files

    try:
        paths = match_files(str(folder / name))
    except InputError:
        return
    yield from (Path(path) for path in paths if Path(path).is_file())
