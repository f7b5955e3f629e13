"""Options that several commands share: the records to read, and how their tables compare encoders."""

from pathlib import Path
from typing import Annotated

import typer

RecordPaths = Annotated[
    list[Path] | None, typer.Argument(help="record files or folders of records; default: all records of the working folder")
]
TaskFilter = Annotated[str | None, typer.Option(help="only these tasks, comma-separated")]
ReferenceEncoder = Annotated[
    str | None, typer.Option(help="reference encoder of all differences; default: ImageNet weights of the same network")
]
SeedEncoders = Annotated[
    str | None,
    typer.Option(help="encoders, comma-separated, to treat as pretraining seeds of one recipe; only needed where the cards do not say so"),
]
Prevalence = Annotated[float | None, typer.Option(help="prevalence to compute PPV and NPV for; default: prevalence of the test part")]
OPERATING_HELP = "threshold rule, applied to validation patients: youden, sensitivity=T or specificity=T, e.g. sensitivity=0.95"
