"""The options of `transfer bench`, declared once for the command itself and for `transfer submit`, which checks the commands it queues."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from encoders.runtime.cli import DeviceOption, split_commas
from encoders.runtime.command_line import COMMA_LIST
from encoders.runtime.errors import InputError
from encoders.runtime.precision_names import FEATURE_PRECISION_HELP, FeaturePrecision
from encoders.runtime.sweep_folder import expand_sweeps
from encoders.zoo.names import split_names
from transfer.bench.shifts import expand_shifts, shift_help
from transfer.protocols import protocol_help
from transfer.strategies.names import StrategyNames, expand_strategies
from transfer.tasks.options import Combination, Diagnosis, ScoreUnit

if TYPE_CHECKING:
    from transfer.bench.external import ExternalRequest
    from transfer.bench.plan import BenchRequest

ExternalPart = Literal["test", "all"]

EncoderNames = Annotated[
    list[str] | None,
    typer.Option(
        help="encoders, A,B or repeated: zoo name, card path, runs/X, runs/X@STEP or imagenet_<arch>; A+B joins the features of two; the "
        "name of a sweep stands for its runs"
    ),
]
TaskNames = Annotated[str | None, typer.Option(metavar=COMMA_LIST, help="tasks; default: all registered tasks of the encoders' modality")]
ProtocolNames = Annotated[str, typer.Option(metavar=COMMA_LIST, help=f"protocols: {protocol_help()}")]
BaselineNames = Annotated[
    list[str] | None,
    typer.Option(
        help="encoders to compare with, A,B or repeated, or `none`; default: ImageNet and random weights of the same network, every "
        "ImageNet encoder that --encoder names, and `pixels` (a histogram and thumbnail of the image, no network)"
    ),
]

Floor = Annotated[bool, typer.Option(help="include `pixels` among the default baselines: what images show without a network")]

ScoreBy = Annotated[
    ScoreUnit,
    typer.Option(help="what is scored: each image, or the images of a study or patient together, before any metric (CheXpert: study, max)"),
]
CombineScores = Annotated[
    Combination | None, typer.Option(help="with --score-by study or patient: how the scores of its images become one  [default: mean]")
]
Margin = Annotated[
    float | None,
    typer.Option(
        min=0.0001,
        max=0.5,
        help="a difference of AUROC that does not matter, e.g. 0.01; adds the verdicts `equivalent` (two one-sided tests) and "
        "`not inferior`",
    ),
]


SaltFile = Annotated[
    Path | None,
    typer.Option(
        help="file with a secret, without which the pseudonyms of images and patients in records cannot be computed; keep it, and pass it "
        "again with these records"
    ),
]


@dataclass(frozen=True)
class BenchOptions:
    """What the user typed after `transfer bench`, each option as one field."""

    overrides: Sequence[str]
    encoder: Sequence[str]
    task: str | None
    protocol: str
    strategies: str | None
    baseline: Sequence[str] | None
    seed: int
    device: str
    precision: FeaturePrecision
    again: bool
    allow_leakage: bool
    same_people: Sequence[str]
    near: bool
    fractions: str
    draws: int
    external: str | None
    label_map: Sequence[str]
    external_part: ExternalPart
    folds: int
    shift: str | None
    strengths: str
    batch: int
    workers: int | None
    csv: Path | None
    markdown: Path | None
    margin: float | None = None
    score_by: ScoreUnit = "image"
    combine: Combination | None = None
    floor: bool = True
    diagnose: Sequence[Diagnosis] = ()
    salt_file: Path | None = None

    def to_request(self) -> "BenchRequest":
        """The request that `run_bench` takes. Raises InputError for a value that cannot be read."""
        from encoders.runtime.devices import resolve_device
        from transfer.bench.baselines import parse_baselines
        from transfer.bench.plan import BenchRequest
        from transfer.records.record_ids import use_salt_file
        from transfer.tasks.people import parse_same_people

        use_salt_file(self.salt_file)
        fractions, patients = parse_fractions(self.fractions)
        protocols, overrides = expand_strategies(split_commas(self.protocol), split_commas(self.strategies), self.overrides)
        return BenchRequest(
            encoders=expand_sweeps(split_names(self.encoder)),
            tasks=split_commas(self.task),
            protocols=protocols,
            baselines=parse_baselines(self.baseline),
            seed=self.seed,
            device=resolve_device(self.device),
            precision=self.precision,
            recompute=self.again,
            allow_leakage=self.allow_leakage,
            same_people=parse_same_people(self.same_people),
            near_duplicates=self.near,
            fractions=fractions,
            patients=patients,
            draws=self.draws,
            folds=self.folds,
            batch=self.batch,
            workers=self.workers,
            overrides=overrides,
            shifts=expand_shifts(split_commas(self.shift), parse_integers("--strengths", self.strengths)),
            external=self.external_request(),
            floor=self.floor,
            diagnose=self.diagnose,
        )

    def external_request(self) -> "ExternalRequest | None":
        """The external task; None without one."""
        from transfer.bench.external import ExternalRequest

        if self.external is None:
            if self.label_map or self.external_part != "test":
                raise InputError("--map and --external-part need an external task; name it with --external")
            return None
        return ExternalRequest(self.external, self.label_map, self.external_part)


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


def parse_fractions(text: str) -> tuple[list[float], list[int]]:
    """`10%,0.5,20p` as shares and numbers of patients."""
    parts = split_commas(text)
    try:
        patients = [int(part[:-1]) for part in parts if part.endswith("p")]
        shares = [float(part.rstrip("%")) / (100 if part.endswith("%") else 1) for part in parts if not part.endswith("p")]
    except ValueError as error:
        raise InputError(
            f"--fractions is {text!r}; expected shares above 0 and at most 1, or numbers of patients, e.g. 0.01,10%,20p,1"
        ) from error
    return shares, patients


def parse_integers(option: str, text: str) -> list[int]:
    """`1,3,5` as integers. Raises InputError naming the option."""
    try:
        return [int(part) for part in split_commas(text)]
    except ValueError as error:
        raise InputError(f"{option} is {text!r}; expected integers, comma-separated, e.g. 1,3,5") from error
