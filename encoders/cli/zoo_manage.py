"""`encoders remove | compare`."""

from typing import TYPE_CHECKING, Annotated

import typer

from encoders.cli.zoo import NameArgument, PrecisionOption, ReadersOption
from encoders.runtime.cli import DeviceOption

if TYPE_CHECKING:
    from encoders.features.compare import EncoderComparison


def remove(
    name: Annotated[str, typer.Argument(help="an entry of the zoo")],
    force: Annotated[bool, typer.Option("--force", help="also if a run, a record or another encoder refers to it")] = False,
) -> None:
    """Remove an encoder from the zoo.

    Refuses while a run started from it, a record holds its scores, or another encoder was trained from it. With --force its card and the
    manifest of its training images are kept in zoo/.removed/, so that reports stay complete and leaks are still found; records keep all
    scores in any case. Its features in the cache are not removed.

    \b
        encoders remove old_moco
        encoders remove old_moco --force
    """
    from encoders.zoo.removal import remove_encoder

    removed = remove_encoder(name, force)
    print(f"removed {removed.folder} ({removed.freed_bytes / 1e6:.1f} MB)")
    if removed.kept:
        counts = {kind: sum(r.kind == kind for r in removed.references) for kind in ("run", "record", "encoder")}
        words = [f"{n} {kind}{'s' if n > 1 else ''}" for kind, n in counts.items() if n]
        words += [f"{len(removed.unread)} unreadable file{'s' if len(removed.unread) > 1 else ''} may refer"] if removed.unread else []
        print(f"its card is kept in {removed.kept}, because of {', '.join(words)}")


def compare(
    first: NameArgument,
    second: NameArgument,
    store: Annotated[str, typer.Option(help="store of the images, or a quoted pattern such as 'tiles/*.h5'")],
    images: Annotated[int, typer.Option(min=0, help="images drawn at random, with a fixed seed; 0: all")] = 2000,
    k: Annotated[int, typer.Option(min=1, help="neighbours of each image that are compared")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of text")] = False,
    batch: Annotated[int, typer.Option(min=1, help="images per forward pass")] = 64,
    workers: ReadersOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "fp32",
) -> None:
    """Compare two encoders: features, parameters, and cards.

    Linear CKA is 1 for features that are equal up to rotation and scale. The plain estimate is biased upwards unless there are many more
    images than features; judge by the debiased one. The neighbour overlap is the mean share of nearest neighbours that an image has in
    both. Parameters are compared if the networks have the same tensors.

    \b
        encoders compare cxr_moco imagenet_resnet50 --store cxr.h5
    """
    import json

    from encoders.features.compare import compare_encoders
    from encoders.loading.worker_count import choose_worker_count
    from encoders.runtime.devices import announce_device, resolve_device
    from encoders.store.store import Store
    from encoders.zoo import zoo

    device = resolve_device(device)
    announce_device(device)
    a, b = (zoo.load_encoder(name, device).with_precision(precision) for name in (first, second))
    opened = Store.open(store)
    result = compare_encoders(a, b, opened, images or None, k, batch, choose_worker_count(workers, a.device, opened))
    if as_json:
        parameters = result.parameters and result.parameters._asdict()
        print(json.dumps({"first": first, "second": second, **result._asdict(), "parameters": parameters}, indent=1))
        return
    print("\n".join(_describe_comparison(result)))


def _describe_comparison(result: "EncoderComparison") -> list[str]:
    lines = [
        f"images              {result.images}",
        f"linear CKA          {result.cka:.4f} (debiased {result.cka_debiased:.4f})",
        f"neighbour overlap   {result.overlap:.4f} of the {result.k} nearest (by chance {result.overlap_chance:.4f})",
    ]
    if result.parameters is None:
        lines.append(f"parameters          not compared: {result.parameters_note}")
    else:
        p = result.parameters
        own = f"relative L2 distance {p.relative_l2:.4g}, cosine {p.cosine:.4f}, {p.equal_tensors} of {p.tensors} tensors equal"
        lines.append(f"parameters          {own}")
        if p.statistics_l2 is not None:
            lines.append(f"running statistics  relative L2 distance {p.statistics_l2:.4g}")
    lines.append(f"cards               {len(result.card_differences) or 'no'} difference{'s' if len(result.card_differences) != 1 else ''}")
    return lines + [f"  {key}: {_show(a)} | {_show(b)}" for key, (a, b) in result.card_differences.items()]


def _show(value: object) -> str:
    return "-" if value is None else str(value)
