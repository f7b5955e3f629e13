"""`transfer explain`: heat maps of what a trained encoder used for its predictions, and how faithful they are."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import DeviceOption, advise_on_interrupt, make_console, progress_counter, split_commas
from transfer.explain.method_names import METHOD_NAMES
from transfer.tasks.options import Part

if TYPE_CHECKING:
    from transfer.explain.evaluate import Evaluation


def explain(
    images: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="STORE|FOLDER|FILE...",
            help="a store (.h5), a folder of stores, a folder of images, or image files; with --mil, settings such as mil.epochs=20",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="a trained encoder (required): one that `transfer train` wrote")] = "",
    method: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(METHOD_NAMES)}; several with commas; all: those that fit the network  [default: gradcam for a CNN, "
            "gradient_rollout for a ViT, otherwise occlusion]"
        ),
    ] = "",
    keys: Annotated[str, typer.Option("--images", metavar="KEYS", help="keys of the images to explain, separated by commas")] = "",
    count: Annotated[int, typer.Option(min=0, help="how many images, drawn by their keys, if none is named; 0: all")] = 12,
    part: Annotated[Part | None, typer.Option(help="only images of this part of the model's task, whose store is given")] = None,
    label: Annotated[str | None, typer.Option(help="the label to explain  [default: of each image the most probable one]")] = None,
    out: Annotated[Path, typer.Option(help="the folder to write")] = Path("explanations"),
    replace: Annotated[bool, typer.Option("--replace", help="replace the explanations in OUT")] = False,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="also measure how faithful the maps are; with masks in the store, whether they point at them")
    ] = False,
    occlusion_patch: Annotated[int | None, typer.Option(min=1, help="occlusion: side of the square, pixels  [default: an eighth]")] = None,
    occlusion_stride: Annotated[
        int | None, typer.Option(min=1, help="occlusion: distance of squares, pixels  [default: half of it]")
    ] = None,
    occlusion_fill: Annotated[
        float | None, typer.Option(min=0, max=1, help="occlusion: gray value that covers, from 0 to 1  [default: the mean of the card]")
    ] = None,
    mil: Annotated[
        bool, typer.Option("--mil", help="instead: the attention of the protocol mil over the tiles of slides, of --task with --encoder")
    ] = False,
    task: Annotated[str, typer.Option(help="with --mil: the task of slides; `transfer tasks list` shows all")] = "",
    encoder: Annotated[str, typer.Option(help="with --mil: the encoder whose features are used")] = "",
    slide: Annotated[list[str] | None, typer.Option(help="with --mil: only this slide; repeat for several")] = None,
    seed: Annotated[int, typer.Option(help="with --mil: seed of the attention, as in the benchmark")] = 0,
    workers: Annotated[int, typer.Option(min=0, help="processes that read a store; 0: this process reads")] = 0,
    device: DeviceOption = "auto",
) -> None:
    """Draw what a trained encoder used for its predictions, as heat maps, and measure how faithful they are.

    For example

    \b
        transfer explain --model cxr_pneumonia cxr.h5 --part test --out explained
        transfer explain --model cxr_pneumonia new_images/ --count 5 --method gradcam,occlusion
        transfer explain --model cxr_pneumonia scan.dcm --label pneumonia
        transfer explain --model cxr_pneumonia cxr.h5 --part test --count 0 --method all --evaluate
        transfer explain --mil --task tumour --encoder uni --part test --out attention

    CNNs: gradcam, gradcam++, hirescam, on the last map of features. ViTs: rollout of the attention, which does not depend on the label, and
    gradient_rollout, which does. occlusion works with every network and takes a forward pass for each square.

    --evaluate prints, against random maps of the same images with 95 % intervals over patients: deletion and insertion; with masks
    (`encoders ingest phantom --masks`) the pointing game, also against the centre of the image, and the energy in the mask; and whether the
    maps change when the weights are randomised. A method whose maps do not change is flagged.

    OUT holds a picture per image and method, explanations.csv with keys and probabilities, maps.h5 with the raw maps, and index.html. These
    are pictures of patients: only you can read the folder (mode 0700), and every picture is marked. An image that cannot be read is listed
    with its reason and gives exit status 1.

    --mil fits the protocol mil as a benchmark does, from the train and validation slides, and writes for each slide of --part (default:
    test) the attention of its tiles, which sums to 1; with an overview in the store (`encoders ingest wsi`), drawn over the slide.

    A map is about the network: it does not say where a disease is.
    """
    if mil:
        _explain_slides([str(path) for path in images or []], task, encoder, part or "test", slide or [], seed, out, replace, device)
        return
    import time

    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.runtime.local_notes import show_path
    from transfer.explain.evaluate import evaluate_methods
    from transfer.explain.explained import explain_images, find_label
    from transfer.explain.occlusion import OcclusionSettings
    from transfer.explain.registry import choose_methods
    from transfer.explain.select_images import select_images
    from transfer.explain.write_folder import check_folder, choose_mark, write_explanations
    from transfer.trained.predict import load_trained_model, open_prediction_input

    if not model:
        raise InputError("--model is required: the name of an encoder that `transfer train` wrote; `encoders list` shows all")
    if not images:
        raise InputError("name the images to explain: a store, a folder, or files")
    check_folder(out, replace)
    console = make_console(stderr=True)
    device = resolve_device(device)
    trained = load_trained_model(model, device)
    announce_device(device)
    find_label(trained.head, label)
    settings = OcclusionSettings(patch=occlusion_patch, stride=occlusion_stride)
    methods = choose_methods(split_commas(method), trained.network, trained.encoder.card.preprocess, settings, occlusion_fill)
    given = open_prediction_input(images, trained)
    for note in given.notes:
        console.print(note, markup=False, style="dim", soft_wrap=True)
    chosen = select_images(given, trained, split_commas(keys), count, part)
    names = ", ".join(one.name for one in methods)
    with advise_on_interrupt(f"{out} was not written; run the same command again"):
        measured = None
        if evaluate:
            with progress_counter(f"evaluate {names}", len(chosen)) as progress:
                measured = evaluate_methods(trained, chosen, methods, label, workers, progress)
        with progress_counter(f"explain by {names}", len(chosen)) as progress:
            batches = explain_images(trained, chosen, methods, label, workers, progress)
            made_at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
            done = write_explanations(batches, trained, methods, choose_mark(chosen), out, measured, made_at)
    if measured is not None:
        _print_evaluation(measured)
    print(f"{done.images:,} images explained by {names}, {len(done.problems):,} could not be read")
    if done.trained_on:
        print(f"{done.trained_on:,} of them trained or calibrated the model")
    print(f"written to {show_path(out)}, for you alone: open {show_path(out / 'index.html')}; these are pictures of your images")
    if done.problems:
        raise typer.Exit(1)


def _explain_slides(
    overrides: list[str], task: str, encoder: str, part: Part, slides: list[str], seed: int, out: Path, replace: bool, device: str
) -> None:
    """`transfer explain --mil`."""
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.runtime.local_notes import show_path
    from encoders.zoo import zoo
    from transfer.bench.bench import load_protocols
    from transfer.bench.lazy_features import LazyFeatures
    from transfer.explain.slide_attention import SLIDES_NAME, attend_slides, fit_attention_of, write_attention
    from transfer.explain.write_folder import check_folder
    from transfer.protocols import mil
    from transfer.tasks.load import load_task
    from transfer.tasks.task import read_task

    for option, value in (("--task", task), ("--encoder", encoder)):
        if not value:
            raise InputError(f"{option} is required with --mil")
    check_folder(out, replace, SLIDES_NAME, "attention of slides")
    device = resolve_device(device)
    ((_, cfg),) = load_protocols(["mil"], seed, overrides, device).values()
    assert isinstance(cfg, mil.Config)
    loaded, network = load_task(read_task(task)), zoo.load_encoder(encoder, device)
    announce_device(device)
    features = LazyFeatures(network, loaded, 64, None)
    fitted = fit_attention_of(cfg, loaded, features)
    found = attend_slides(fitted, loaded, features, part, slides)
    with progress_counter("slides", len(found)) as progress:
        done = write_attention(found, loaded, out, progress)
    print(f"{len(done.slides):,} slides of the part {part}: the attention of their tiles is in {show_path(out)}, for you alone")
    if done.undrawn:
        print(f"{len(done.undrawn):,} of them are not drawn: their store has no overview of the slide")


def _print_evaluation(measured: "Evaluation") -> None:
    """Prints the tables of the evaluation."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from transfer.explain.evaluation_table import (
        FAITHFULNESS_HEADER,
        SANITY_HEADER,
        brief_sanity,
        describe_evaluation,
        faithfulness_cells,
        sanity_cells,
    )

    console = make_console()
    for header, rows in (
        (FAITHFULNESS_HEADER, [faithfulness_cells(row) for row in measured.rows]),
        (SANITY_HEADER, [sanity_cells(row) for row in brief_sanity(measured)]),
    ):
        table = Table(*header, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for line in describe_evaluation(measured):
        print(line)
