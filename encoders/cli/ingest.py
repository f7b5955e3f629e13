"""`encoders ingest folder` and `encoders ingest phantom`, and what all ingest commands share: help, progress and the summary."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.cli.ingest_options import (
    AcceptDamagedOption,
    ColumnNamesOption,
    CombineOption,
    DatasetOption,
    DeriveOption,
    FindingOption,
    LabelsOption,
    ListColumnOption,
    ListSeparatorOption,
    ModalityOption,
    OnlyOption,
    OnOption,
    OutArgument,
    OverwriteOption,
    ReaderOption,
    ResizeOption,
    WorkersOption,
)
from encoders.ingest.options import ChannelChoice, Codec, HairMethod, PhantomName, StainMethod
from encoders.ingest.sources import SOURCES

if TYPE_CHECKING:
    from encoders.ingest.source import ItemT, Source

ingest_app = typer.Typer(
    no_args_is_help=True, help="Ingest images into a store. Unreadable files are listed in OUT.quarantine.csv, with exit status 1."
)

RESUME_ADVICE = "rerun the same command to resume"

HELP_FOOTER = """

Exit status: 0 all files were ingested; 1 some files could not be read (the others are in OUT, the reasons in OUT.quarantine.csv);
2 nothing was written because of an error in the command. If interrupted, rerun the same command to resume."""


def command_help(name: str, details: str) -> str:
    """The help text of the command `encoders ingest NAME`: the summary of the source, then the details."""
    return f"{SOURCES[name].summary}\n\n{details}"


FOLDER_HELP = command_help(
    "folder",
    f"""Default geometry: 256 px, `pad`: the long side becomes 256, antialiased, and black fills the rest. A crop would lose the apices or
the costophrenic angles of a radiograph, and squashing would change the shape of the heart. The store records the geometry. Transparent
pixels become black, palettes and CMYK become RGB, and the EXIF orientation is applied. 16 bits are kept, also of colour and beside alpha;
WhiteIsZero becomes black = 0; signed values below 0 and floating-point values are quarantined, and so are files about which the decoder
warns, which have a wrong checksum, or lack pixels (--accept-damaged stores them). ICC profiles are not applied; those unlike sRGB are
counted. Empty cells, nan, NA, N/A, null, <NA> in the CSV mean unknown, and so do none, unknown, anonymous and the like among numbers or as
a patient; `none` is a class beside other words. The command counts them and prints the texts.

Tables name images by path (absolute and Windows paths too, matched by their longest end that one file has), file name, name without suffix,
or folder; images without a row are left out. Repeated rows of an image are merged if they agree, otherwise see --combine. Several tables:

\b
    encoders ingest folder files/ cxr.h5 --labels metadata.csv.gz --labels chexpert.csv.gz --on study_id --label-column Pneumonia

Lists of findings in a column become labels of 0 and 1, wherever a finding stands in the list. --only selects rows:

\b
    encoders ingest folder png/ cxr.h5 --labels padchest.csv.gz --list-column Labels --finding pneumonia,mass --only 'Projection=PA|AP'

A tree of folders needs no CSV: --pattern reads columns from the paths, here class folders, and a folder per patient.

\b
    encoders ingest folder tiles/ tiles.h5 --modality histology --codec jpeg --mpp 0.5 --pattern '(?P<label>[^/]+)/[^/]+$'
    encoders ingest folder tiles/ tiles.h5 --modality histology --pattern '(?P<patient>[^/]+)/(?P<slide>[^/_]+)_(?P<x>[0-9]+)_(?P<y>[0-9]+)'
    encoders ingest folder cxr/ cxr.h5 --labels train.csv --pattern '(?P<patient>patient[0-9]+)/(?P<study>study[0-9]+)/'{HELP_FOOTER}""",
)

PHANTOM_HELP = command_help(
    "phantom",
    f"""They show no patients. cxr: chest radiographs; label `opacity`: a reticular and nodular pattern in the lungs. cxr_edema: the same at
the bedside; label `edema`: a strong or a faint pattern, made so that pretraining helps (`make demo`). cxr_nodule: label `nodule`: a round
density in a lung, of which `transfer explain --evaluate` knows the place with --masks. histology: tiles that resemble H&E; label
`malignant`: lost glands, large and irregular nuclei. The same seed gives the same images.{HELP_FOOTER}""",
)


@ingest_app.command("folder", help=FOLDER_HELP)
def ingest_folder(
    src: Annotated[Path, typer.Argument(help="folder of the images, searched recursively")],
    out: OutArgument,
    labels: LabelsOption = None,
    column_names: ColumnNamesOption = None,
    on: OnOption = None,
    combine: CombineOption = "error",
    reader_column: ReaderOption = None,
    derive: DeriveOption = None,
    list_column: ListColumnOption = None,
    finding: FindingOption = None,
    list_separator: ListSeparatorOption = None,
    file_column: Annotated[str | None, typer.Option(help="column of file names, relative to SRC  [default: guessed, e.g. file]")] = None,
    patient_column: Annotated[str | None, typer.Option(help='column of patients  [default: guessed, e.g. patient_id; "": none]')] = None,
    split_column: Annotated[str | None, typer.Option(help='column of train, val, test  [default: guessed, e.g. split; "": none]')] = None,
    label_column: Annotated[
        list[str] | None,
        typer.Option("--label-column", "--label", help="column of labels, text or numbers; repeatable  [default: guessed]"),
    ] = None,
    meta_column: Annotated[list[str] | None, typer.Option(help="column of metadata (sex, age, view, site); repeatable")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="regular expression for the paths; its groups patient, slide, study, split, label, x, y, meta_NAME are columns"),
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, max=50, help="micrometres per pixel of the files; the store records the value after resizing")
    ] = None,
    only: OnlyOption = None,
    size: Annotated[int, typer.Option(min=0, help="side of the stored square; 0: the size of the files, which must be equal")] = 256,
    resize: ResizeOption = "pad",
    channels: Annotated[
        ChannelChoice,
        typer.Option(help="auto (1 if every image of the set is gray in every pixel, otherwise 3), 1 (luminance of colour images) or 3"),
    ] = "auto",
    bits: Annotated[
        str | None,
        typer.Option(
            help="bits that 16-bit files use, 9 to 16, or auto: groups of files are distinguished by their largest values, and each is "
            "mapped to the full range  [default: 16]"
        ),
    ] = None,
    accept_damaged: AcceptDamagedOption = False,
    codec: Annotated[Codec, typer.Option(help="raw, or jpeg (8 bits, quality 90, 4:4:4; a fifth of the size, slower to read)")] = "raw",
    normalise: Annotated[
        StainMethod | None,
        typer.Option(help="H&E stain normalisation, measured on every file; recorded in the store"),
    ] = None,
    remove_hair: Annotated[
        HairMethod | None, typer.Option(help="remove dark hairs from dermoscopic images (Lee et al. 1997); recorded in the store")
    ] = None,
    modality: ModalityOption = "cxr",
    dataset: DatasetOption = None,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.folder import FolderSource
    from encoders.ingest.image_bits import parse_bits
    from encoders.ingest.tables.list_columns import parse_list_options
    from encoders.ingest.tables.load_tables import name_columns_of

    source = FolderSource(
        src,
        name_columns_of(labels, column_names),
        columns={"file": file_column, "patient": patient_column, "split": split_column},
        label=label_column or (),
        meta=meta_column or (),
        only=only or (),
        on=on or (),
        combine=combine,
        reader=reader_column,
        derive=derive or (),
        lists=parse_list_options(list_column, finding or (), list_separator),
        size=size,
        resize=resize,
        channels=None if channels == "auto" else int(channels),
        bits=parse_bits(bits),
        accept_damaged=accept_damaged,
        modality=modality,
        dataset=dataset,
        codec=codec,
        pattern=pattern,
        mpp=mpp,
        normalise=normalise,
        remove_hair=remove_hair,
    )
    run_ingest(source, out, workers, overwrite)


@ingest_app.command("phantom", help=PHANTOM_HELP)
def ingest_phantom(
    out: OutArgument,
    kind: Annotated[PhantomName, typer.Option(help="what the images imitate")] = "cxr",
    patients: Annotated[int, typer.Option(min=2, help="number of patients; each has one to four images")] = 240,
    size: Annotated[int, typer.Option(min=32, help="side of the images")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="seed of the patients; the meaning of the labels does not depend on it")] = 0,
    labeled: Annotated[float, typer.Option(min=0, max=1, help="share of the patients whose labels are stored")] = 1.0,
    masks: Annotated[
        bool,
        typer.Option("--masks", help="also store where the finding is: the nodule, or the lungs whose pattern differs; not of histology"),
    ] = False,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.phantom.source import PhantomSource

    run_ingest(PhantomSource(kind, patients, size, seed, labeled, masks), out, workers, overwrite)


def run_ingest(source: "Source[ItemT]", out: Path, workers: int, overwrite: bool) -> None:
    """Ingests with a progress bar, prints the notes and the summary, and raises typer.Exit with the exit status."""
    from encoders.ingest.quarantine import describe_balance, print_quarantine, quarantine_path
    from encoders.ingest.shards import available_cpus, ingest
    from encoders.runtime.cli import advise_on_interrupt, progress_counter
    from encoders.runtime.local_notes import describe_for_log, show_path

    for note in source.notes:
        typer.echo(describe_for_log(note))
    with advise_on_interrupt(RESUME_ADVICE), progress_counter(f"ingest {out.name}", len(source.items())) as tick:
        summary = ingest(source, out, workers or available_cpus(), overwrite, tick)
    for note in summary.notes:
        typer.echo(describe_for_log(note))
    shape = " x ".join(map(str, summary.shape)) if summary.shape else f"sizes vary, {summary.channels} channels"
    content = f"{summary.rows} images of {summary.patients} patients, {shape} {summary.dtype}"
    typer.echo(f"{show_path(summary.out)}: {content}, {source.modality}, data set {source.dataset!r}")
    if balance := describe_balance(len(source.items()) + len(source.broken), summary.rows, len(summary.quarantined), source.left_out):
        typer.echo(balance)
    if summary.quarantined:
        print_quarantine(summary.quarantined, quarantine_path(out))
    raise typer.Exit(summary.exit_code)
