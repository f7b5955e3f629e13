"""`transfer ood`: whether an encoder's features tell images of another store from those of a task."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from encoders.runtime.cli import DeviceOption, advise_on_interrupt, make_console


def ood(
    encoder: Annotated[list[str] | None, typer.Option("--encoder", help="encoders, A,B or repeated (required)")] = None,
    task: Annotated[str, typer.Option(help="the task whose train images are the usual ones (required)")] = "",
    against: Annotated[list[Path] | None, typer.Option("--against", help="the other store, .h5; repeat for several (required)")] = None,
    part: Annotated[Literal["val", "test"], typer.Option(help="images of the task to tell the others from")] = "val",
    limit: Annotated[
        int | None, typer.Option(min=20, help="at most so many images of each side  [default: all]", show_default=False)
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="images in a forward pass")] = 64,
    workers: Annotated[int | None, typer.Option(min=0, help="processes that read images  [default: chosen]", show_default=False)] = None,
    csv: Annotated[Path | None, typer.Option(help="also write the table as CSV to this file")] = None,
    device: DeviceOption = "auto",
) -> None:
    """Test whether distances of features from a task's train images reveal images of another kind (out-of-distribution detection).

    For example

    \b
        transfer ood --encoder cxr_moco --task pneumonia --against tissue.h5
        transfer ood --encoder cxr_moco,imagenet_resnet50 --task pneumonia --against other_hospital.h5 --limit 2000

    Distances: Mahalanobis to the nearest class mean (Lee et al. 2018), relative Mahalanobis (Ren et al. 2021), and to the 10th nearest
    train image (Sun et al. 2022). The AUROC is that of telling the other store's images from the task's validation images; its interval is
    over patients. The row `pixels` is a histogram and a thumbnail without any network: where it does as well, the stores differ in
    brightness, framing or color, and the encoder has shown nothing. So do stores of other size, codec or unit, which the command lists.

    No label of these images is read and nothing is chosen by them: the test part (--part test) stays sealed, and the ledger has no line.

    The table is written to records/outliers.csv. `transfer predict --distance knn` gives the distance of single images.
    """
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.runtime.paths import records_dir
    from encoders.zoo.names import split_names
    from transfer.bench.outlier_test import OutlierRequest, run_outlier_test
    from transfer.tables.outlier_table import build_outlier_lines, outliers_to_csv, print_outliers
    from transfer.tables.render import write_table

    names = split_names(list(encoder or []))
    for option, value, advice in (
        ("--encoder", names, "`encoders list` shows all"),
        ("--task", task, "`transfer tasks list` shows all"),
        ("--against", against, "it is a store of other images, made with `encoders ingest`"),
    ):
        if not value:
            raise InputError(f"{option} is required: {advice}")
    console = make_console(stderr=True)
    device = resolve_device(device)
    announce_device(device)
    request = OutlierRequest(names, task, list(map(str, against or [])), part, limit, device, batch, workers)
    with advise_on_interrupt("computed features are kept; run the same command again"):
        test = run_outlier_test(request, lambda text: console.print(text, markup=False, style="dim"))
    lines = build_outlier_lines(test)
    print_outliers(make_console(), test, lines)
    for path in filter(None, (csv, records_dir() / "outliers.csv")):
        write_table(path, outliers_to_csv(test, lines))
