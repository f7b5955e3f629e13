"""`encoders doctor`."""

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    store: Annotated[list[str], typer.Argument(help="a store, several, or a quoted pattern such as 'tiles/*.h5': seen as one")],
    picture: Annotated[Path | None, typer.Option(help="PNG to write: the nearest pairs that are not identical, side by side")] = None,
    radius: Annotated[int, typer.Option(min=0, max=32, help="bits of 256 that near-duplicates may differ in")] = 8,
    near: Annotated[bool | None, typer.Option("--near/--no-near", help="look for near-duplicates  [default: up to 200,000 images]")] = None,
    sample: Annotated[int, typer.Option(min=1, help="images for the histogram of values")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of tables")] = False,
) -> None:
    """What is in a store, and what would make a comparison untrue: copies, patients in two splits, empty images and labels.

    Near-duplicates are found by a perceptual hash: it sees through JPEG, resizing and gamma, and misses crops of 3 % or more, flips
    and rotations.

    Exit status: 0 nothing found; 1 something found; 2 the store cannot be read.
    """
    import json

    from encoders.doctor.checks import examine_store, find_nearest_pairs
    from encoders.doctor.picture import draw_pairs
    from encoders.doctor.text import print_report
    from encoders.store.store import Store

    opened = Store.open(store)
    report = examine_store(opened, radius, near, sample)
    if picture is not None:
        pairs, distance = find_nearest_pairs(opened)
        draw_pairs(opened, pairs, distance, picture)
    if as_json:
        typer.echo(json.dumps(report, indent=1, allow_nan=False))
    else:
        print_report(report)
        if picture is not None:
            typer.echo(f"nearest pairs: {picture}")
    raise typer.Exit(1 if report["findings"] else 0)
