"""`encoders heatmap`: scores of tiles over the overview of their slide."""

from pathlib import Path
from typing import Annotated

import typer


def heatmap(
    store: Annotated[str, typer.Argument(help="store(s) made by `encoders ingest wsi`, e.g. 'tiles/*.h5'")],
    scores: Annotated[Path, typer.Argument(help="CSV with `key` and a score a tile, or SLIDE.h5 made by `encoders embed --by-slide`")],
    out: Annotated[Path, typer.Argument(help="PNG to write")],
    slide: Annotated[str | None, typer.Option(help="which slide; not needed where there is one")] = None,
    column: Annotated[str, typer.Option(help="column of the CSV that holds the score")] = "score",
) -> None:
    """Scores of tiles as colours over the overview of their slide. Features are shown by their first principal component.

    \b
        encoders heatmap tiles/slide1.h5 scores.csv slide1.png
        encoders heatmap 'tiles/*.h5' features/slide1.h5 slide1.png --slide slide1

    Tiles without a score are outlined. A scale of 0 to 1 is used where all scores lie within it.
    """
    from encoders.features.heatmap import write_heatmap as made
    from encoders.store.store import Store

    print(made(Store.open(store), slide, scores, out, column))
