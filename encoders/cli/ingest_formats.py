"""`encoders ingest dicom`, `medmnist` and `hdf5`."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.ingest import HELP_FOOTER, DatasetOption, OutArgument, OverwriteOption, WorkersOption, run_ingest

LOW_CONTRAST_SPAN = 0.1  # share of the 16-bit range; a CT without its window uses 2 %
SizeOption = Annotated[int, typer.Option(min=0, help="side of the stored square; 0: as the images are, all of one size")]
ResizeOption = Annotated[str, typer.Option(help="pad, crop (keep the middle) or squash (lose the aspect)")]

DICOM_HELP = f"""A folder of DICOM files becomes the store OUT, 16 bits, as a viewer would show them.

Order: modality table or rescale; VOI table or window; inversion (MONOCHROME1, PresentationLUTShape INVERSE); padding black. 0 is the
darkest and 65535 the brightest displayed value. What was done to each file is in the columns dicom_*.

People: PatientID and StudyInstanceUID become pseudonyms (hashes of the data set's name and the identifier; pseudonymous, not anonymous:
use --salt-file against guessing). Sex, age (90 for all older) and view are kept, other tags only with --keep-tag. A key is the file's
relative name, unless that repeats the patient's identifier or name: then it is a hash, too (--key).

Default geometry: 256 px, `pad`. Files with several frames, without pixels, cut off or constant are quarantined.{HELP_FOOTER}"""

MEDMNIST_HELP = f"""A MedMNIST file (.npz, 28 to 224 px) becomes the store OUT, with its train, val and test split and its labels by name.

Classes that exclude each other are the text label `label`; yes and no is one column (`pneumonia`, `malignant`), several findings are one
each. The files do not say who the patients are: every image counts as a patient of its own. Default geometry: as it is.{HELP_FOOTER}"""

HDF5_HELP = f"""Arrays (N, H, W[, C]) in HDF5 become the store OUT, read one image at a time.

PCam:  encoders ingest hdf5 train_x.h5 pcam.h5 --images x --labels y --labels-file train_y.h5

CLAM:  encoders ingest hdf5 'patches/*.h5' tiles.h5 --images imgs --coords coords

uint8 and uint16 are kept, floats in [0, 1] become 16 bits, other numbers need --range. (N, C, H, W) is recognised. Default geometry: as
it is.{HELP_FOOTER}"""


def add_format_commands(ingest_app: typer.Typer) -> None:
    """Adds these commands to `encoders ingest`."""
    ingest_app.command("dicom", help=DICOM_HELP)(ingest_dicom)
    ingest_app.command("medmnist", help=MEDMNIST_HELP)(ingest_medmnist)
    ingest_app.command("hdf5", help=HDF5_HELP)(ingest_hdf5)


def ingest_dicom(
    src: Annotated[Path, typer.Argument(help="folder with the files, searched through and through, or one file")],
    out: OutArgument,
    voi: Annotated[
        str,
        typer.Option(help="auto (the file's table, else its window, else none), lut, window, or none (the whole range its bits allow)"),
    ] = "auto",
    window: Annotated[
        str | None,
        typer.Option(help="CENTER,WIDTH for all files, or for CT lung, mediastinum, abdomen, liver, bone, brain, subdural, stroke"),
    ] = None,
    view: Annotated[
        str, typer.Option(help="keep these only, e.g. PA,AP; PA AP LATERAL FRONTAL (PA, AP or untold) OBLIQUE OTHER UNKNOWN")
    ] = "",
    crop_borders: Annotated[bool, typer.Option("--crop-borders", help="cut even borders (collimation, film edge) before resizing")] = False,
    labels: Annotated[Path | None, typer.Option(help="CSV joined on file, SOPInstanceUID or PatientID, whichever fits")] = None,
    join_column: Annotated[str | None, typer.Option(help="its column to join on  [default: guessed]")] = None,
    patient_column: Annotated[str | None, typer.Option(help="its column to use in place of PatientID; hashed alike")] = None,
    split_column: Annotated[str | None, typer.Option(help='its column of train, val, test  [default: guessed; "": none]')] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="its column of labels; may be repeated  [default: guessed]")] = None,
    meta_column: Annotated[list[str] | None, typer.Option(help="its column of other facts; may be repeated")] = None,
    only: Annotated[list[str] | None, typer.Option(help="column=value: only files whose row says so; may be repeated")] = None,
    keep_tag: Annotated[list[str] | None, typer.Option(help="DICOM keyword to store as it is, e.g. StationName; may be repeated")] = None,
    key: Annotated[str, typer.Option(help="auto, file (always the relative name) or hash (never)")] = "auto",
    salt_file: Annotated[Path | None, typer.Option(help="file with a secret: pseudonyms cannot be guessed without it; keep it")] = None,
    size: SizeOption = 256,
    resize: ResizeOption = "pad",
    channels: Annotated[int, typer.Option(help="1 (files with colour are quarantined) or 3")] = 1,
    modality: Annotated[str, typer.Option(help="cxr, ct, ...: which tasks and baselines belong together")] = "cxr",
    dataset: DatasetOption = None,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.dicom.header import read_salt
    from encoders.ingest.dicom.labels import DicomLabels
    from encoders.ingest.dicom.pixels import parse_window
    from encoders.ingest.dicom.source import DicomSource
    from encoders.runtime.cli import track_progress

    check_choice("--voi", voi, ["auto", "lut", "window", "none"])
    check_choice("--resize", resize, ["pad", "crop", "squash"])
    check_choice("--key", key, ["auto", "file", "hash"])
    check_choice("--channels", str(channels), ["1", "3"])
    told = None
    if labels is not None:
        told = DicomLabels(labels, join_column, patient_column, split_column, label_column or (), meta_column or (), only or ())
    require_labels(
        labels, join_column=join_column, patient_column=patient_column, only=only, label_column=label_column, meta_column=meta_column
    )
    source = DicomSource(
        src,
        told,
        voi=voi,  # type: ignore[arg-type]
        window=parse_window(window) if window else None,
        views=view,
        crop_borders=crop_borders,
        keep_tags=keep_tag or (),
        key=key,  # type: ignore[arg-type]
        salt=read_salt(salt_file),
        size=size,
        resize=resize,  # type: ignore[arg-type]
        channels=channels,
        modality=modality,
        dataset=dataset,
        watch=lambda names: track_progress(names, "headers"),
    )
    try:
        run_ingest(source, out, workers, overwrite, source.notes)
    except typer.Exit:
        print_dicom_notes(out)
        raise


def ingest_medmnist(
    file: Annotated[Path, typer.Argument(help="e.g. pneumoniamnist_224.npz")],
    out: OutArgument,
    size: SizeOption = 0,
    resize: ResizeOption = "squash",
    modality: Annotated[str, typer.Option(help="cxr, histology, ...  [default: known for the sets of MedMNIST v2]")] = "",
    dataset: Annotated[str, typer.Option(help="name of the data set  [default: the file's name without _224]")] = "",
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.medmnist.source import MedMNISTSource

    check_choice("--resize", resize, ["pad", "crop", "squash"])
    spool = out.with_name(out.name + ".unpacked")
    source = MedMNISTSource(file, spool, size, resize, dataset, modality)  # type: ignore[arg-type]
    try:
        notes = ["MedMNIST files name no patients: every image counts as a patient of its own, and the file's split is kept"]
        run_ingest(source, out, workers, overwrite, notes)
    finally:
        shutil.rmtree(spool, ignore_errors=True)


def ingest_hdf5(
    src: Annotated[str, typer.Argument(help="a file, or a quoted pattern of files of the same make, e.g. 'patches/*.h5'")],
    out: OutArgument,
    images: Annotated[str, typer.Option(help="key of the images: x (PCam), imgs (CLAM), or a path in the file")],
    labels: Annotated[str | None, typer.Option(help="key of the labels, (N,), (N, 1, ...) or (N, K); numbers or text")] = None,
    label_names: Annotated[str, typer.Option(help="a,b,c: names of the label columns  [default: the key]")] = "",
    labels_file: Annotated[Path | None, typer.Option(help="the file that holds labels and patients, if it is another one")] = None,
    patients: Annotated[str | None, typer.Option(help="key of the patients")] = None,
    coords: Annotated[
        str | None, typer.Option(help="key of (x, y) places: every file is a slide then, and a patient unless --patients")
    ] = None,
    layout: Annotated[str, typer.Option(help="auto, NHWC or NCHW")] = "auto",
    value_range: Annotated[str, typer.Option("--range", help="LOW,HIGH: values that become black and white, for other numbers")] = "",
    codec: Annotated[str, typer.Option(help="raw, or jpeg (8 bits, quality 90, 4:4:4; smaller, slower to read)")] = "raw",
    size: SizeOption = 0,
    resize: ResizeOption = "pad",
    modality: Annotated[str, typer.Option(help="cxr, histology, ...: which tasks and baselines belong together")] = "histology",
    dataset: Annotated[str, typer.Option(help="name of the data set  [default: the file's or the folder's name]")] = "",
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.hdf5 import Hdf5Source, parse_range
    from encoders.store.store import match_files

    check_choice("--layout", layout, ["auto", "NHWC", "NCHW"])
    check_choice("--resize", resize, ["pad", "crop", "squash"])
    check_choice("--codec", codec, ["raw", "jpeg"])
    source = Hdf5Source(
        [Path(path) for path in match_files(src)],
        images,
        labels,
        [name.strip() for name in label_names.split(",")] if label_names else (),
        patients,
        coords,
        labels_file,
        layout,  # type: ignore[arg-type]
        parse_range(value_range) if value_range else None,
        size,
        resize,  # type: ignore[arg-type]
        dataset,
        modality,
        codec,
    )
    known = patients or coords
    run_ingest(source, out, workers, overwrite, [] if known else ["no --patients: every image counts as a patient of its own"])


def check_choice(option: str, given: str, known: list[str]) -> None:
    from encoders.runtime.errors import unknown_name_error

    if given not in known:
        raise unknown_name_error(f"value for {option}", given, known)


def require_labels(labels: Path | None, **options: object) -> None:
    """Raises InputError for an option about the CSV where there is none."""
    from encoders.runtime.errors import InputError

    if labels is None and (given := [name for name, value in options.items() if value]):
        raise InputError(f"--{given[0].replace('_', '-')} speaks of the CSV of labels; pass --labels FILE.csv too")


def print_dicom_notes(out: Path) -> None:
    """Says what became of the names of patients and files, and whether the values fill their range."""
    from encoders.ingest.dicom.source import HIDDEN_KEY_PREFIX
    from encoders.store.store import Store

    store = Store.open(out)
    hidden = sum(key.startswith(HIDDEN_KEY_PREFIX) for key in store.column("key"))
    alone = int((store.column("patient") == store.column("key")).sum())
    typer.echo(f"patients: {store.attrs['patients']}")
    if hidden:
        typer.echo(f"{hidden} keys are hashes, because the file's name repeats the patient's identifier or name (or --key hash)")
    if alone:
        typer.echo(f"warning: {alone} images have no PatientID; each counts as a patient of its own")
    flat = int((store.column("dicom_span") < LOW_CONTRAST_SPAN).sum())
    if flat:
        typer.echo(
            f"warning: {flat} images use less than {LOW_CONTRAST_SPAN:.0%} of the range; column dicom_voi says why: pass --window, or another --voi"
        )
