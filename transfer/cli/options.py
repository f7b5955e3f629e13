"""Options that several commands share: the records to read, and how their tables compare encoders."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import split_commas
from encoders.runtime.command_line import COMMA_LIST

if TYPE_CHECKING:
    from transfer.records.record import Record

RecordPaths = Annotated[
    list[Path] | None, typer.Argument(help="record files or folders of records; default: all records of the working folder")
]
TaskFilter = Annotated[str | None, typer.Option(metavar=COMMA_LIST, help="only these tasks")]
ReferenceEncoder = Annotated[
    str | None,
    typer.Option(
        metavar=COMMA_LIST,
        help="reference encoder of all differences; default: every ImageNet encoder, random weights of the "
        "same network, and the other pretrained encoders",
    ),
]
SeedEncoders = Annotated[
    str | None,
    typer.Option(
        metavar=COMMA_LIST,
        help="encoders to treat as pretraining seeds of one recipe; only needed where the cards do not say so",
    ),
]
Prevalence = Annotated[float | None, typer.Option(help="prevalence to compute PPV and NPV for; default: prevalence of the test part")]
OPERATING_HELP = "threshold rule, applied to validation patients: youden, sensitivity=T or specificity=T, e.g. sensitivity=0.95"


def split_baselines(text: str | None, records: Sequence["Record"]) -> list[str]:
    """The encoders of --baseline; an encoder whose own name has commas is one. Raises InputError for one that no record is of."""
    from encoders.runtime.errors import unknown_name_error

    encoders = {r.identity.encoder for r in records}
    names = [text] if text in encoders and text is not None else split_commas(text)
    for name in names:
        if name not in encoders:
            raise unknown_name_error("encoder among the records", name, encoders)
    return names


@contextmanager
def saved_results() -> Iterator[None]:
    """Writes what the block computes from records beside them, also when it fails or is interrupted."""
    from transfer.records.statistics_file import save_results

    try:
        yield
    finally:
        save_results()
