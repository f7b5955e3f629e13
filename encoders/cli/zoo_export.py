"""`encoders export`."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.zoo import NameArgument


def export(
    name: NameArgument,
    out: Annotated[Path, typer.Argument(help="folder to write, or a .safetensors file for the weights and the card alone")],
    manifest: Annotated[
        bool, typer.Option("--manifest", help="also write the hashes of the training images and patients, for leak checks elsewhere")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="table of `transfer table` for the model card  [default: records/table.csv]", show_default=False)
    ] = None,
) -> None:
    """Export an encoder as a folder that timm, transformers and the Hugging Face hub read.

    Writes config.json, model.safetensors, README.md (a model card with licence, data, recipe and results) and card.yaml. The folder is
    loaded again with timm, and the features must be equal. The manifest of the training images, which holds hashes of patients, is
    written only with --manifest.

    \b
        encoders export cxr_moco cxr_moco/
        python -c 'import timm; timm.create_model("local-dir:cxr_moco", pretrained=True)'

    With a name that ends in .safetensors: the weights and the card next to them as .yaml, and the call of timm that loads them. An encoder
    made of parts can be exported only so, as one weight file per part and one card.
    """
    from encoders.runtime.errors import InputError

    if out.suffix == ".safetensors":
        from encoders.zoo import register

        if manifest or results:
            raise InputError(f"--manifest and --results belong to the export of a folder, and {out} is a file; name a folder")
        print(register.export_encoder(name, out))
        return
    from encoders.zoo.export_folder import export_folder

    exported = export_folder(name, out, manifest, results)
    for warning in exported.warnings:
        typer.echo(f"warning: {warning}", err=True)
    report = exported.evaluation
    left_out = ", ".join(f"{n} left out ({reason})" for reason, n in report.left_out.items())
    print(f"written to {out}: {len(report.results)} results on the model card" + (f", {left_out}" if left_out else ""))
    print(f'timm.create_model("local-dir:{out}", pretrained=True)')
