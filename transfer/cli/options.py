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
BenchFilter = Annotated[str | None, typer.Option("--bench", metavar="NAME", help="only the records of this benchmark of `transfer submit`")]
EncoderFilter = Annotated[
    list[str] | None,
    typer.Option("--encoder", help="only these encoders, A,B or repeated, and the baselines: those of --baseline, or all"),
]
ProtocolFilter = Annotated[str | None, typer.Option(metavar=COMMA_LIST, help="only these protocols")]
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
        help="encoders, or a sweep, to treat as pretraining seeds of one recipe; only needed where the cards do not say so",
    ),
]
Prevalence = Annotated[float | None, typer.Option(help="prevalence to compute PPV and NPV for; default: prevalence of the test part")]
SETS_METAVAR = "[SCORE=]P"
SETS_HELP = (
    "also prediction sets that hold the true class with this probability, e.g. 0.9; SCORE: aps (default), raps or lac, with +class "
    "promised for each class, e.g. aps+class=0.9"
)
ENSEMBLE_HELP = (
    "also deep ensembles: a row of the mean probability over seeds of the protocol (seeds), or of a recipe (pretraining); both with a comma"
)
REFER_HELP = "also what holds for the rest when these shares of the test images, the least certain, are referred, e.g. 5,10,20%"
OPERATING_HELP = "threshold rule, applied to validation patients: youden, sensitivity=T or specificity=T, e.g. sensitivity=0.95"


def find_chosen_records(records: Sequence[Path] | None, bench: str | None) -> list[Path]:
    """The record files of the arguments of a command: those given, those of a submitted benchmark, or all of the working folder.

    Raises InputError for records together with a benchmark, and for a benchmark that is unknown or has no record."""
    from encoders.runtime.errors import InputError
    from transfer.bench.bench_folder import find_bench_folder
    from transfer.records.record import find_records

    if bench is None:
        return find_records(records or ())
    if records:
        raise InputError(f"--bench {bench} names its records itself: leave out {', '.join(map(str, records))}, or --bench")
    return find_bench_folder(bench).list_records()


def find_study_folder(bench: str | None) -> Path | None:
    """The folder of a benchmark that is a study; None for another one, and without a benchmark."""
    from transfer.bench.bench_folder import find_bench_folder

    folder = None if bench is None else find_bench_folder(bench)
    return folder.path if folder is not None and folder.study_file.is_file() else None


def filter_records(
    records: Sequence["Record"], task: str | None, encoder: Sequence[str] | None, protocol: str | None, baseline: str | None
) -> list["Record"]:
    """The records of these tasks, encoders and protocols; None: of all. Baselines stay, those of --baseline or all.

    Raises InputError for a name that no record has."""
    from encoders.runtime.errors import unknown_name_error
    from encoders.zoo.names import split_names
    from transfer.strategies.names import split_protocol

    tasks, encoders, protocols = split_commas(task), split_names(list(encoder or [])), split_commas(protocol)
    for kind, names in (("task", tasks), ("encoder", encoders), ("protocol", protocols)):
        known = {str(getattr(r.identity, kind)) for r in records}
        known |= {split_protocol(name)[0] for name in known} if kind == "protocol" else set()
        for name in names if records else ():
            if name not in known:
                raise unknown_name_error(f"{kind} among the records", name, known)
    named = [] if baseline == "none" else [baseline, *split_commas(baseline)]

    def is_kept(r: "Record") -> bool:
        beside = r.identity.encoder in named if baseline else r.meta.role != "encoder"
        return (
            (not tasks or r.identity.task in tasks)
            and (not protocols or not {r.identity.protocol, split_protocol(r.identity.protocol)[0]}.isdisjoint(protocols))
            and (not encoders or r.identity.encoder in encoders or beside)
        )

    return [r for r in records if is_kept(r)]


def split_baselines(text: str | None, records: Sequence["Record"]) -> list[str]:
    """The encoders of --baseline, [] for `none`; an encoder whose own name has commas is one. Raises InputError for an unknown one."""
    from encoders.runtime.errors import unknown_name_error

    encoders = {r.identity.encoder for r in records}
    names = [text] if text in encoders and text is not None else split_commas(None if text == "none" else text)
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
