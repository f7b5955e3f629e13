"""The images of a run: which rows of which stores."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.ingest.dicom.hidden_names import HiddenNames
from encoders.ingest.list_files import describe_bad_file
from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.local_notes import show_key
from encoders.store import staging
from encoders.store.store import Store
from encoders.store.training_manifest import build_manifest
from pretrain.recipe.config import Recipe

SIZE_CHECK_IMAGES = 32  # images whose sizes are compared before a run begins


@dataclass
class Corpus:
    """The images of a run: a store and the rows of it that are used."""

    store: Store
    index: IntArray

    def manifest(self) -> dict[str, Array]:
        """The images as hashes, see `build_manifest`."""
        return build_manifest(self.store, self.index)

    def datasets(self) -> list[str]:
        """Name of the data set of each row."""
        return [str(name) for name in self.store.datasets[self.index]]


def open_corpus(recipe: Recipe) -> Corpus:
    """Opens the store or stores and selects the rows.

    Raises InputError if the recipe names no store, or a key or split is unknown."""
    data = recipe.data
    if data.store is None:
        raise InputError("no images to train on: set data.store=FILE.h5, written by `encoders ingest`")
    store = Store.open(staging.resolve_staged(data.store))
    use = np.ones(len(store), dtype=bool)
    if data.split is not None:
        splits = store.column("split")
        if data.split not in set(splits):
            raise unknown_name_error("split", data.split, sorted({str(s) for s in splits}), f"({store.paths[0]})")
        use &= splits == data.split
    if data.keys is not None:
        use &= np.isin(store.column("key"), read_wanted_keys(data.keys, store))
    rows = np.flatnonzero(use)
    require_one_size(store, rows)
    return Corpus(store, rows)


def require_one_size(store: Store, rows: IntArray) -> None:
    """Raises InputError if a batch would mix images of different sizes: compares the first used row of each file and some others."""
    if not len(rows):
        return
    first = rows[np.unique(np.searchsorted(store.starts, rows, side="right"), return_index=True)[1]]
    some = rows[np.linspace(0, len(rows) - 1, min(SIZE_CHECK_IMAGES, len(rows))).astype(int)]
    seen = {store.image(int(i)).shape[:2]: store.locate(int(i))[0].path for i in [*some, *first]}
    if len(seen) > 1:
        sizes = ", ".join(f"{height} x {width} in {path.name}" for (height, width), path in sorted(seen.items()))
        raise InputError(f"the images differ in size ({sizes}); ingest them with one --size")


def read_wanted_keys(path: str, store: Store, setting: str = "data.keys") -> Array:
    """The keys in a file, one per line. A name of a DICOM file whose key is hidden counts as the key.

    Raises InputError if the file is missing or empty, or names images that are not in the store."""
    if (problem := describe_bad_file(Path(path))) and not Path(path).is_fifo():
        raise InputError(f"cannot read {setting}={path}, which {problem}")
    try:
        with open(path) as file:
            keys = np.array(sorted({line.strip() for line in file if line.strip()}))
    except OSError as error:
        raise InputError(f"cannot read {setting}={path}: {error.strerror}") from error
    missing = np.setdiff1d(keys, known := store.column("key"))
    advice = ""
    if len(missing):
        hidden = HiddenNames(store)
        advice = f". Note: {note}" if (note := hidden.describe()) else ""
        found = {name: [str(known[i]) for i in images] for name in missing.tolist() if (images := hidden.find(name))}
        keys = np.array(sorted({key for name in keys.tolist() for key in found.get(name, [name])}))
        missing = np.array([name for name in missing.tolist() if name not in found])
    if len(missing) or not len(keys):
        first = f", such as {show_key(missing[0])!r}," if len(missing) else ""
        raise InputError(
            f"{setting}={path}: {len(missing)} of its {len(keys)} keys{first} are not in {store.paths[0]}; one key per line{advice}"
        )
    return keys
