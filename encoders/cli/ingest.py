"""`encoders ingest folder` and `encoders ingest phantom`, and what all ingest commands share: the last options and the summary."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from encoders.ingest.shards import Source

ingest_app = typer.Typer(
    no_args_is_help=True, help="Images -> one store. Broken files are listed in OUT.quarantine.csv; exit status 1 then."
)

OutArgument = Annotated[Path, typer.Argument(help="the store to write, e.g. cxr.h5")]
RESUME_ADVICE = "the same command goes on where it was"
WorkersOption = Annotated[int, typer.Option(min=0, help="processes; 0: as many as the scheduler gave")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="replace OUT, and drop an interrupted ingest with other settings")]
ModalityOption = Annotated[str, typer.Option(help="cxr, histology, ...: which tasks and baselines belong together")]
DatasetOption = Annotated[
    str | None, typer.Option(help="name of the data set: with the patient it says who a person is  [default: the folder's name]")
]

HELP_FOOTER = """

Exit status: 0 all went in; 1 some files could not be read (the rest is in OUT, the reasons in OUT.quarantine.csv); 2 nothing was
done because of a mistake in the command. An interrupted run goes on where it was when the same command is given again."""

FOLDER_HELP = f"""A folder of PNG, JPEG and TIFF images (8 and 16 bits, kept) becomes the store OUT.

Default geometry: 256 px, `pad`: the long side becomes 256, antialiased, and black fills the rest, because a crop loses the apices or the
costophrenic angles of a radiograph and squashing changes the heart's shape. It is recorded in the store. Transparent pixels become
black, palettes and CMYK become RGB, EXIF orientation is applied. Empty cells, nan, na, n/a and null in the CSV mean unknown.

A tree of folders needs no CSV: --pattern says what a path means, here class folders, and a folder for each patient.

\b
    encoders ingest folder tiles/ tiles.h5 --modality histology --codec jpeg --mpp 0.5 --pattern '(?P<label>[^/]+)/[^/]+$'
    encoders ingest folder tiles/ tiles.h5 --modality histology --pattern '(?P<patient>[^/]+)/(?P<slide>[^/_]+)_(?P<x>[0-9]+)_(?P<y>[0-9]+)'
    encoders ingest folder cxr/ cxr.h5 --labels train.csv --pattern '(?P<patient>patient[0-9]+)/(?P<study>study[0-9]+)/'{HELP_FOOTER}"""

PHANTOM_HELP = f"""Made-up images with patients and labels become the store OUT: for trying things out, and for tests. They are not patients.

cxr: chest radiographs; label `opacity`: a reticular and nodular pattern in the lungs. histology: tiles like H&E; label `malignant`: glands
lost, nuclei large and unlike. Mean intensity says nothing about the labels. The same seed gives the same images.{HELP_FOOTER}"""


@ingest_app.command("folder", help=FOLDER_HELP)
def ingest_folder(
    src: Annotated[Path, typer.Argument(help="folder with the images, searched through and through")],
    out: OutArgument,
    labels: Annotated[Path | None, typer.Option(help="CSV with a line for each image; images that it does not name are left out")] = None,
    file_column: Annotated[str | None, typer.Option(help="column of file names, relative to SRC  [default: guessed, e.g. file]")] = None,
    patient_column: Annotated[str | None, typer.Option(help='column of patients  [default: guessed, e.g. patient_id; "": none]')] = None,
    split_column: Annotated[str | None, typer.Option(help='column of train, val, test  [default: guessed, e.g. split; "": none]')] = None,
    label_column: Annotated[
        list[str] | None, typer.Option(help="column of labels, text or numbers; may be repeated  [default: guessed]")
    ] = None,
    meta_column: Annotated[list[str] | None, typer.Option(help="column of other facts (sex, age, view, site); may be repeated")] = None,
    pattern: Annotated[
        str | None,
        typer.Option(help="regular expression over a file's path; its groups patient, slide, study, split, label, x, y are columns"),
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(min=0.01, max=50, help="micrometres a pixel of the files; what is stored after resizing is recorded")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="column=value: only rows for which it holds; may be repeated")] = None,
    size: Annotated[int, typer.Option(min=0, help="side of the stored square; 0: as the files are, all of one size")] = 256,
    resize: Annotated[str, typer.Option(help="pad, crop (keep the middle) or squash (lose the aspect)")] = "pad",
    channels: Annotated[
        str, typer.Option(help="auto (1 if every image of the set is gray in every pixel, else 3), 1 (colour by luminance) or 3")
    ] = "auto",
    bits: Annotated[int | None, typer.Option(min=9, max=16, help="bits really used by 16-bit files  [default: 16]")] = None,
    codec: Annotated[str, typer.Option(help="raw, or jpeg (8 bits, quality 90, 4:4:4; a fifth of the size, slower to read)")] = "raw",
    normalise: Annotated[
        str | None,
        typer.Option(help="H&E stain to a reference: macenko or reinhard, measured on every file by itself; recorded in the store"),
    ] = None,
    modality: ModalityOption = "cxr",
    dataset: DatasetOption = None,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.folder import FolderSource
    from encoders.runtime.errors import unknown_name_error

    for kind, given, known in (
        ("resize rule", resize, ["pad", "crop", "squash"]),
        ("channels", channels, ["auto", "1", "3"]),
        ("codec", codec, ["raw", "jpeg"]),
    ):
        if given not in known:
            raise unknown_name_error(kind, given, known)
    source = FolderSource(
        src,
        labels,
        columns={"file": file_column, "patient": patient_column, "split": split_column},
        label=label_column or (),
        meta=meta_column or (),
        only=only or (),
        size=size,
        resize=resize,  # type: ignore[arg-type]
        channels=None if channels == "auto" else int(channels),
        bits=bits,
        modality=modality,
        dataset=dataset,
        codec=codec,
        pattern=pattern,
        mpp=mpp,
        normalise=normalise,
    )
    run_ingest(source, out, workers, overwrite, source.notes)


@ingest_app.command("phantom", help=PHANTOM_HELP)
def ingest_phantom(
    out: OutArgument,
    kind: Annotated[str, typer.Option(help="cxr or histology")] = "cxr",
    patients: Annotated[int, typer.Option(min=2, help="people; each has one to four images")] = 240,
    size: Annotated[int, typer.Option(min=32, help="side of the images")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="another seed: other people; the labels mean the same")] = 0,
    labeled: Annotated[float, typer.Option(min=0, max=1, help="share of the patients whose labels are stored")] = 1.0,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.phantom.source import PHANTOM_KINDS, PhantomSource
    from encoders.runtime.errors import unknown_name_error

    if kind not in PHANTOM_KINDS:
        raise unknown_name_error("kind of phantom", kind, list(PHANTOM_KINDS))
    run_ingest(
        PhantomSource(kind, patients, size, seed, labeled),
        out,
        workers,
        overwrite,
        ["these images are synthetic: made by a program, no patient"],
    )


def run_ingest(source: "Source", out: Path, workers: int, overwrite: bool, notes: list[str]) -> None:
    """Ingests with progress and prints the summary. Raises typer.Exit(1) when something was quarantined."""
    from encoders.ingest.shards import available_cpus, ingest
    from encoders.runtime.cli import advise_on_interrupt, progress_counter

    for note in notes:
        typer.echo(note)
    with advise_on_interrupt(RESUME_ADVICE), progress_counter(f"ingest {out.name}", len(source.items())) as tick:
        summary = ingest(source, out, workers or available_cpus(), overwrite, tick)
    for note in summary.notes:
        typer.echo(note)
    shape = " x ".join(map(str, summary.shape)) if summary.shape else f"sizes vary, {summary.channels} channels"
    content = f"{summary.rows} images of {summary.patients} patients, {shape} {summary.dtype}"
    typer.echo(f"{summary.out}: {content}, {source.modality}, data set {source.dataset!r}")
    if summary.quarantined:
        from encoders.ingest.quarantine import print_quarantine, quarantine_path

        print_quarantine(summary.quarantined, quarantine_path(out))
    raise typer.Exit(summary.exit_code)
