"""`encoders heatmap`: tile scores drawn over the overview of their slide."""

from pathlib import Path
from typing import Annotated

import typer


def heatmap(
    store: Annotated[str, typer.Argument(help="store written by `encoders ingest wsi`, or a quoted pattern such as 'tiles/*.h5'")],
    scores: Annotated[
        Path,
        typer.Argument(help="CSV with the columns `key` and `score`, one row per tile, or features of the slide (.h5, .pt)"),
    ],
    out: Annotated[Path, typer.Argument(help="PNG to write")],
    slide: Annotated[str | None, typer.Option(help="name of the slide; required if the store has several")] = None,
    column: Annotated[str, typer.Option(help="column of the CSV that holds the score")] = "score",
) -> None:
    """Draw tile scores over the overview of their slide.

    Features are reduced to their first principal component.

    \b
        encoders heatmap tiles/slide1.h5 scores.csv slide1.png
        encoders heatmap 'tiles/*.h5' features/slide1.h5 slide1.png --slide slide1

    Tiles without a score are outlined. The colour scale is 0 to 1 if all scores are in this range.
    """
    from encoders.features.heatmap import write_heatmap
    from encoders.store.store import Store

    print(write_heatmap(Store.open(store), slide, scores, out, column))
