"""Options that several `encoders ingest` commands share."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.ingest.options import CombineMode, SquareRule

OutArgument = Annotated[Path, typer.Argument(help="the store to write, e.g. cxr.h5")]
WorkersOption = Annotated[int, typer.Option(min=0, help="number of processes; 0: as many as the scheduler assigned")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace OUT, and discard an interrupted ingest with other settings")]
AcceptDamagedOption = Annotated[
    bool,
    typer.Option("--accept-damaged", help="store damaged images as far as they can be decoded, count them, and record why (column damage)"),
]
ModalityOption = Annotated[str, typer.Option(help="cxr, histology, ...: which tasks and baselines belong together")]
DatasetOption = Annotated[
    str | None, typer.Option(help="name of the data set; with the patient, it identifies a person  [default: name of the folder]")
]
LabelsOption = Annotated[
    list[Path] | None, typer.Option(help="table of labels (CSV, TSV, Excel, Parquet; .gz); repeatable: several tables are joined")
]
ColumnNamesOption = Annotated[
    str | None, typer.Option(help="NAME,NAME,...: names of the first columns of a table of labels that has no line of names")
]
OnOption = Annotated[
    list[str] | None, typer.Option(help="column on which several --labels are joined; repeatable  [default: all that they share]")
]
CombineOption = Annotated[
    CombineMode,
    typer.Option(
        help="rows of one image that disagree: error; max and mean of numbers; any (1 if any row has 1); majority of rows or readers, with "
        "its share stored as LABEL_agreement"
    ),
]
DeriveOption = Annotated[
    list[str] | None,
    typer.Option(help="new column of 0 and 1, e.g. pneumothorax=EncodedPixels!=-1 or frontal=view==PA|AP; repeatable"),
]
ListColumnOption = Annotated[
    str | None, typer.Option(help="column with lists of findings: a|b, or a, b, ['a', 'b'], JSON; an empty cell is unknown")
]
FindingOption = Annotated[
    list[str] | None,
    typer.Option(help="findings of --list-column to store as labels of 0 and 1, e.g. pneumonia,effusion; repeat it for names with commas"),
]
ListSeparatorOption = Annotated[
    str | None, typer.Option(help="what divides the lists of --list-column  [default: found: | ; new line , or brackets]")
]
OnlyOption = Annotated[
    list[str] | None,
    typer.Option(help="only rows with this value, e.g. split=train, 'view=PA|AP', age=18..90 or 'age>=18'; repeatable"),
]
ReaderOption = Annotated[
    str | None, typer.Option(help='column of readers, one vote each in mean and majority  [default: guessed, e.g. rad_id; "": rows vote]')
]
SplitColumnOption = Annotated[str | None, typer.Option(help='column of train, val, test  [default: guessed; "": none]')]
LabelColumnOption = Annotated[
    list[str] | None, typer.Option("--label-column", "--label", help="column of labels; repeatable  [default: guessed]")
]
MetaColumnOption = Annotated[list[str] | None, typer.Option(help="column of metadata; repeatable")]
ResizeOption = Annotated[SquareRule, typer.Option(help="pad, crop (keep the centre) or squash (lose the aspect ratio)")]
