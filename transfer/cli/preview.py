"""`transfer preview`: a picture of what fine-tuning does to images of a task."""

from pathlib import Path
from typing import Annotated

import typer


def preview(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="finetune.SETTING=VALUE", help="settings of fine-tuning, e.g. finetune.mixup.alpha=0.2 finetune.tta.flip=true"
        ),
    ] = None,
    encoder: Annotated[str, typer.Option(help="the encoder (required): images are prepared for it; its weights are not used")] = "",
    task: Annotated[str, typer.Option(help="the task whose train images are shown (required); `transfer tasks list` shows all")] = "",
    seed: Annotated[int, typer.Option(help="seed of the order, the augmentation and mixing, as that of the training")] = 0,
    out: Annotated[Path, typer.Option(help="PNG file to write")] = Path("preview.png"),
    n: Annotated[int, typer.Option("--n", "-n", min=1, max=64, help="number of images")] = 6,
    draws: Annotated[int, typer.Option(min=1, max=16, help="augmented draws of each image")] = 3,
) -> None:
    """Draw what fine-tuning does to the first train images of a task.

    One row per image. The columns: the stored image with the outlines of its crops; what validation and test see; augmented draws with what
    was drawn; mixup and CutMix, if they are on, with the shares of both labels; and the views of test-time augmentation. For example

    \b
        transfer preview --encoder cxr_moco --task pneumonia
        transfer preview --encoder cxr_moco --task pneumonia finetune.augment.preset=randaugment_cxr --draws 6
        transfer preview --encoder cxr_moco --task pneumonia finetune.mixup.alpha=0.2 finetune.cutmix.alpha=1 finetune.tta.flip=true

    The settings are those of `transfer train` and `transfer bench`. The first draw is that of step 0 of the training with the same seed.
    Only train images are read.

    The picture shows images of patients: it is a local file that only you can read (mode 0600). Do not share it.
    """
    from encoders.runtime.errors import InputError
    from encoders.runtime.local_notes import show_path
    from transfer.display.preview import write_finetune_preview
    from transfer.trained.train import TrainRequest

    for option, value, advice in (("--encoder", encoder, "`encoders list` shows all"), ("--task", task, "`transfer tasks list` shows all")):
        if not value:
            raise InputError(f"{option} is required: {advice}")
    request = TrainRequest(encoder, task, "preview", overrides=tuple(overrides or ()), seed=seed)
    written = write_finetune_preview(request, out, n, draws)
    print(f"written to {show_path(written)}, for you alone: it shows images of patients")
