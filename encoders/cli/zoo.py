"""`encoders list | show | combine | embed`."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal

import typer

from encoders.runtime.cli import DeviceOption
from encoders.runtime.precision_names import FEATURE_PRECISION_HELP, FeaturePrecision

NameArgument = Annotated[
    str,
    typer.Argument(help="an entry of the zoo, the path of a card, runs/X, runs/X@step, imagenet_<arch>, random_<arch>, pixels, or A+B"),
]
ReadersOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        show_default=False,
        help="processes that read images; 0: this process reads  [default: 0 on a CPU; on a GPU one per CPU of this process but one]",
    ),
]
PrecisionOption = Annotated[FeaturePrecision, typer.Option(help=FEATURE_PRECISION_HELP)]

ReplaceOption = Annotated[
    bool, typer.Option("--replace", help="replace another encoder of that name, at once, unless a run or an encoder started from it")
]


def list_(
    everything: Annotated[bool, typer.Option("--all", help="also list random_<arch> of the common architectures")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
) -> None:
    """List encoders and where their weights are.

    The list holds the entries of the zoo, the exports of runs, and the built-in encoders.
    Built-in names work for every architecture of timm, not only for those listed: imagenet_<arch>, random_<arch>, timm_<arch>.<tag>.
    Options after a colon select a variant, e.g. imagenet_resnet18:size=64 or random_vit_tiny_patch16_224:seed=3,channels=1.
    For every encoder, NAME:stages=2/3/pooled uses the features of these stages of its network, and A+B those of A and B side by side.
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
            "random_<arch> works for every architecture of timm. weights = no: `encoders show NAME` names the file to download."
        )


def show(name: NameArgument) -> None:
    """Show the card, lineage and weight file of an encoder, the run that made it, and its results.

    The card describes the network, its preprocessing and its training.
    """
    from encoders.gallery.related import list_related
    from encoders.runtime.paths import home_dir
    from encoders.zoo import lineage, zoo
    from encoders.zoo.head_card import describe_head
    from encoders.zoo.source_status import describe_source_check

    location = zoo.find_encoder(name)
    manifest = zoo.manifest_path(name)
    print(location.card.to_yaml().rstrip())
    print(f"# lineage: {lineage.describe_lineage(name)}")
    print(f"# weights: {zoo.describe_location(location)}")
    if location.card.head is not None:
        print(f"# head: {describe_head(location.card.head)}")
    if not location.parts:
        print(f"# source: {describe_source_check(location.card)}")
    print(f"# manifest: {manifest or 'none, so its training images cannot be compared with a test split'}")
    run = location.card.lineage.get("run")
    for what, text in list_related(name, None if run is None else str(run), home_dir()):
        print(f"# {what}: {text}")


def combine(
    names: Annotated[list[str], typer.Argument(help="two or more encoders, by any name")],
    name: Annotated[str, typer.Option(help="name of the new entry of the zoo")],
    replace: ReplaceOption = False,
) -> None:
    """Combine encoders into one that gives the features of all, side by side.

    The features of each part are L2-normalised and concatenated. Every part keeps its own preprocessing. The entry holds a copy of each
    part's weights and of the manifest of its training images. Without storing anything, A+B names the same encoder.

    \b
        encoders combine cxr_moco imagenet_resnet18 --name cxr_both
        transfer bench --encoder cxr_both --encoder cxr_moco
    """
    from encoders.zoo.combine import combine_encoders

    folder = combine_encoders(names, name, replace)
    print(f"written to {folder}; check it with `encoders verify {folder.name}`")


def embed(
    name: NameArgument,
    store: Annotated[str, typer.Argument(help="store written by `encoders ingest`, or a quoted pattern such as 'tiles/*.h5'")],
    out: Annotated[Path, typer.Argument(help="HDF5 file to write, with /features, /key and /patient; with --by-slide a folder")],
    slides: Annotated[
        bool, typer.Option("--by-slide", help="write one file per slide, with features (N, D) and coords (N, 2), for the tool of --layout")
    ] = False,
    layout: Annotated[
        Literal["trident", "clam", "stamp"],
        typer.Option(
            help="with --by-slide. trident: SLIDE.h5; clam: h5_files/SLIDE.h5 and pt_files/SLIDE.pt; stamp: SLIDE.h5 with feats and "
            "coordinates in micrometres"
        ),
    ] = "trident",
    kind: Annotated[
        Literal["pooled", "tokens"], typer.Option(help="pooled: one vector per image; tokens: one per patch or cell of the last map")
    ] = "pooled",
    batch: Annotated[int, typer.Option(min=1, help="images per forward pass")] = 64,
    workers: ReadersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
) -> None:
    """Compute the features of every image of a store.

    Writes them to an HDF5 file, as float32. Features in the cache are not computed again. The attribute `precision` of the file says in
    which arithmetic they were computed.

    \b
        encoders embed cxr_moco cxr.h5 features.h5
        encoders embed cxr_moco cxr.h5 features.h5 --device cuda --precision bf16
        encoders embed path_moco 'tiles/*.h5' features/ --by-slide
        encoders embed path_moco 'tiles/*.h5' features/ --by-slide --layout clam

    With --by-slide, rerun the same command to resume: slides with a finished file are skipped. `coords` are level-0 pixels, x before y;
    for STAMP micrometres.

    Several processes share the work, each on its own GPU; the output is identical to that of a single process:

    \b
        torchrun --nproc-per-node 4 $(which encoders) embed cxr_moco cxr.h5 features.h5
    """
    from encoders.features import embed as embedding
    from encoders.loading.worker_count import choose_worker_count
    from encoders.runtime import dist
    from encoders.runtime.cli import advise_on_interrupt, progress_counter
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.runtime.errors import InputError
    from encoders.store.store import Store
    from encoders.zoo import zoo

    if out.is_dir() and not slides:
        raise InputError(f"{out} is a folder; name the file to write, or pass --by-slide to write one file per slide into it")
    if layout != "trident" and not slides:
        raise InputError(f"--layout {layout} is about files of slides; add --by-slide")
    if out.is_file() and slides:
        raise InputError(f"{out} is a file; --by-slide writes one file per slide: name a folder")
    images = Store.open(store)
    if out.is_file():
        embedding.check_replaceable(out)
    device = resolve_device(device)
    dist.join_process_group(device)
    announce_device(device)
    encoder = zoo.load_encoder(name, device).with_precision(precision)
    readers = choose_worker_count(workers, encoder.device, images)
    if slides:
        from encoders.features.embed_slides import write_all_slide_features

        if kind != "pooled":
            raise InputError("--by-slide writes one vector per tile and supports only --kind pooled; leave --kind out")
        with (
            advise_on_interrupt("rerun the same command to resume with the next slide"),
            progress_counter(f"embed {name}", len(images)) as tick,
        ):
            written, skipped = write_all_slide_features(encoder, images, out, batch, readers, tick, layout)
        described = embedding.describe_computation(encoder)
        process = f" (process {dist.rank() + 1} of {dist.world_size()})" if dist.world_size() > 1 else ""
        print(f"{out}{process}: features of {written} slides by {described}" + (f", {skipped} existed already" if skipped else ""))
        dist.leave_process_group()
        return
    with progress_counter(f"embed {name}", len(images)) if dist.is_main() else nullcontext() as tick:
        features = embedding.extract_features(encoder, images, kind, batch=batch, workers=readers, progress=tick, ranks=True)
    if dist.is_main():
        embedding.write_features(out, features, encoder, images, kind)
        shape, described = " x ".join(map(str, features.shape)), embedding.describe_computation(encoder)
        print(f"{out}: {shape} features by {described}, with /key and /patient of each row")
    dist.leave_process_group()
