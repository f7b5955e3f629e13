"""`encoders import`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from encoders.cli.zoo import ReplaceOption

if TYPE_CHECKING:
    from encoders.importing.import_file import ImportedEncoder
    from encoders.importing.import_settings import ImportSettings
    from encoders.runtime.json_types import Json


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="file",
            help="weight file (.safetensors, .pth, .pt, .tar, .ckpt, .bin, .pkl, .npz; nothing in it is run), a folder with config.json or "
            "card.yaml, or hf:OWNER/NAME[@REVISION]",
        ),
    ],
    card: Annotated[Path | None, typer.Option(help="card.yaml of the weights; it replaces the options that describe them")] = None,
    name: Annotated[
        str | None, typer.Option(help="name in the zoo  [default: the name in the card, or the file name]", show_default=False)
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="source of the file, see `encoders families`  [default: by its tensors]", show_default=False)
    ] = None,
    network: Annotated[
        str | None,
        typer.Option(
            help="network in the file, e.g. student or 'key encoder'  [default: the one meant for evaluation]", show_default=False
        ),
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(
            help="PREFIX, or PLACE:PREFIX, of the network's tensor names, e.g. module.encoder_q.  [default: found]", show_default=False
        ),
    ] = None,
    arch: Annotated[str | None, typer.Option(help="timm name of the network  [default: by shapes]", show_default=False)] = None,
    model_arg: Annotated[
        list[str] | None, typer.Option(help="key=value argument of the network, e.g. pad_type=same; repeat for several")
    ] = None,
    heads: Annotated[
        int | None, typer.Option(min=1, help="attention heads of a ViT, which tensors do not show", show_default=False)
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="timm name of the activation, e.g. gelu, quick_gelu, silu", show_default=False)
    ] = None,
    layer_norm_eps: Annotated[float | None, typer.Option(help="eps of every LayerNorm, e.g. 1e-12", show_default=False)] = None,
    batch_norm_eps: Annotated[float | None, typer.Option(help="eps of every BatchNorm, e.g. 1e-3", show_default=False)] = None,
    pool: Annotated[
        Literal["cls", "mean", "cls+mean", "map"] | None,
        typer.Option(help="pooled feature of a ViT: class token, mean of the patches, both side by side, or attention pooling"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(help="side of the model's input, pixels  [default: that of the file, or 224]", show_default=False)
    ] = None,
    position_resampling: Annotated[
        Literal["timm", "hf", "dino"] | None,
        typer.Option(help="how position embeddings get another size: antialiased as timm, not as transformers, or with DINO's factor"),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="also resample patch kernels and relative positions of another size")
    ] = False,
    drop: Annotated[
        list[str] | None, typer.Option(help="expression for tensors of the network to leave out, e.g. '^my_head'; repeat for several")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="subtracted from images in [0, 1], one number or one per channel: 0.5 or 0.485,0.456,0.406")
    ] = None,
    std: Annotated[str | None, typer.Option(help="images are divided by it after --mean; same form as --mean")] = None,
    value_range: Annotated[
        str | None, typer.Option(help="values of black and white to which --mean and --std refer, e.g. -1024,1024  [default: 0,1]")
    ] = None,
    channels: Annotated[int | None, typer.Option(help="input channels, 1 or 3  [default: those of the file]", show_default=False)] = None,
    resize: Annotated[
        Literal["crop", "pad", "squash"] | None,
        typer.Option(
            help="crop: shorter side to --size, centre crop; pad: longer side, black borders; squash: both sides  [default: crop]"
        ),
    ] = None,
    crop_pct: Annotated[
        float | None, typer.Option(help="fraction of the resized shorter side that is cropped: 0.875 for 224 of 256  [default: 1]")
    ] = None,
    interpolation: Annotated[
        Literal["bilinear", "bicubic"] | None, typer.Option(help="of the resizing  [default: bicubic]", show_default=False)
    ] = None,
    modality: Annotated[str | None, typer.Option(help="cxr, histology, ...: the modality of the images it is for")] = None,
    licence: Annotated[
        str | None, typer.Option(help="licence of the weights  [default: that of the family, or unknown]", show_default=False)
    ] = None,
    answer: Annotated[
        Path | None,
        typer.Option(help="answer.npz of the source (see `encoders probe`): compared, and recorded on the card", show_default=False),
    ] = None,
    replace: ReplaceOption = False,
) -> None:
    """Import a weight file, a folder or a repository of the hub into the zoo.

    The file is recognised by its tensors (`encoders families`): which network in it is meant for evaluation, its architecture, its pooled
    feature and its pixels. Options replace what is found. Every tensor of the file and of the network is accounted for: one that has no
    place is an error. Nothing in the file is run.

    \b
        encoders import dino_deitsmall16_pretrain_full_checkpoint.pth
        encoders import pytorch_model.bin --family lunit_vit --name lunit_dino
        encoders import FOLDER                      # of timm, transformers, open_clip, or `encoders export`
        encoders import hf:OWNER/NAME@REVISION      # from the hub's cache, otherwise downloaded
        encoders import resnet50.pth --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --crop-pct 0.875
        encoders import tf.pth --name imagenet_mobilenetv2_100 --arch mobilenetv2_100 \\
            --model-arg pad_type=same --mean 0.5 --std 0.5
        encoders import corrected.pth --name theirs --replace
    """
    from encoders.importing.import_file import import_encoder
    from encoders.importing.import_folder import find_import_source
    from encoders.importing.import_settings import ImportSettings
    from encoders.runtime.config import merge_settings, parse_override
    from encoders.runtime.errors import InputError
    from encoders.zoo.card import Card

    args: dict[str, Json] = merge_settings(*map(parse_override, model_arg or []))
    own = {"num_heads": heads, "act_layer": activation, "layer_norm_eps": layer_norm_eps, "batch_norm_eps": batch_norm_eps}
    if both := [key for key, value in own.items() if value is not None and key in args]:
        raise InputError(f"{', '.join(both)} is given by --model-arg and by its own option; leave one out")
    args |= {key: value for key, value in own.items() if value is not None}
    count = channels or 1
    settings = ImportSettings(
        family=family,
        network=network,
        prefix=prefix,
        arch=arch,
        model_args=args,
        feature=pool,
        position_resampling=position_resampling,
        size=size,
        channels=channels,
        resize=resize,
        interpolation=interpolation,
        crop_pct=crop_pct,
        mean=None if mean is None else _parse_channel_values(mean, count, "--mean"),
        std=None if std is None else _parse_channel_values(std, count, "--std"),
        value_range=_parse_range(value_range),
        modality=modality,
        licence=licence,
        resample=resample,
        drop=tuple(drop or ()),
    )
    found = find_import_source(source)
    if card is not None or found.card is not None:
        _refuse_description(settings)
    elif value_range is None and not _is_on_unit_range(settings):
        raise InputError(
            f"--mean {mean} --std {std} are not on [0, 1]; divide values for pixels from 0 to 255 by 255, or state their range with "
            "--value-range BLACK,WHITE"
        )
    for note in found.notes:
        print(f"note: {note}")
    description = found.card if card is None else Card.read(card)
    done = import_encoder(found.file, settings.or_else(found.settings), name or found.name, description, replace)
    _print_import(done)
    if answer is not None:
        _compare(done.folder.name, answer)


def _print_import(done: "ImportedEncoder") -> None:
    from encoders.zoo.source_status import NEVER_COMPARED, needs_source_check

    match, card = done.match, done.card
    p = card.preprocess
    print(f"family: {match.name}, {match.family.title} (licence {match.family.licence}, access {match.family.access})")
    others = [role for role in match.roles if role != match.role]
    print(f"network: {match.role}" + (f"; the file also holds {', '.join(others)}: choose with --network" if others else ""))
    if match.alike:
        print(f"files of {', '.join(match.alike)} have the same tensors: name the source with --family if it is one of them")
    if match.family.note:
        print(f"note: {match.family.note}")
    print(f"architecture: {card.arch}" + (f" with {card.model_args}" if card.model_args else "") + f", {card.dim} features")
    for note in done.notes:
        print(f"  {note}")
    print(f"pixels: {p.model_dump()}")
    for line in done.report.describe():
        print(line)
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    print(f"written to {done.folder}; check it with `encoders verify {done.folder.name}`")
    if needs_source_check(card):
        print(f"{NEVER_COMPARED}: `encoders probe {done.folder.name} FOLDER` writes what is needed")


def _compare(name: str, answer: Path) -> None:
    """Compares with the source and prints the result. Exit status 1 if they differ."""
    from encoders.zoo.register import record_answer
    from encoders.zoo.source_status import describe_source_check, is_equal_to_source

    card = record_answer(name, answer)
    print(f"{name}: {describe_source_check(card)}")
    if not is_equal_to_source(card):
        raise typer.Exit(1)


def _refuse_description(settings: "ImportSettings") -> None:
    """Raises InputError for options that describe what the card describes."""
    from encoders.runtime.errors import InputError

    described = ("arch", "feature", "position_resampling", "size", "channels", "resize", "interpolation", "crop_pct", "mean", "std")
    more = ("value_range", "modality", "licence")
    given = [key for key in (*described, *more) if getattr(settings, key) is not None] + (["model_args"] if settings.model_args else [])
    if given:
        raise InputError(f"--card describes the weights, and so do the options for {', '.join(given)}; leave one out, or edit the card")


def _is_on_unit_range(settings: "ImportSettings") -> bool:
    return all(0 <= m <= 1 for m in settings.mean or ()) and all(0 < s <= 1 for s in settings.std or ())


def _parse_range(text: str | None) -> tuple[float, float] | None:
    from encoders.runtime.errors import InputError

    if text is None:
        return None
    values = _parse_channel_values(text, 1, "--value-range")
    if len(values) != 2 or not values[0] < values[1]:
        raise InputError(f"--value-range is {text!r}, expected the value of black and a larger one of white, e.g. -1024,1024")
    return values[0], values[1]


def _parse_channel_values(text: str, channels: int, option: str) -> tuple[float, ...]:
    """One number per channel, from `0.5` or `0.485,0.456,0.406`. Raises InputError for anything else."""
    from encoders.runtime.errors import InputError

    try:
        values = tuple(float(part) for part in text.replace("/", ",").split(","))
    except ValueError as error:
        raise InputError(f"{option} is {text!r}, expected numbers separated by commas, e.g. 0.485,0.456,0.406") from error
    return values * channels if len(values) == 1 else values
