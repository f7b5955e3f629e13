"""`encoders ingest nifti`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.cli.ingest import HELP_FOOTER, command_help, run_ingest
from encoders.cli.ingest_formats import require_labels
from encoders.cli.ingest_options import (
    AcceptDamagedOption,
    ColumnNamesOption,
    CombineOption,
    DatasetOption,
    DeriveOption,
    FindingOption,
    LabelColumnOption,
    ListColumnOption,
    ListSeparatorOption,
    MetaColumnOption,
    OnlyOption,
    OnOption,
    OutArgument,
    OverwriteOption,
    ReaderOption,
    ResizeOption,
    SplitColumnOption,
    WorkersOption,
)
from encoders.ingest.options import SliceAxis

if TYPE_CHECKING:
    from encoders.ingest.label_table import Role
    from encoders.ingest.nifti.source import NiftiSource

NIFTI_HELP = command_help(
    "nifti",
    f"""Volumes are turned to the orientation of their header (closest axes, no interpolation), so that axial slices have the front at the
top and the patient's right at the left. Pixels that are not square are resampled. 0 is black and 65535 white: of a --window for CT, of
--percentiles of each volume for MR (default 0.5,99.5 of the voxels above the volume's minimum). NaN is black, and counted in `not_finite`.

Slices with less than --min-foreground above black are left out and counted. All slices of a volume have one patient: the group `patient`
of --pattern, a column of the table, or the volume itself. Columns: `volume`, `slice`, `pixel_mm`, `slice_mm`, `orientation` in the file.

\b
    encoders ingest nifti brats/ flair.h5 --files '*_flair.nii*' --segmentation _flair=_seg --segment tumour --pattern '(?P<patient>[^/]+)/'
    encoders ingest nifti Task01_BrainTumour/ t1gd.h5 --channel 2 --segmentation imagesTr=labelsTr --segment tumour --files 'imagesTr/*'
    encoders ingest nifti ct/ lung.h5 --modality ct --window lung --every 5 --labels volumes.csv

Repeated rows of a volume are merged if they agree, otherwise see --combine. With --only,
volumes without a row are left out.{HELP_FOOTER}""",
)


def ingest_nifti(
    src: Annotated[Path, typer.Argument(help="folder of the volumes (.nii, .nii.gz), searched recursively")],
    out: OutArgument,
    axis: Annotated[SliceAxis, typer.Option(help="axial, coronal or sagittal slices")] = "axial",
    every: Annotated[int, typer.Option(min=1, help="keep every k-th slice")] = 1,
    window: Annotated[
        str | None,
        typer.Option(help="CENTER,WIDTH in units of the volume, or lung, mediastinum, abdomen, liver, bone, brain, subdural, stroke"),
    ] = None,
    percentiles: Annotated[str | None, typer.Option(help="LOW,HIGH of each volume: black and white  [default: 0.5,99.5]")] = None,
    channel: Annotated[str | None, typer.Option(help="of files with several volumes: one number from 0, or R,G,B such as 0,2,3")] = None,
    files: Annotated[str | None, typer.Option(help="only volumes whose path or name matches, e.g. '*_flair.nii*'")] = None,
    pattern: Annotated[
        str | None, typer.Option(help="regular expression for the paths; its groups patient, study, split, label become columns")
    ] = None,
    segmentation: Annotated[str | None, typer.Option(help="OLD=NEW in the path leads to the segmentation, e.g. _flair=_seg")] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(help="label of a slice: NAME (any value but 0 in it) or NAME=1,2,4; repeatable  [default: segment]"),
    ] = None,
    min_segment: Annotated[int, typer.Option(min=1, help="voxels of a segment that make a slice positive")] = 1,
    min_foreground: Annotated[float, typer.Option(min=0, max=1, help="share of a slice above black; other slices are left out")] = 0.05,
    labels: Annotated[
        list[Path] | None, typer.Option(help="table with rows of volumes, folders or patients (CSV, TSV, Excel, Parquet; .gz); repeatable")
    ] = None,
    column_names: ColumnNamesOption = None,
    on: OnOption = None,
    combine: CombineOption = "error",
    reader_column: ReaderOption = None,
    derive: DeriveOption = None,
    list_column: ListColumnOption = None,
    finding: FindingOption = None,
    list_separator: ListSeparatorOption = None,
    file_column: Annotated[
        str | None, typer.Option("--file-column", "--join-column", help="column that names volume, folder or patient  [default: guessed]")
    ] = None,
    patient_column: Annotated[str | None, typer.Option(help='column of patients  [default: guessed; "": none]')] = None,
    split_column: SplitColumnOption = None,
    label_column: LabelColumnOption = None,
    meta_column: MetaColumnOption = None,
    only: OnlyOption = None,
    size: Annotated[int, typer.Option(min=0, help="side of the stored square; 0: the size of the slices, which must be equal")] = 256,
    resize: ResizeOption = "pad",
    modality: Annotated[str, typer.Option(help="mr, ct, ...: which tasks and baselines belong together")] = "mr",
    dataset: DatasetOption = None,
    accept_damaged: AcceptDamagedOption = False,
    workers: WorkersOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    from encoders.ingest.dicom.pixels import parse_window
    from encoders.ingest.nifti.scaling import VoxelScaling, parse_percentiles
    from encoders.ingest.nifti.segments import parse_segment, parse_substitution
    from encoders.ingest.nifti.source import NiftiSource, parse_channels
    from encoders.ingest.nifti.volume_table import VolumeLabels
    from encoders.ingest.tables.list_columns import parse_list_options
    from encoders.ingest.tables.load_tables import name_columns_of
    from encoders.runtime.errors import InputError

    if window and percentiles:
        raise InputError("--window and --percentiles both say what becomes black and white; pass one of them")
    lists = parse_list_options(list_column, finding or (), list_separator)
    require_labels(labels, file_column=file_column, patient_column=patient_column, only=only, label_column=label_column)
    require_labels(labels, meta_column=meta_column, derive=derive, on=on, reader_column=reader_column, list_column=list_column)
    columns: dict[Role, str | None] = {"file": file_column, "patient": patient_column, "split": split_column}
    tables = name_columns_of(labels, column_names)
    how = (label_column or (), meta_column or (), only or (), on or (), combine, reader_column, derive or (), lists)
    scaling = VoxelScaling(parse_window(window)) if window else None
    source = NiftiSource(
        src,
        VolumeLabels(tables, columns, *how) if tables else None,
        axis=axis,
        every=every,
        scaling=VoxelScaling(percentiles=parse_percentiles(percentiles)) if percentiles else scaling,
        channel=parse_channels(channel) if channel else None,
        files=files,
        pattern=pattern,
        segmentation=parse_substitution(segmentation) if segmentation else None,
        segments=[parse_segment(text) for text in segment or ()],
        min_segment=min_segment,
        min_foreground=min_foreground,
        size=size,
        resize=resize,
        modality=modality,
        dataset=dataset,
        accept_damaged=accept_damaged,
    )
    try:
        run_ingest(source, out, workers, overwrite)
    except typer.Exit:
        for line in count_volumes_and_slices(source, out):
            typer.echo(line)
        raise


def count_volumes_and_slices(source: "NiftiSource", out: Path) -> list[str]:
    """How all files of the input, and the planned slices, divide into stored, left out and quarantined ones; the numbers add up."""
    from encoders.ingest.quarantine import describe_balance, read_quarantine
    from encoders.store.store import Store

    store, items, broken = Store.open(out), set(source.items()), {name for name, _ in source.broken}
    volumes = set(map(str, store.column("volume").tolist()))
    quarantine = [name for name, _ in read_quarantine(out)]
    bad = (items & {*quarantine}) | ({name.rpartition("/")[0] for name in quarantine} & items - volumes)  # all slices of another size
    rule = f"less than {source.min_foreground:.0%} above black, or of one value"
    left_out = {**source.left_out, "no slice to keep": len(items - volumes - bad)}
    lines = [describe_balance(len(volumes) + len(bad) + len(broken), len(volumes), len(bad) + len(broken), left_out)]
    planned = sum(map(source.planned_slices, items))
    # A volume is in quarantine with all of its slices, or a single slice, whose size differs from that of the others.
    lost = sum(source.planned_slices(name) if name in items else 1 for name in quarantine if name not in broken)
    return [*lines, f"{planned} slices: {len(store)} stored, {planned - len(store) - lost} left out ({rule}), {lost} in quarantine"]
