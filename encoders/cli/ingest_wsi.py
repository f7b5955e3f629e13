"""`encoders ingest wsi`."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.ingest import RESUME_ADVICE, command_help
from encoders.cli.ingest_options import (
    AcceptDamagedOption,
    ColumnNamesOption,
    CombineOption,
    DatasetOption,
    ModalityOption,
    OnOption,
    ReaderOption,
)
from encoders.ingest.options import Codec, StainMethod

WSI_HELP = command_help(
    "wsi",
    """data.store='OUT_DIR/*.h5' opens the stores as one.

SLIDES is a folder, searched recursively, or one slide, in any format of OpenSlide, including DICOM (a folder of a series, or one of its
files). The resolution of a slide comes from --slide-mpp or the table, else from its metadata, its TIFF tags, or the power of its objective;
the index records the source, and a slide without resolution is an error. A level is read if it is at most 1 % too coarse, then averaged and
interpolated to the exact size, unless it is within 0.25 % of it. A slide may be coarser than --mpp
by --max-upscale. Unscanned areas get the background colour of the slide.

Tissue is what is more saturated than the glass at 8 um per pixel, closed by 32 um, without specks below 0.02 mm2. The glass is measured on
every slide, so a pale core is found beside a dark one. --masks and --tissue-model replace this. A tile needs --min-tissue of it, must be
sharp, and must not be pen, glass or black; every rejection is counted. Faint ink over tissue, folds and air bubbles are not detected.
Incomplete tiles at the right and lower edge are left out. OUT_DIR/overview.html shows all slides.

--coords takes the tiles at the coordinates of a file instead: no tissue is looked for, and no tile is rejected unless a limit of quality
is given. Coordinates that are taken, outside the slide and duplicate are counted. The size of a tile is the file's, if it states one;
--mpp and --tile must fit it, within 10 %.

\b
    encoders ingest wsi slides/ tiles/ --mpp 0.5 --tile 256
    encoders ingest wsi slides/ tiles/ --labels slides.csv --pattern '^(?P<patient>TCGA-..-....)'
    encoders ingest wsi slides/ tumour/ --regions geojson/ --include Tumor --exclude Artefact
    encoders ingest wsi slides/ tiles/ --coords clam/patches/ --mpp 0.25 --tile 256
    encoders ingest wsi old/ old_tiles/ --slide-mpp 0.2527

Exit status: 0 every slide was ingested; 1 some failed, or are damaged (the others are in OUT_DIR, the reasons in
OUT_DIR/slides.quarantine.csv); 2 nothing was written because of an error in the command. If interrupted, rerun the same command to
resume.""",
)


def ingest_whole_slides(
    ctx: typer.Context,
    slides: Annotated[Path, typer.Argument(help="folder of slides, or one slide", metavar="SLIDES")],
    out_dir: Annotated[Path, typer.Argument(help="folder of the stores, e.g. tiles/", metavar="OUT_DIR")],
    mpp: Annotated[float, typer.Option(help="micrometres per pixel of the tiles: 0.5 is about 20x, 0.25 about 40x")] = 0.5,
    tile: Annotated[int, typer.Option(help="side of a tile in pixels")] = 256,
    overlap: Annotated[int, typer.Option(help="pixels that adjacent tiles share")] = 0,
    max_upscale: Annotated[
        float, typer.Option(help="how many times coarser than --mpp a slide may be; its tiles are then interpolated; 1: not at all")
    ] = 1.02,
    slide_mpp: Annotated[
        float | None, typer.Option(min=0.01, max=50, help="micrometres per pixel of the slides, instead of their metadata")
    ] = None,
    min_tissue: Annotated[float, typer.Option(help="share of a tile that must be tissue")] = 0.5,
    max_tiles: Annotated[
        int,
        typer.Option(min=0, help="maximum number of tiles per slide, sampled among those with tissue before quality is measured; 0: all"),
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="seed of this sample")] = 0,
    masks: Annotated[Path | None, typer.Option(help="folder with NAME.png for every slide NAME; tissue is not 0")] = None,
    regions: Annotated[
        Path | None,
        typer.Option(
            help="folder with NAME.geojson (QuPath) or NAME.xml (ASAP), plain, .gz or .zip, or one such file for one slide; a slide whose "
            "file has no area is an error; classes that end with * (QuPath's Ignore*) are excluded"
        ),
    ] = None,
    coords: Annotated[
        Path | None,
        typer.Option(help="take the tiles at coordinates of CLAM, TRIDENT or STAMP: NAME.h5 of one slide, or the folder of these"),
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="class of regions to take tiles from; repeatable  [default: all that are not excluded]")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="class of regions without tiles; repeatable")] = None,
    tissue_mpp: Annotated[float, typer.Option(help="micrometres per pixel of the tissue mask")] = 8.0,
    tissue_threshold: Annotated[
        int | None,
        typer.Option(help="saturation, of 255, relative to the glass, above which a pixel is tissue  [default: above the noise, 8 to 20]"),
    ] = None,
    tissue_model: Annotated[
        Path | None,
        typer.Option(help="network that finds tissue at --tissue-mpp, as ONNX (.onnx) or TorchScript (.pt); its sha256 is recorded"),
    ] = None,
    min_sharpness: Annotated[
        float,
        typer.Option(min=0, help="variance of the Laplacian at 2 um per pixel, in squared gray levels of 255; sharp tissue: 800 to 8000"),
    ] = 100.0,
    max_pen: Annotated[
        float,
        typer.Option(help="maximum share of a tile that is ink: green or blue by hue, black, gray or red where it is even over 24 um"),
    ] = 0.1,
    max_white: Annotated[float, typer.Option(help="maximum share that is colourless and brighter than 220 of 255")] = 0.9,
    max_black: Annotated[float, typer.Option(help="maximum share that is darker than 40 of 255")] = 0.1,
    normalise: Annotated[
        StainMethod | None, typer.Option(help="stain normalisation, measured once per slide; recorded in the stores")
    ] = None,
    icc: Annotated[bool, typer.Option("--icc", help="convert colours to sRGB by the profile of the slide")] = False,
    accept_damaged: AcceptDamagedOption = False,
    codec: Annotated[Codec, typer.Option(help="jpeg (quality 90, 4:4:4), or raw (five times the size, lossless)")] = "jpeg",
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="table of slides (CSV, TSV, Excel, Parquet; .gz): file, patient, split, labels, mpp; slides without a row are left out; "
            "repeatable: several tables are joined"
        ),
    ] = None,
    column_names: ColumnNamesOption = None,
    on: OnOption = None,
    combine: CombineOption = "error",
    reader_column: ReaderOption = None,
    label_column: Annotated[
        list[str] | None, typer.Option("--label-column", "--label", help="column of labels; repeatable  [default: guessed]")
    ] = None,
    meta_column: Annotated[list[str] | None, typer.Option(help="column of metadata; repeatable")] = None,
    pattern: Annotated[
        str | None, typer.Option(help="regular expression for the paths; its groups patient, slide, study, split, label become columns")
    ] = None,
    dataset: DatasetOption = None,
    modality: ModalityOption = "histology",
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="number of processes; 0: as many as the scheduler assigned; 1: this process, which ends if a slide crashes it"
        ),
    ] = 0,
    prune: Annotated[bool, typer.Option("--prune", help="remove stores of slides that are not among SLIDES from OUT_DIR")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="rebuild everything in OUT_DIR")] = False,
) -> None:
    from encoders.ingest.tables.load_tables import name_columns_of
    from encoders.ingest.wsi.settings import TilingSettings
    from encoders.ingest.wsi.slide_table import TableJoin
    from encoders.ingest.wsi.source import SlideSource, ingest_slide_source
    from encoders.ingest.wsi.summary import print_summary
    from encoders.ingest.wsi.tissue_model import open_tissue_model
    from encoders.runtime.cli import advise_on_interrupt, progress_counter

    given = [name for name in ctx.params if (origin := ctx.get_parameter_source(name)) and origin.name != "DEFAULT"]
    settings = TilingSettings(
        mpp=mpp,
        tile=tile,
        overlap=overlap,
        max_upscale=max_upscale,
        min_tissue=min_tissue,
        tissue_mpp=tissue_mpp,
        tissue_threshold=tissue_threshold,
        tissue_model=open_tissue_model(tissue_model) if tissue_model else None,
        min_sharpness=min_sharpness if "min_sharpness" in given or not coords else 0.0,  # small tiles have no sharpness
        max_pen=max_pen,
        max_white=max_white,
        max_black=max_black,
        max_tiles=max_tiles,
        seed=seed,
        normalise=normalise,
        icc=icc,
        codec=codec,
        accept_damaged=accept_damaged,
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )
    if coords:
        settings = settings.for_coordinates(given)
    source = SlideSource(
        slides,
        settings,
        slide_mpp=slide_mpp,
        masks=masks,
        regions=regions,
        labels=name_columns_of(labels, column_names),
        label=label_column or (),
        meta=meta_column or (),
        join=TableJoin(on or (), combine, reader_column),
        pattern=pattern,
        coords=coords,
        dataset=dataset,
        modality=modality,
    )
    for note in source.notes:
        typer.echo(note)
    with advise_on_interrupt(RESUME_ADVICE):
        summary = ingest_slide_source(source, out_dir, workers, overwrite, ticker=progress_counter, prune=prune, notify=typer.echo)
    print_summary(summary.cohort, summary.records)
    raise typer.Exit(summary.exit_code)
