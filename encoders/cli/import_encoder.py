"""`encoders import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from encoders.runtime.json_types import Json
    from encoders.zoo.card import Card


def import_(
    file: Annotated[
        Path, typer.Argument(help=".safetensors, .pt or .pth file with a state dict; Python objects in it are never unpickled")
    ],
    card: Annotated[Path | None, typer.Option(help="card.yaml of the weights; without it --arch, --mean and --std are required")] = None,
    name: Annotated[
        str | None, typer.Option(help="name in the zoo  [default: the name in the card, or the file name]", show_default=False)
    ] = None,
    arch: Annotated[str | None, typer.Option(help="timm name of the network")] = None,
    mean: Annotated[
        str | None, typer.Option(help="subtracted from images in [0, 1], one number or one per channel: 0.5 or 0.485,0.456,0.406")
    ] = None,
    std: Annotated[str | None, typer.Option(help="images are divided by it after --mean; same form as --mean")] = None,
    size: Annotated[int, typer.Option(help="side of the model's input, pixels")] = 224,
    channels: Annotated[int, typer.Option(help="input channels, 1 or 3")] = 3,
    resize: Annotated[
        Literal["crop", "pad", "squash"],
        typer.Option(help="crop: shorter side to --size, centre crop; pad: longer side, black borders; squash: both sides"),
    ] = "crop",
    interpolation: Annotated[Literal["bilinear", "bicubic"], typer.Option(help="of the resizing")] = "bicubic",
    model_arg: Annotated[
        list[str] | None, typer.Option(help="key=value argument of the network, e.g. pad_type=same; repeat for several")
    ] = None,
    modality: Annotated[str | None, typer.Option(help="cxr, histology, ...: the modality of the images it is for")] = None,
    licence: Annotated[str, typer.Option(help="licence of the weights")] = "unknown",
    prefix: Annotated[
        str | None,
        typer.Option(
            help="prefix of the network's tensor names in the file, e.g. module.encoder_q.  [default: detected]", show_default=False
        ),
    ] = None,
) -> None:
    """Import a weight file into the zoo.

    Every tensor of the network must be in the file. The card states the network and its preprocessing: pass it with --card, or describe
    the network with --arch, --mean and --std.

    \b
        encoders import tf.pth --name imagenet_mobilenetv2_100 --arch mobilenetv2_100 \\
            --model-arg pad_type=same --mean 0.5 --std 0.5
    """
    from encoders.runtime.errors import InputError
    from encoders.zoo.card import Card
    from encoders.zoo.register import register_encoder

    if (card is None) == (arch is None):
        raise InputError(f"{file} needs a description: either --card CARD.yaml, or --arch with --mean and --std")
    if card is not None:
        description = Card.read(card)
    else:
        if mean is None or std is None:
            raise InputError(
                "--arch needs --mean and --std, the normalisation these weights were trained with, on [0, 1], e.g. --mean 0.5 --std 0.5"
            )
        means, stds = _parse_channel_values(mean, channels, "--mean"), _parse_channel_values(std, channels, "--std")
        if not all(0 <= m <= 1 for m in means) or not all(0 < s <= 1 for s in stds):
            raise InputError(f"--mean {mean} --std {std} are not on [0, 1]; divide values for pixels from 0 to 255 by 255")
        preprocess = {"size": size, "resize": resize, "interpolation": interpolation, "channels": channels, "mean": means, "std": stds}
        description = _card_from_options(file, arch or "", preprocess, model_arg or []).replace(modality=modality, licence=licence)
    registered = register_encoder(file, description, name, prefix)
    report, entry = registered.report, registered.folder
    print(f"{entry.name}: {report.matched} tensors matched" + (f", prefix {report.prefix!r} removed" if report.prefix else ""))
    if report.dropped:
        print(f"dropped {len(report.dropped)} tensors that do not belong to the backbone: {', '.join(report.dropped[:6])}")
    for warning in registered.warnings:
        typer.echo(f"warning: {warning}", err=True)
    print(f"written to {entry}; check it with `encoders verify {entry.name}`")


def _card_from_options(file: Path, arch: str, preprocess: "Mapping[str, Json]", model_arg: list[str]) -> "Card":
    """The card of a file, from the options of `encoders import`."""
    from encoders.runtime.config import merge_settings, parse_override, validate_config
    from encoders.zoo import builtin
    from encoders.zoo.card import Card

    args = merge_settings(*map(parse_override, model_arg))
    network = {"name": file.stem, "arch": arch, "model_args": args, "dim": builtin.arch_feature_dim(arch, args)}
    return validate_config(Card, {**network, "preprocess": preprocess, "lineage": {"file": file.name}}, "the options")


def _parse_channel_values(text: str, channels: int, option: str) -> tuple[float, ...]:
    """One number per channel, from `0.5` or `0.485,0.456,0.406`. Raises InputError for anything else."""
    from encoders.runtime.errors import InputError

    try:
        values = tuple(float(part) for part in text.replace("/", ",").split(","))
    except ValueError as error:
        raise InputError(f"{option} is {text!r}, expected numbers separated by commas, e.g. 0.485,0.456,0.406") from error
    return values * channels if len(values) == 1 else values
