"""`transfer predict`: probabilities and decisions of images by a trained encoder, as CSV."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from encoders.runtime.cli import DeviceOption, advise_on_interrupt, make_console, progress_counter
from transfer.cli.options import SETS_HELP, SETS_METAVAR

DistanceKind = Literal["mahalanobis", "relative", "knn"]


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="STORE|FOLDER|FILE...", help="a store (.h5), a folder of stores, images or whole slides, or such files"),
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME[,NAME...]", help="a trained encoder that `transfer train` wrote (required); several: an ensemble")
    ] = "",
    out: Annotated[Path, typer.Option(help="the CSV to write")] = Path("predictions.csv"),
    replace: Annotated[bool, typer.Option("--replace", help="replace OUT if it exists")] = False,
    sets: Annotated[str | None, typer.Option(metavar=SETS_METAVAR, help=SETS_HELP)] = None,
    mc_dropout: Annotated[
        int, typer.Option("--mc-dropout", min=0, help="predictions of each image with the dropout of its training, which are averaged")
    ] = 0,
    distance: Annotated[
        DistanceKind | None, typer.Option(help="also how unlike the train images an image is: distance and percentile", show_default=False)
    ] = None,
    slides: Annotated[bool, typer.Option("--slides", help="the files are whole slides, also .tiff and .dcm")] = False,
    slide_mpp: Annotated[
        float | None, typer.Option(min=0.01, max=50, help="micrometres per pixel of all slides, instead of their metadata")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes that read images; 0: this process reads")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Predict with a trained encoder: one row per image with calibrated probabilities, decision and uncertainty.

    For example

    \b
        transfer predict --model cxr_pneumonia new_images/ --out predictions.csv      # PNG, JPEG, TIFF, DICOM
        transfer predict --model cxr_pneumonia scan1.dcm scan2.dcm
        transfer predict --model cxr_pneumonia cxr.h5 --out predictions.csv --replace
        transfer predict --model tumour slides/ --out tiles.csv                       # whole slides; also tiles.slides.csv
        transfer predict --model seed0,seed1,seed2 cxr.h5 --sets 0.9                  # an ensemble, with prediction sets
        transfer predict --model cxr_pneumonia new_images/ --distance knn             # which images are unlike the train images

    Files are read, resized and windowed as the images of the model's task were when they were ingested. No label is needed.

    Columns: key (of the store, or the path as given or within FOLDER); probability_CLASS, after temperature scaling; decision_CLASS, 1 from
    the stored threshold on, or for several classes decision, the most probable one; uncertainty, the entropy of the probabilities, from
    0 to 1 (of several labels, the mean); problem. An image that cannot be read has a row with its reason and no prediction, is listed in
    OUT.quarantine.csv, and gives exit status 1.

    --model A,B,C averages the calibrated probabilities of encoders with equal classes, and adds entropy (of the average), expected_entropy
    (the mean of the members: what more data do not remove) and mutual_information (how much the members differ), as shares of the largest
    entropy. Members of one task and split get a temperature and thresholds for their average. --mc-dropout 20 does the same with one
    encoder that was trained with finetune.dropout or drop path.

    --sets 0.9 adds set_CLASS, 1 where the class is in the prediction set. --distance mahalanobis, relative or knn adds distance and
    percentile: the share of validation images (patients count equally) that are nearer to the train images.

    The keys are those of your images: OUT is a local file that only you can read (mode 0600). It is written whole or not at all; after an
    interruption, run the command again.

    Whole slides are tiled one after the other as those of the model's task, and the tiles are scored: --slides says so of files whose
    suffix is that of images (.tiff, .dcm). Where images are tiles of slides, OUT.slides.csv has a row for each slide: the mean probability
    of its tiles (probability_CLASS), and the mean of the tenth with the highest (top_CLASS). A slide has no decision, as the head was
    calibrated on tiles. `encoders heatmap` draws a column of OUT over a slide.

    Softmax and sigmoid say nothing about images unlike those of the task: a photograph also gets a probability; see --distance.
    """
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.runtime.local_notes import show_path
    from encoders.zoo.names import split_names
    from transfer.metrics.set_rule import parse_set_rule
    from transfer.trained.prediction_job import PredictRequest, prepare_predictions
    from transfer.trained.prediction_table import check_out, describe_predictions, write_predictions
    from transfer.trained.slide_table import SlideScores, write_slide_table

    if not model:
        raise InputError("--model is required: the name of an encoder that `transfer train` wrote; `encoders list` shows all")
    rule = None if sets is None else parse_set_rule(sets)
    check_out(out, replace)
    console = make_console(stderr=True)
    device = resolve_device(device)
    job = prepare_predictions(PredictRequest(split_names([model]), rule, mc_dropout, distance, device))
    announce_device(device)
    given = job.open_input(images, slides, slide_mpp)
    combined = SlideScores()
    for note in dict.fromkeys([*job.notes, *(note for each in given for note in each.notes)]):
        console.print(note, markup=False, style="dim", soft_wrap=True)
    with (
        advise_on_interrupt(f"{out} was not written; run the same command again"),
        progress_counter("predict", len(given[0])) as progress,
    ):
        summary = write_predictions(combined.collect(job.iterate(given, workers, progress)), job.rule.head, out, job.extras)
        table = write_slide_table(combined, job.rule.head, out)
    for line in describe_predictions(summary, job.rule.head, out, job.extras):
        print(line)
    print(f"written to {show_path(out)}, for you alone: its keys are those of your images")
    if table is not None:
        print(f"{len(combined.tiles):,} slides with tiles: {show_path(table)}")
    if summary.problems:
        raise typer.Exit(1)
