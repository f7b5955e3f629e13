"""The types of options that `transfer bench` shares with commands beside it, with their help."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from encoders.runtime.command_line import COMMA_LIST
from transfer.protocols import protocol_help
from transfer.tasks.options import Combination, ScoreUnit

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
