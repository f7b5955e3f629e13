"""`encoders ingest wsi`."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.ingest import RESUME_ADVICE, DatasetOption, ModalityOption

WSI_HELP = """Whole-slide images become tiles of an exact resolution: one store a slide in OUT_DIR; data.store='OUT_DIR/*.h5' opens them as one.

SLIDES is a folder, searched through and through, or one slide: every format of OpenSlide, DICOM too (a folder of a series, or one of its
files). A slide's resolution is what --slide-mpp or the table says, else its metadata, its TIFF tags, or its objective's power; what was
used is in the index, and a slide that does not say is an error. A level at most 1 % too coarse is read, and averaged and interpolated to
the exact size, unless it is within 0.25 % already. What was never scanned gets the slide's background colour.

Tissue is what is more saturated than Otsu's threshold at 8 um a pixel, closed by 32 um, without specks below 0.02 mm2; or --masks. A tile
needs --min-tissue of it, must be sharp, and not be pen, glass or black; every rejection is counted. What does not fill a tile at the right
and lower edge of a slide is left out. OUT_DIR/overview.html shows all slides.

\b
    encoders ingest wsi slides/ tiles/ --mpp 0.5 --tile 256
    encoders ingest wsi slides/ tiles/ --labels slides.csv --pattern '^(?P<patient>TCGA-..-....)'
    encoders ingest wsi slides/ tumour/ --regions geojson/ --include Tumor --exclude Artefact
    encoders ingest wsi old/ old_tiles/ --slide-mpp 0.2527

Exit status: 0 every slide went in; 1 some did not, or are damaged (the rest is in OUT_DIR, the reasons in OUT_DIR/slides.quarantine.csv);
2 nothing was done because of a mistake in the command. Interrupted, the same command goes on where it was."""


def ingest_whole_slides(
    slides: Annotated[Path, typer.Argument(help="folder of slides, or one slide", metavar="SLIDES")],
    out_dir: Annotated[Path, typer.Argument(help="folder for the stores, e.g. tiles/", metavar="OUT_DIR")],
    mpp: Annotated[float, typer.Option(help="micrometres a pixel of the tiles: 0.5 is about 20x, 0.25 about 40x")] = 0.5,
    tile: Annotated[int, typer.Option(help="side of a tile in pixels")] = 256,
    overlap: Annotated[int, typer.Option(help="pixels that neighbours share")] = 0,
    slide_mpp: Annotated[
        float | None, typer.Option(min=0.01, max=50, help="micrometres a pixel of the slides themselves, whatever they say")
    ] = None,
    min_tissue: Annotated[float, typer.Option(help="share of a tile that must be tissue")] = 0.5,
    max_tiles: Annotated[
        int, typer.Option(min=0, help="at most so many a slide, drawn among those with tissue before they are judged; 0: all")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="of that draw")] = 0,
    masks: Annotated[Path | None, typer.Option(help="folder with NAME.png for every slide NAME, not 0 where there is tissue")] = None,
    regions: Annotated[
        Path | None, typer.Option(help="folder with NAME.geojson, as QuPath exports it, or one such file for one slide")
    ] = None,
    include: Annotated[
        list[str] | None, typer.Option(help="class of regions to take tiles from; may be repeated  [default: all not excluded]")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="class of regions to stay out of; may be repeated")] = None,
    tissue_mpp: Annotated[float, typer.Option(help="micrometres a pixel of the tissue mask")] = 8.0,
    min_sharpness: Annotated[
        float,
        typer.Option(min=0, help="variance of the Laplacian at 2 um a pixel, in squared gray levels of 255; sharp tissue: 800 to 8000"),
    ] = 100.0,
    max_pen: Annotated[float, typer.Option(help="share of a tile that may have the hue of green or blue ink")] = 0.1,
    max_white: Annotated[float, typer.Option(help="share that may be brighter than 220 of 255 and colourless")] = 0.9,
    max_black: Annotated[float, typer.Option(help="share that may be darker than 40 of 255")] = 0.1,
    normalise: Annotated[
        str | None, typer.Option(help="stain to a reference: macenko or reinhard, measured once a slide; recorded in the stores")
    ] = None,
    icc: Annotated[bool, typer.Option("--icc", help="bring colours to sRGB by the slide's own profile")] = False,
    codec: Annotated[str, typer.Option(help="jpeg (quality 90, 4:4:4), or raw (five times the size, nothing lost)")] = "jpeg",
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV with a line a slide: file, patient, split, labels, mpp; slides that it does not name are left out"),
    ] = None,
    label_column: Annotated[list[str] | None, typer.Option(help="column of labels; may be repeated  [default: guessed]")] = None,
    meta_column: Annotated[list[str] | None, typer.Option(help="column of other facts; may be repeated")] = None,
    pattern: Annotated[
        str | None, typer.Option(help="regular expression over a slide's path; its groups patient, slide, study, split, label are columns")
    ] = None,
    dataset: DatasetOption = None,
    modality: ModalityOption = "histology",
    workers: Annotated[
        int, typer.Option(min=0, help="processes; 0: as many as the scheduler gave; 1: this one, which a slide that crashes it ends")
    ] = 0,
    prune: Annotated[bool, typer.Option("--prune", help="remove stores in OUT_DIR of slides that are not among these")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="make everything in OUT_DIR anew")] = False,
) -> None:
    from encoders.ingest.workers import available_cpus
    from encoders.ingest.wsi.cohort import Cohort
    from encoders.ingest.wsi.find_slides import list_slide_items
    from encoders.ingest.wsi.ingest_slides import ingest_slides
    from encoders.ingest.wsi.settings import TilingSettings
    from encoders.ingest.wsi.summary import print_summary, write_summary
    from encoders.runtime.cli import advise_on_interrupt, progress_counter

    settings = TilingSettings(
        mpp=mpp,
        tile=tile,
        overlap=overlap,
        min_tissue=min_tissue,
        tissue_mpp=tissue_mpp,
        min_sharpness=min_sharpness,
        max_pen=max_pen,
        max_white=max_white,
        max_black=max_black,
        max_tiles=max_tiles,
        seed=seed,
        normalise=normalise,
        icc=icc,
        codec=codec,  # type: ignore[arg-type]
        include=tuple(include or ()),
        exclude=tuple(exclude or ()),
    )
    items, notes = list_slide_items(
        slides,
        slide_mpp,
        masks,
        regions,
        labels,
        label_column or [],
        meta_column or [],
        pattern,
        settings.include,
        settings.exclude,
    )
    for note in notes:
        typer.echo(note)
    cohort = Cohort(tuple(items), settings, out_dir, dataset or slides.resolve().stem, modality)
    with advise_on_interrupt(RESUME_ADVICE):
        records = ingest_slides(cohort, 0 if workers == 1 else workers or available_cpus(), overwrite, progress_counter, prune, typer.echo)
    write_summary(cohort, records)
    raise typer.Exit(print_summary(cohort, records))
