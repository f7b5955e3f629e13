"""`encoders list | show | verify | import | export | embed`."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

if TYPE_CHECKING:
    from encoders.zoo.card import Card

NameArgument = Annotated[str, typer.Argument(help="a zoo name, a card's path, runs/X, runs/X@step, imagenet_<arch> or random_<arch>")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; a GPU where there is one when left out")]


def list_(
    everything: Annotated[bool, typer.Option("--all", help="also the untrained random_<arch> of every usual architecture")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table")] = False,
) -> None:
    """What encoders there are: yours, those of runs, and built-in ones; and whether their weights are here.

    Every network of timm works by name (imagenet_<arch>, random_<arch>, timm_<arch>.<tag>), not only those shown. Built-in ones have
    variants: imagenet_resnet18:size=64, random_vit_tiny_patch16_224:seed=3,channels=1.
    """
    import json

    from encoders.runtime.cli import make_console
    from encoders.zoo import listing

    rows = [row for row in listing.list_encoders() if everything or row.where != "drawn"]
    if as_json:
        print(json.dumps([row._asdict() for row in rows], indent=1))
        return
    from rich.table import Table

    table = Table("encoder", "architecture", "params (M)", "size", "channels", "modality", "weights", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    make_console().print(table)
    if not everything:
        make_console().print(
            "and random_<arch> for every architecture of timm. Weights that are not here: `encoders show NAME` says what to put where."
        )


def show(name: NameArgument) -> None:
    """The card of an encoder: network, preprocessing, lineage; and where its weights are."""
    from encoders.zoo import lineage, zoo

    found = zoo.find_encoder(name)
    manifest = zoo.manifest_path(name)
    print(found.card.text().rstrip())
    print(f"# lineage: {lineage.describe_lineage(name)}")
    print(f"# weights: {zoo.describe_location(found)}")
    print(f"# manifest: {manifest or 'none: what it was trained on cannot be checked against a test split'}")


def verify(
    names: Annotated[list[str] | None, typer.Argument(help="encoders; all of the zoo when left out")] = None,
) -> None:
    """Is an encoder what its card says? Checks the file's sha256, every tensor, and the answer to the built-in images.

    Exit status: 0 all is well, 1 an encoder is not what its card says, 2 wrong input.
    """
    from encoders.runtime.paths import zoo_dir
    from encoders.zoo import listing, register

    wanted = names or [folder.name for folder in listing.find_card_folders(zoo_dir())]
    if not wanted:
        print("the zoo is empty: nothing to verify")
    failed = False
    for name in wanted:
        for check in register.verify_encoder(name):
            print(f"{name}: {check.what} {'ok' if check.good else 'FAILED'}: {check.detail}")
            failed |= not check.good
    raise typer.Exit(1 if failed else 0)


def import_(
    file: Annotated[Path, typer.Argument(help=".safetensors, .pt or .pth with a state dict; nothing in it is unpickled")],
    card: Annotated[Path | None, typer.Option(help="card.yaml that says what the weights are; or give --arch, --mean, --std")] = None,
    name: Annotated[str | None, typer.Option(help="name in the zoo; the card's, or the file's, when left out")] = None,
    arch: Annotated[str | None, typer.Option(help="timm name of the network")] = None,
    mean: Annotated[str | None, typer.Option(help="subtracted from images in [0, 1]: 0.5, or 0.485,0.456,0.406")] = None,
    std: Annotated[str | None, typer.Option(help="divided by, as --mean")] = None,
    size: Annotated[int, typer.Option(help="side of the input, pixels")] = 224,
    channels: Annotated[int, typer.Option(help="input channels, 1 or 3")] = 3,
    resize: Annotated[str, typer.Option(help="crop, pad or squash")] = "crop",
    interpolation: Annotated[str, typer.Option(help="bilinear or bicubic")] = "bicubic",
    model_arg: Annotated[list[str] | None, typer.Option(help="key=value argument of the network, e.g. pad_type=same")] = None,
    modality: Annotated[str | None, typer.Option(help="cxr, histology, ...: whose tasks it is for")] = None,
    licence: Annotated[str, typer.Option(help="of the weights")] = "unknown",
    prefix: Annotated[str | None, typer.Option(help="what stands before the network's names in the file; found when left out")] = None,
) -> None:
    """Register a weight file in the zoo, every tensor of the network matched.

    For example

    \b
        encoders import tf.pth --name imagenet_mobilenetv2_100 --arch mobilenetv2_100 --model-arg pad_type=same --mean 0.5 --std 0.5
    """
    from encoders.runtime.errors import InputError
    from encoders.zoo.card import Card
    from encoders.zoo.register import register_encoder

    if (card is None) == (arch is None):
        raise InputError(f"say what {file} is: either --card CARD.yaml, or --arch with --mean and --std")
    if card is not None:
        told = Card.read(card)
    else:
        if mean is None or std is None:
            raise InputError("say how the images of these weights were normalised: --mean and --std, on [0, 1], e.g. --mean 0.5 --std 0.5")
        pixels = {"size": size, "resize": resize, "interpolation": interpolation, "channels": channels}
        middle, spread = _parse_channel_values(mean, channels, "--mean"), _parse_channel_values(std, channels, "--std")
        pixels |= {"mean": middle, "std": spread}
        if not all(0 <= m <= 1 for m in middle) or not all(0 < s <= 1 for s in spread):
            raise InputError(f"--mean {mean} --std {std} are not on [0, 1]; divide what is meant for pixels from 0 to 255 by 255")
        told = _card_from_options(file, arch or "", pixels, model_arg or []).changed(modality=modality, licence=licence)
    done = register_encoder(file, told, name, prefix)
    report = done.report
    print(f"{done.folder.name}: {report.matched} tensors matched" + (f", {report.prefix!r} cut off their names" if report.prefix else ""))
    if report.dropped:
        print(f"dropped {len(report.dropped)} tensors that are not the backbone's: {', '.join(report.dropped[:6])}")
    for warning in done.warnings:
        typer.echo(f"warning: {warning}", err=True)
    print(f"now in {done.folder}; try `encoders verify {done.folder.name}`")


def _card_from_options(file: Path, arch: str, pixels: dict[str, Any], model_arg: list[str]) -> "Card":
    """The card of a file from the options of `encoders import`."""
    from encoders.runtime.config import merge_settings, parse_override, validate_config
    from encoders.zoo import builtin
    from encoders.zoo.card import Card

    args = merge_settings(*map(parse_override, model_arg))
    whole = {"name": file.stem, "arch": arch, "model_args": args, "dim": builtin.arch_feature_dim(arch, args), "preprocess": pixels}
    return validate_config(Card, {**whole, "lineage": {"file": file.name}}, "the options")


def _parse_channel_values(text: str, channels: int, option: str) -> tuple[float, ...]:
    """One number a channel from `0.5` or `0.485,0.456,0.406`."""
    from encoders.runtime.errors import InputError

    try:
        values = tuple(float(part) for part in text.replace("/", ",").split(","))
    except ValueError as wrong:
        raise InputError(f"{option} is {text!r}, expected numbers with commas between them, e.g. 0.485,0.456,0.406") from wrong
    return values * channels if len(values) == 1 else values


def export(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="the .safetensors file to write; its card goes beside it as .yaml")],
) -> None:
    """Write an encoder as one file that plain timm loads, its card beside it."""
    from encoders.zoo import register

    print(register.export_encoder(name, file))


def embed(
    name: NameArgument,
    store: Annotated[str, typer.Argument(help="store made by `encoders ingest`, or a pattern such as 'tiles/*.h5'")],
    out: Annotated[Path, typer.Argument(help="HDF5 file to write: /features, /key, /patient, row by row; with --by-slide a folder")],
    slides: Annotated[bool, typer.Option("--by-slide", help="a file a slide, as CLAM and TRIDENT: features (N, D), coords (N, 2)")] = False,
    kind: Annotated[str, typer.Option(help="pooled: one vector an image; tokens: one a patch or cell")] = "pooled",
    batch: Annotated[int, typer.Option(min=1, help="images at a time")] = 64,
    workers: Annotated[int, typer.Option(min=0, help="reading processes; 0: in this one")] = 0,
    device: DeviceOption = None,
) -> None:
    """Features of every image of a store, for use elsewhere. What was computed before comes from the cache.

    \b
        encoders embed cxr_moco cxr.h5 features.h5
        encoders embed path_moco 'tiles/*.h5' features/ --by-slide

    --by-slide goes on where it was: slides whose file is there are not embedded again. `coords` are level-0 pixels, x before y.

    Many processes share the work, each on its own GPU; the file is the one that a single process writes:

    \b
        torchrun --nproc-per-node 4 $(which encoders) embed cxr_moco cxr.h5 features.h5
    """
    from encoders.features import embed as embedding
    from encoders.runtime import dist
    from encoders.runtime.cli import advise_on_interrupt, progress_counter
    from encoders.runtime.errors import InputError
    from encoders.store.store import Store
    from encoders.zoo import zoo

    if out.is_dir() and not slides:
        raise InputError(f"{out} is a folder; name the file to write, or pass --by-slide for a file a slide in it")
    if out.is_file() and slides:
        raise InputError(f"{out} is a file; --by-slide writes a file a slide: name a folder")
    images = Store.open(store)
    if out.is_file():
        embedding.check_replaceable(out)
    device = device or embedding.default_device()
    dist.join_process_group(device)
    encoder = zoo.load_encoder(name, device)
    if slides:
        from encoders.features.embed_slides import write_all_slide_features

        if kind != "pooled":
            raise InputError("--by-slide writes one vector a tile: leave --kind out")
        with advise_on_interrupt("the same command goes on with the next slide"), progress_counter(f"embed {name}", len(images)) as tick:
            made, there = write_all_slide_features(encoder, images, out, batch, workers, tick)
        who = f" (process {dist.rank() + 1} of {dist.world_size()})" if dist.world_size() > 1 else ""
        print(f"{out}{who}: features of {made} slides by {encoder.card.name}" + (f", {there} were there already" if there else ""))
        dist.leave_process_group()
        return
    wanted = cast(Literal["pooled", "tokens"], kind)  # another word is refused by the encoder, with the known ones
    with progress_counter(f"embed {name}", len(images)) if dist.is_main() else nullcontext() as tick:
        features = embedding.extract_features(encoder, images, wanted, batch=batch, workers=workers, progress=tick, ranks=True)
    if dist.is_main():
        embedding.write_features(out, features, encoder, images, wanted)
        print(f"{out}: {' x '.join(map(str, features.shape))} features of {encoder.card.name}, row by row with /key and /patient")
    dist.leave_process_group()
