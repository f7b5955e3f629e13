"""`transfer predict`: probabilities and decisions of images by a trained encoder, as CSV."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.runtime.cli import DeviceOption, advise_on_interrupt, make_console, progress_counter


def predict(
    images: Annotated[
        list[Path],
        typer.Argument(metavar="STORE|FOLDER|FILE...", help="a store (.h5), a folder of stores, a folder of images, or image files"),
    ],
    model: Annotated[str, typer.Option(help="a trained encoder (required): one that `transfer train` wrote")] = "",
    out: Annotated[Path, typer.Option(help="the CSV to write")] = Path("predictions.csv"),
    replace: Annotated[bool, typer.Option("--replace", help="replace OUT if it exists")] = False,
    workers: Annotated[int, typer.Option(min=0, help="processes that read images; 0: this process reads")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Predict with a trained encoder: one row per image with calibrated probabilities, decision and uncertainty.

    For example

    \b
        transfer predict --model cxr_pneumonia new_images/ --out predictions.csv      # PNG, JPEG, TIFF, DICOM
        transfer predict --model cxr_pneumonia scan1.dcm scan2.dcm
        transfer predict --model cxr_pneumonia cxr.h5 --out predictions.csv --replace
        transfer predict --model tumour tiles/ --out tiles.csv                        # stores of tiles: a row per tile

    Files are read, resized and windowed as the images of the model's task were when they were ingested. No label is needed.

    Columns: key (of the store, or the path as given or within FOLDER); probability_CLASS, after temperature scaling; decision_CLASS, 1 from
    the stored threshold on, or for several classes decision, the most probable one; uncertainty, the entropy of the probabilities, from
    0 to 1 (of several labels, the mean); problem. An image that cannot be read has a row with its reason and no prediction, is listed in
    OUT.quarantine.csv, and gives exit status 1.

    The keys are those of your images: OUT is a local file that only you can read (mode 0600). It is written whole or not at all; after an
    interruption, run the command again.

    Of whole slides, tiles are scored (make them with `encoders ingest wsi`); slides are not: their scores are not combined. `encoders
    heatmap` draws a column of OUT over a slide. Softmax and sigmoid say nothing about images unlike those of the task: a photograph also
    gets a probability.
    """
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.runtime.local_notes import show_path
    from transfer.trained.predict import iterate_predictions, load_trained_model, open_prediction_input
    from transfer.trained.prediction_table import check_out, describe_predictions, write_predictions

    if not model:
        raise InputError("--model is required: the name of an encoder that `transfer train` wrote; `encoders list` shows all")
    check_out(out, replace)
    console = make_console(stderr=True)
    device = resolve_device(device)
    trained = load_trained_model(model, device)
    announce_device(device)
    given = open_prediction_input(images, trained)
    for note in given.notes:
        console.print(note, markup=False, style="dim", soft_wrap=True)
    with (
        advise_on_interrupt(f"{out} was not written; run the same command again"),
        progress_counter("predict", len(given)) as progress,
    ):
        summary = write_predictions(iterate_predictions(trained, given, workers, progress), trained.head, out)
    for line in describe_predictions(summary, trained.head, out):
        print(line)
    print(f"written to {show_path(out)}, for you alone: its keys are those of your images")
    if summary.problems:
        raise typer.Exit(1)
