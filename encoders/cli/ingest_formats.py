"""`encoders ingest dicom`, `medmnist` and `hdf5`."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.ingest import HELP_FOOTER, command_help, run_ingest
from encoders.cli.ingest_options import (
    AcceptDamagedOption,
    ColumnNamesOption,
    CombineOption,
    DatasetOption,
    DeriveOption,
    FindingOption,
    LabelColumnOption,
    LabelsOption,
    ListColumnOption,
    ListSeparatorOption,
    MetaColumnOption,
    ModalityOption,
    OnlyOption,
    OnOption,
    OutArgument,
    OverwriteOption,
    ReaderOption,
    ResizeOption,
    SplitColumnOption,
    WorkersOption,
)
from encoders.ingest.options import ArrayLayout, Codec, FixedChannels, KeyMode, Voi

LOW_CONTRAST_SPAN = 0.1  # share of the 16-bit range; a CT without its window uses 2 %
SizeOption = Annotated[int, typer.Option(min=0, help="side of the stored square; 0: the size of the images, which must be equal")]

DICOM_HELP = command_help(
    "dicom",
    f"""Order: modality table or rescale; VOI table or window; inversion (MONOCHROME1, PresentationLUTShape INVERSE); padding black. 0 is
the darkest and 65535 the brightest displayed value. The columns dicom_* record what was done to each file.

Patients: PatientID and StudyInstanceUID are pseudonymised (hashes of the name of the data set and the identifier; pseudonymous, not
anonymous: use --salt-file to prevent guessing). Sex, age (at most 90) and view are stored, other tags only with --keep-tag. A key is the
relative name of the file; if the name contains the identifier or the name of the patient, the key is a hash (--key).

--labels is joined on the file, its folder, SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID, StudyID, AccessionNumber or PatientID,
whichever most values match. Repeated rows of a file are merged if they agree, otherwise see --combine.

Default geometry: 256 px, `pad`. Files with several frames, without pixels, truncated, damaged or constant are quarantined.
A PatientID that identifies nobody (empty, 0, ANONYMOUS, Anonymized^Patient) is an
unknown patient.{HELP_FOOTER}""",
)

MEDMNIST_HELP = command_help(
    "medmnist",
    f"""Mutually exclusive classes become the text label `label`, a binary label one column (`pneumonia`, `malignant`), several findings
one column each. The files do not identify patients: every image counts as a patient of its own. Default geometry:
unchanged.{HELP_FOOTER}""",
)

HDF5_HELP = command_help(
    "hdf5",
    f"""PCam:  encoders ingest hdf5 train_x.h5 pcam.h5 --images x --labels y --labels-file train_y.h5

PCam with slides:  add --table camelyonpatch_level_2_split_train_meta.csv, whose column wsi names the slide of every image

CLAM:  encoders ingest hdf5 'patches/*.h5' tiles.h5 --images imgs --coords coords --pattern '(?P<patient>TCGA-..-....)'

CLAM with a table of slides:  add --table slides.csv (slide_id, case_id, label) instead of --pattern

uint8 and uint16 are stored unchanged, floats in [0, 1] become 16 bits, other numbers need --range. (N, C, H, W) is detected. Default
geometry: unchanged.{HELP_FOOTER}""",
)


def add_format_commands(ingest_app: typer.Typer) -> None:
    """Adds these commands to `encoders ingest`."""
    ingest_app.command("dicom", help=DICOM_HELP)(ingest_dicom)
    ingest_app.command("medmnist", help=MEDMNIST_HELP)(ingest_medmnist)
    ingest_app.command("hdf5", help=HDF5_HELP)(ingest_hdf5)


def ingest_dicom(
    src: Annotated[Path, typer.Argument(help="folder of the files, searched recursively, or one file")],
    out: OutArgument,
    voi: Annotated[
        Voi,
        typer.Option(help="auto (the table of the file, else its window, else none), lut, window, or none (the full range of its bits)"),
    ] = "auto",
    window: Annotated[
        str | None,
        typer.Option(help="CENTER,WIDTH for all files, or for CT lung, mediastinum, abdomen, liver, bone, brain, subdural, stroke"),
    ] = None,
    view: Annotated[
        str, typer.Option(help="views to keep, e.g. PA,AP; PA AP LATERAL FRONTAL (PA, AP or not stated) OBLIQUE OTHER UNKNOWN")
    ] = "",
    crop_borders: Annotated[
        bool, typer.Option("--crop-borders", help="cut uniform borders (collimation, film edge) before resizing")
    ] = False,
    accept_damaged: AcceptDamagedOption = False,
    labels: LabelsOption = None,
    column_names: ColumnNamesOption = None,
    on: OnOption = None,
    combine: CombineOption = "error",
    reader_column: ReaderOption = None,
    derive: DeriveOption = None,
    list_column: ListColumnOption = None,
    finding: FindingOption = None,
    list_separator: ListSeparatorOption = None,
    join_column: Annotated[
        str | None, typer.Option("--join-column", "--file-column", help="column of the CSV to join on  [default: guessed]")
    ] = None,
    patient_column: Annotated[str | None, typer.Option(help="column of the CSV that replaces PatientID; pseudonymised, too")] = None,
    split_column: SplitColumnOption = None,
    label_column: LabelColumnOption = None,
    meta_column: MetaColumnOption = None,
    only: OnlyOption = None,
    keep_tag: Annotated[list[str] | None, typer.Option(help="DICOM keyword to store unchanged, e.g. StationName; repeatable")] = None,
    key: Annotated[KeyMode, typer.Option(help="auto, file (always the relative name) or hash (always a hash)")] = "auto",
    salt_file: Annotated[Path | None, typer.Option(help="file with a secret, without which pseudonyms cannot be guessed; keep it")] = None,
    size: SizeOption = 256,
    resize: ResizeOption = "pad",
    channels: Annotated[FixedChannels, typer.Option(help="1 (files with colour are quarantined) or 3")] = "1",
    modality: Annotated[str, typer.Option(help="cxr, ct, ...: which tasks and baselines belong together")] = "cxr",
    dataset: DatasetOption = None,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.dicom.labels import DicomLabels
    from encoders.ingest.dicom.pixels import parse_window
    from encoders.ingest.dicom.source import DicomSource
    from encoders.ingest.tables.list_columns import parse_list_options
    from encoders.ingest.tables.load_tables import name_columns_of
    from encoders.runtime.cli import track_progress
    from encoders.runtime.pseudonyms import read_salt

    table = None
    used = {"derive": derive, "on": on, "reader_column": reader_column, "join_column": join_column, "patient_column": patient_column}
    lists = parse_list_options(list_column, finding or (), list_separator)
    require_labels(labels, **used, list_column=list_column, only=only, label_column=label_column, meta_column=meta_column)
    if tables := name_columns_of(labels, column_names):
        columns = (join_column, patient_column, split_column, label_column or (), meta_column or ())
        table = DicomLabels(tables, *columns, only or (), on or (), combine, reader_column, derive or (), lists)
    source = DicomSource(
        src,
        table,
        voi=voi,
        window=parse_window(window) if window else None,
        views=view,
        crop_borders=crop_borders,
        accept_damaged=accept_damaged,
        keep_tags=keep_tag or (),
        key=key,
        salt=read_salt(salt_file),
        size=size,
        resize=resize,
        channels=int(channels),
        modality=modality,
        dataset=dataset,
        wrap_progress=lambda names: track_progress(names, "headers"),
    )
    try:
        run_ingest(source, out, workers, overwrite)
    except typer.Exit:
        print_dicom_notes(out)
        raise


def ingest_medmnist(
    file: Annotated[Path, typer.Argument(help="e.g. pneumoniamnist_224.npz")],
    out: OutArgument,
    size: SizeOption = 0,
    resize: ResizeOption = "squash",
    modality: Annotated[str, typer.Option(help="cxr, histology, ...  [default: that of the set, for MedMNIST v2]")] = "",
    dataset: Annotated[str, typer.Option(help="name of the data set  [default: name of the file without _224]")] = "",
    accept_damaged: AcceptDamagedOption = False,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.medmnist.source import MedMNISTSource

    spool = out.with_name(out.name + ".unpacked")
    source = MedMNISTSource(file, spool, size, resize, dataset, modality, accept_damaged=accept_damaged)
    try:
        run_ingest(source, out, workers, overwrite)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def ingest_hdf5(
    src: Annotated[str, typer.Argument(help="a file, or a quoted pattern of files with the same layout, e.g. 'patches/*.h5'")],
    out: OutArgument,
    images: Annotated[str, typer.Option(help="key of the images: x (PCam), imgs (CLAM), or a path in the file")],
    labels: Annotated[str | None, typer.Option(help="key of the labels, (N,), (N, 1, ...) or (N, K); numbers or text")] = None,
    label_names: Annotated[str, typer.Option(help="a,b,c: names of the label columns  [default: the key]")] = "",
    labels_file: Annotated[Path | None, typer.Option(help="file of labels and patients, if not the file of images")] = None,
    patients: Annotated[str | None, typer.Option(help="key of the patients")] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="CSV, TSV, Excel or Parquet with a row per file, or per image of a single file: patient, slide, split, labels"),
    ] = None,
    file_column: Annotated[str | None, typer.Option(help="column of the table with the files  [default: guessed]")] = None,
    patient_column: Annotated[str | None, typer.Option(help='column of patients  [default: guessed; "": none]')] = None,
    slide_column: Annotated[str | None, typer.Option(help='column of slides  [default: guessed, e.g. wsi; "": none]')] = None,
    split_column: SplitColumnOption = None,
    label_column: LabelColumnOption = None,
    meta_column: MetaColumnOption = None,
    list_column: ListColumnOption = None,
    finding: FindingOption = None,
    list_separator: ListSeparatorOption = None,
    only: OnlyOption = None,
    pattern: Annotated[
        str | None, typer.Option(help="regular expression for the paths; its groups patient, slide, study, split, label become columns")
    ] = None,
    coords: Annotated[
        str | None, typer.Option(help="key of (x, y) positions; every file then is one slide, and one patient unless --patients")
    ] = None,
    layout: Annotated[ArrayLayout, typer.Option(help="auto, NHWC or NCHW")] = "auto",
    value_range: Annotated[
        str, typer.Option("--range", help="LOW,HIGH: values that become black and white, for other types of numbers")
    ] = "",
    codec: Annotated[Codec, typer.Option(help="raw, or jpeg (8 bits, quality 90, 4:4:4; smaller, slower to read)")] = "raw",
    size: SizeOption = 0,
    resize: ResizeOption = "pad",
    modality: ModalityOption = "histology",
    dataset: Annotated[str, typer.Option(help="name of the data set  [default: name of the file or the folder]")] = "",
    accept_damaged: AcceptDamagedOption = False,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.hdf5 import Hdf5Source, parse_range
    from encoders.ingest.hdf5_fields import TableOptions, refuse_table_as_key
    from encoders.ingest.list_files import match_downloads
    from encoders.ingest.tables.list_columns import parse_list_options
    from encoders.store.store import match_files

    refuse_table_as_key(labels)
    source = Hdf5Source(
        sorted({*map(Path, match_files(src)), *match_downloads(src)}),
        images,
        labels,
        [name.strip() for name in label_names.split(",")] if label_names else (),
        patients,
        coords,
        labels_file,
        layout,
        parse_range(value_range) if value_range else None,
        size,
        resize,
        dataset,
        modality,
        codec,
        accept_damaged=accept_damaged,
        table=TableOptions(
            table,
            {"file": file_column, "patient": patient_column, "slide": slide_column, "split": split_column},
            label_column or (),
            meta_column or (),
            pattern,
            parse_list_options(list_column, finding or (), list_separator),
            only or (),
        ),
    )
    run_ingest(source, out, workers, overwrite)


def require_labels(labels: list[Path] | Path | None, **options: object) -> None:
    """Raises InputError for an option that requires --labels, if there is no CSV."""
    from encoders.runtime.errors import InputError

    if not labels and (used := [name for name, value in options.items() if value]):
        raise InputError(f"--{used[0].replace('_', '-')} requires a CSV of labels; pass --labels FILE.csv too")


def print_dicom_notes(out: Path) -> None:
    """Prints how patients and files were pseudonymised, and whether the images use their range of values."""
    from encoders.ingest.dicom.header import HIDDEN_KEY_PREFIX
    from encoders.store.store import Store

    store = Store.open(out)
    hidden = sum(key.startswith(HIDDEN_KEY_PREFIX) for key in store.column("key"))
    alone = int((store.column("patient") == store.column("key")).sum())
    typer.echo(f"patients: {store.attrs['patients']}")
    if hidden:
        typer.echo(
            f"{hidden} keys are hashes, because the file name contains the identifier or the name of the patient (or because of --key hash)"
        )
    if alone:
        typer.echo(
            f"warning: {alone} images have no PatientID, or a placeholder such as ANONYMOUS or 0; each counts as a patient of its own"
        )
    flat = int((store.column("dicom_span") < LOW_CONTRAST_SPAN).sum())
    if flat:
        typer.echo(
            f"warning: {flat} images use less than {LOW_CONTRAST_SPAN:.0%} of the range (column dicom_voi has the reason); "
            "pass --window, or another --voi"
        )
