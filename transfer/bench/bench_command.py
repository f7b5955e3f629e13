"""The command `transfer bench`, declared once for itself and for `transfer submit`, which checks the commands it queues."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from encoders.runtime.cli import DeviceOption
from encoders.runtime.command_line import COMMA_LIST
from encoders.runtime.precision_names import FEATURE_PRECISION_HELP, FeaturePrecision
from transfer.bench.option_types import (
    BaselineNames,
    CombineScores,
    EncoderNames,
    ExternalPart,
    Floor,
    Margin,
    ProtocolNames,
    SaltFile,
    ScoreBy,
    TaskNames,
)
from transfer.bench.options import BenchOptions
from transfer.bench.shifts import shift_help
from transfer.search.settings import SearchSpace, SearchTrials
from transfer.strategies.names import StrategyNames
from transfer.tasks.options import Diagnosis


def bench_command(run: Callable[[BenchOptions], None]) -> Callable[..., None]:
    """The function that typer turns into `transfer bench`; it passes its options to `run` as one object."""

    def bench(
        overrides: Annotated[
            list[str] | None,
            typer.Argument(metavar="SETTINGS", help="protocol settings, PROTOCOL.SETTING=VALUE, e.g. linear.steps=9 knn.vote=majority"),
        ] = None,
        encoder: EncoderNames = None,
        task: TaskNames = None,
        protocol: ProtocolNames = "knn,linear",
        strategies: StrategyNames = None,
        search: SearchSpace = None,
        trials: SearchTrials = None,
        baseline: BaselineNames = None,
        floor: Floor = True,
        diagnose: Annotated[
            Diagnosis | None,
            typer.Option(
                help="batchnorm: for each encoder with BatchNorm that was trained from another one, also score it with the statistics and "
                "with the weights of its start; `transfer report` then says what the difference is made of"
            ),
        ] = None,
        margin: Margin = None,
        score_by: ScoreBy = "image",
        combine: CombineScores = None,
        seed: Annotated[int, typer.Option(help="seed of the protocols; the seed of the split is part of the task")] = 0,
        device: DeviceOption = "auto",
        precision: Annotated[FeaturePrecision, typer.Option(help=f"{FEATURE_PRECISION_HELP}; see also finetune.precision")] = "fp32",
        again: Annotated[bool, typer.Option(help="recompute results that a record already holds")] = False,
        allow_leakage: Annotated[bool, typer.Option(help="run despite data leakage; every record and table is marked with it")] = False,
        same_people: Annotated[
            list[str] | None,
            typer.Option(
                help="NAME,NAME, repeatable: data sets whose equal patient ids are the same people, so that the leak check compares them "
                "(e.g. one cohort ingested under two names); default: only data sets of equal names are compared"
            ),
        ] = None,
        near: Annotated[bool, typer.Option(help="also search for near-duplicate images across parts")] = True,
        fractions: Annotated[
            str, typer.Option(help="label fractions, drawn by patient: shares or numbers of train patients, e.g. 1%,20p,1")
        ] = "1",
        draws: Annotated[
            int, typer.Option(help="random draws of the labeled patients per label fraction below 1; one draw gives no verdict")
        ] = 5,
        draw: Annotated[
            int | None, typer.Option(min=0, help="only this draw, from 0, as in the cells of `transfer study`  [default: all]")
        ] = None,
        external: Annotated[str | None, typer.Option(help="external test task: select on the task of --task, test on this one")] = None,
        label_map: Annotated[
            list[str] | None,
            typer.Option(
                "--map",
                help="CLASS:CLASS, class of --task to class of --external, `-` for none, e.g. pneumonia:pneumonia; repeat for all classes",
            ),
        ] = None,
        external_part: Annotated[ExternalPart, typer.Option(help="images of the external task to test on: its test part or all")] = "test",
        folds: Annotated[int, typer.Option(help="folds of cross-validation by patient; 1: the task's own split")] = 1,
        shift: Annotated[
            str | None,
            typer.Option(metavar=COMMA_LIST, help=f"also score shifted test images: {shift_help()}"),
        ] = None,
        strengths: Annotated[str, typer.Option(metavar=COMMA_LIST, help="shift strengths, 1 (slight) to 5 (strong)")] = "1,2,3,4,5",
        batch: Annotated[int, typer.Option(help="batch size when computing features")] = 64,
        workers: Annotated[int | None, typer.Option(help="loader processes for features  [default: 0 on a CPU, else CPUs - 1]")] = None,
        salt_file: SaltFile = None,
        csv: Annotated[Path | None, typer.Option(help="also write the table as CSV to this file")] = None,
        markdown: Annotated[Path | None, typer.Option(help="also write the table as Markdown to this file")] = None,
    ) -> None:
        """Compare encoders with ImageNet and random weights on your tasks.

        For example

        \b
            transfer bench --encoder cxr_moco
            transfer bench --encoder cxr_moco --encoder cxr_mae --task pneumonia --protocol knn,linear,finetune
            transfer bench --encoder cxr_moco --protocol linear --fractions 1%,10%,100% --draws 5
            transfer bench --encoder cxr_moco --device cuda --precision bf16
            transfer bench --encoder cxr_moco --protocol finetune --search lr,weight_decay,epochs --trials 20
            transfer bench --encoder cxr_moco --protocol linear --shift gamma,noise,blur
            transfer bench --encoder cxr_moco --task pneumonia --external kermany --map pneumonia:pneumonia

        Hyper-parameters are selected on validation patients. The test part stays sealed until then, and every use of it is logged in
        records/ledger.jsonl.

        Results are saved as records and reused: the same command prints the table again without computing anything.

        Exit status: 0 all cells succeeded, 1 a cell failed (the table shows the others), 2 wrong usage.
        """
        run(
            BenchOptions(
                overrides=overrides or [],
                encoder=encoder or [],
                task=task,
                protocol=protocol,
                strategies=strategies,
                search=search,
                trials=trials,
                baseline=baseline,
                margin=margin,
                score_by=score_by,
                combine=combine,
                floor=floor,
                diagnose=[] if diagnose is None else [diagnose],
                seed=seed,
                device=device,
                precision=precision,
                again=again,
                allow_leakage=allow_leakage,
                same_people=same_people or [],
                near=near,
                fractions=fractions,
                draws=draws,
                draw=draw,
                external=external,
                label_map=label_map or [],
                external_part=external_part,
                folds=folds,
                shift=shift,
                strengths=strengths,
                batch=batch,
                workers=workers,
                salt_file=salt_file,
                csv=csv,
                markdown=markdown,
            )
        )

    return bench
