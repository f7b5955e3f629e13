"""`encoders doctor`."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    store: Annotated[
        list[str], typer.Argument(help="one or more stores, or a quoted pattern such as 'tiles/*.h5'; several are checked as one")
    ],
    picture: Annotated[Path | None, typer.Option(help="PNG to write: the most similar pairs of different images, side by side")] = None,
    radius: Annotated[int, typer.Option(min=0, max=32, help="near-duplicates: hashes that differ in at most this many of 256 bits")] = 8,
    near: Annotated[
        bool | None,
        typer.Option("--near/--no-near", help="search for near-duplicates  [default: search if the store has at most 200,000 images]"),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="number of images for the histogram of values")] = 1000,
    label: Annotated[
        list[str] | None, typer.Option(help="labels whose floor is measured; repeatable  [default: all]", show_default=False)
    ] = None,
    floor: Annotated[
        bool, typer.Option(help="predict each label from the image's histogram and a 16 x 16 thumbnail, cross-validated over patients")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Describe a store and report its problems.

    Reads every image and compares it with the hash of the image that was stored. Reports mixed bit depths (12-bit images in a 16-bit
    store are nearly black), duplicate images, patients in several splits, constant images, unusable labels, and labels that can be
    predicted without a network (floor): where AUROC is above 0.75, images of the classes may differ in how they were acquired.

    Near-duplicates are found with a perceptual hash. It is robust to JPEG compression, resizing and gamma, and misses crops of 3 % or
    more, flips and rotations.

    Exit status: 0 no findings, 1 findings, 2 the store cannot be read.
    """
    import json
    from functools import partial

    from encoders.doctor.checks import examine_store, find_nearest_pairs
    from encoders.doctor.picture import draw_pairs
    from encoders.doctor.text import print_report
    from encoders.runtime.cli import track_progress
    from encoders.runtime.errors import unknown_name_error
    from encoders.store.store import Store

    opened = Store.open(store)
    for name in label or ():
        if name not in opened.label_names():
            raise unknown_name_error("label", name, opened.label_names())
    watch = partial(track_progress, title="images", total=len(opened))
    report = examine_store(opened, radius, near, sample, floor=floor, floor_labels=label, watch=watch)
    if picture is not None:
        pairs, distance = find_nearest_pairs(opened)
        draw_pairs(opened, pairs, distance, picture)
    if as_json:
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        print_report(report)
        if picture is not None:
            typer.echo(f"most similar pairs: {picture}")
    raise typer.Exit(1 if report["findings"] else 0)
