"""`transfer train`: fine-tunes an encoder on a task and keeps it with its head."""

from typing import Annotated

import typer

from encoders.runtime.cli import DeviceOption, advise_on_interrupt, make_console
from transfer.search.settings import SearchSpace, SearchTrials, expand_search
from transfer.search.space import describe_settings
from transfer.strategies.names import FINETUNE, FULL, strategy_help


def train(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="finetune.SETTING=VALUE", help="settings of fine-tuning, e.g. finetune.epochs=5 finetune.optim.lr=1e-4"),
    ] = None,
    encoder: Annotated[
        str, typer.Option(help="the encoder to start from (required): a name of `encoders list`, runs/X, or one that was trained so")
    ] = "",
    task: Annotated[str, typer.Option(help="the task whose labels train it (required); `transfer tasks list` shows all")] = "",
    name: Annotated[str, typer.Option(help="the name of the trained encoder in the zoo (required)")] = "",
    strategy: Annotated[
        str, typer.Option(help=f"what is trained: {strategy_help()}; STRATEGY+APPROACH for rare classes, e.g. full+focal")
    ] = FULL,
    search: SearchSpace = None,
    trials: SearchTrials = None,
    seed: Annotated[int, typer.Option(help="seed of the head, the order, the augmentation, mixing and drop path")] = 0,
    licence: Annotated[str, typer.Option(help="licence of the trained weights, for the card")] = "unknown",
    replace: Annotated[
        bool, typer.Option("--replace", help="replace the encoder of that name, unless a run or an encoder started from it")
    ] = False,
    allow_leakage: Annotated[bool, typer.Option(help="train despite images or patients that parts of the task share")] = False,
    near: Annotated[bool, typer.Option(help="also search for near-duplicate images across parts")] = True,
    device: DeviceOption = "auto",
) -> None:
    """Fine-tune an encoder on a task and keep the network with its head.

    For example

    \b
        transfer train --encoder cxr_moco --task pneumonia --name cxr_pneumonia
        transfer train --encoder cxr_moco --task pneumonia --name cxr_head --strategy linear
        transfer train --encoder cxr_moco --task pneumonia --name cxr_lora --strategy lora=8 finetune.epochs=20
        transfer train --encoder cxr_moco --task pneumonia --name cxr_mix finetune.mixup.alpha=0.2 finetune.tta.flip=true
        transfer train --encoder cxr_moco --task pneumonia --name cxr_best --search lr,weight_decay,layer_decay --trials 20

    Train patients train it. Validation patients choose the weights, a temperature that calibrates the probabilities, and the threshold of
    each label (sensitivity + specificity highest; several classes: the most probable). No test image is used: measure with
    `transfer bench --encoder NAME`, or, for the same training with intervals, `transfer bench --encoder ENCODER --protocol finetune`.

    What becomes of it:

    \b
        transfer predict --model NAME images/ --out predictions.csv   # of a folder, files or a store
        transfer train --encoder NAME --task other --name next        # another stage; `encoders show next` lists all of them
        pretrain run cxr_continue init=NAME data.store=cxr.h5         # further pretraining
        encoders show NAME                                            # card, head, lineage

    Its manifest says that the labels of the train and validation images of the task were seen. A benchmark refuses a test set that contains
    one of these images or patients.

    --search chooses settings by the same validation patients, by successive halving; the validation score of the best of many trials is
    higher than the network deserves.

    On one CPU, the same command gives the same network. After an interruption, run it again: it goes on from the last validation.
    """
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.zoo.head_card import describe_head
    from encoders.zoo.lineage import describe_lineage
    from transfer.trained.train import TrainRequest, train_encoder

    for option, value, advice in (
        ("--encoder", encoder, "`encoders list` shows all"),
        ("--task", task, "`transfer tasks list` shows all"),
        ("--name", name, "it becomes the name in the zoo"),
    ):
        if not value:
            raise InputError(f"{option} is required: {advice}")
    console = make_console(stderr=True)

    def log(text: str) -> None:
        console.print(text, markup=False, style="dim", soft_wrap=True)

    def log_validation(step: int, **scalars: float) -> None:
        log(f"step {step}: {', '.join(f'{what} {value:.4g}' for what, value in scalars.items())}")

    settings = expand_search(search, trials, [FINETUNE], overrides or [])
    device = resolve_device(device)
    announce_device(device)
    request = TrainRequest(encoder, task, name, strategy, tuple(settings), seed, device, replace, allow_leakage, near, licence)
    with advise_on_interrupt("rerun the same command to resume from the last validation"):
        done = train_encoder(request, log, log_validation)
    head = done.card.head
    assert head is not None, "a trained encoder has a head"
    print(f"{name}: validation score {head.validation_score:.4f} at step {done.selection['step']} of {done.selection['steps']}")
    if found := done.selection.get("search"):
        chosen = f"trial {found['chosen']}: {describe_settings(list(found['settings'].items()))}"
        cost = f"{found['images_seen']:,} images and {found['validations']} validations in all"
        print(f"{name}: best of {found['trials']} by validation, {chosen}; {cost}")
    print(f"{name}: {describe_head(head)}")
    print(f"lineage: {describe_lineage(name)}")
    print(f"written to {done.folder}; next: transfer predict --model {name} IMAGES --out predictions.csv")
