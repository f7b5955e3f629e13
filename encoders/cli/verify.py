"""`encoders verify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

STORE_SUFFIXES = {".h5", ".hdf5"}


def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="encoders, or paths of stores (FILE.h5, 'tiles/*.h5')  [default: every entry of the zoo]", show_default=False),
    ] = None,
    answer: Annotated[
        Path | None, typer.Option(help="answer.npz of the source (see `encoders probe`), to compare and record", show_default=False)
    ] = None,
    accept_columns: Annotated[
        bool, typer.Option(help="stores: take attributes, labels and other columns, changed on purpose, for those that were written")
    ] = False,
) -> None:
    """Check that encoders match their cards, and that stores hold the images that were stored.

    An encoder: the sha256 of the file, every tensor, the features of the canary images, and network and preprocessing alone, which are
    compared with those in the card; and whether the encoder was compared with its source. With --answer, compares one encoder with the
    answer of its source and records it on the card.

    A store: its layout, its fingerprint, its columns with the labels, and the hash of every image, computed again from the file.
    `transfer bench` and `pretrain run` check a random sample and the test images by themselves.

    Exit status: 0 every check passed, 1 a check failed, 2 invalid input.
    """
    from encoders.runtime.errors import InputError
    from encoders.runtime.paths import zoo_dir
    from encoders.zoo import listing, register

    if answer is not None:
        from encoders.zoo.source_status import describe_source_check, is_equal_to_source

        if names is None or len(names) != 1:
            raise InputError(
                f"--answer is of one encoder, and {len(names or [])} were named; write `encoders verify NAME --answer {answer}`"
            )
        card = register.record_answer(names[0], answer)
        print(f"{names[0]}: {describe_source_check(card)}")
        raise typer.Exit(0 if is_equal_to_source(card) else 1)
    selected = names or [folder.name for folder in listing.find_card_folders(zoo_dir())]
    if not selected:
        print("the zoo is empty: nothing to verify")
    stores = [name for name in selected if Path(name).suffix.lower() in STORE_SUFFIXES]
    failed = bool(stores) and not verify_stores(stores, accept_columns)
    for name in (name for name in selected if name not in stores):
        for check in register.verify_encoder(name):
            print(f"{name}: {check.name} {'ok' if check.passed else 'FAILED'}: {check.detail}")
            failed |= not check.passed
    raise typer.Exit(1 if failed else 0)


def verify_stores(paths: Sequence[str], accept_columns: bool) -> bool:
    """Whether the stores hold what was stored; prints what they do not, and the counts."""
    from encoders.store.store import expand_paths

    intact = [verify_store(path, accept_columns) for path in expand_paths(list(paths))]  # all of them, also after a damaged one
    return all(intact)


def verify_store(path: Path, accept_columns: bool) -> bool:
    """Whether a store file holds what was stored; prints what it does not, and the counts."""
    import numpy as np

    from encoders.runtime.cli import track_progress
    from encoders.store.content import accept_metadata, count_without_hash, find_damaged_images
    from encoders.store.store import Store
    from encoders.store.verified import save_verified

    if accept_columns:
        accept_metadata(path)
    store = Store.open(path)
    n, damaged = len(store), 0
    for found in track_progress(find_damaged_images(store, range(n)), "images", n):
        if found is not None:
            print(f"{path}: {found.key}: FAILED: {found.reason}")
            damaged += 1
    columns = {True: "attributes and columns ok", False: "attributes and columns FAILED", None: "columns have no digest (earlier version)"}
    written = store.parts[0].metadata_is_intact()
    unhashed = f"; {count} JPEGs of an earlier version were only decoded" if (count := count_without_hash(store)) else ""
    print(f"{path}: {n - damaged:,} of {n:,} images {'FAILED' if damaged else 'ok'}{unhashed}; {columns[written]}")
    if intact := not damaged and written is not False:
        save_verified(store.parts[0], np.ones(n, dtype=bool))
    return intact
