"""`encoders export`."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.zoo import NameArgument


def export(
    name: NameArgument,
    out: Annotated[
        Path, typer.Argument(help="folder to write, a .safetensors file for weights and card alone, or an .onnx file for the network")
    ],
    manifest: Annotated[
        bool, typer.Option("--manifest", help="also write the hashes of the training images and patients, for leak checks elsewhere")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(help="table of `transfer table` for the model card  [default: records/table.csv]", show_default=False)
    ] = None,
    onnx: Annotated[bool, typer.Option("--onnx", help="also write the network as model.onnx, with its own card")] = False,
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

    With a name that ends in .onnx, or with --onnx a file model.onnx in the folder: the network, from prepared tensors to pooled features,
    for any batch size, with a card of its own (.onnx.yaml). ONNX Runtime must give the same features.
    """
    from encoders.runtime.errors import InputError

    if out.suffix == ".onnx":
        if manifest or results:
            raise InputError(f"--manifest and --results belong to the export of a folder, and {out} is a file; name a folder")
        _export_onnx(name, out)
        return
    if out.suffix == ".safetensors":
        from encoders.zoo import register

        if manifest or results or onnx:
            raise InputError(f"--manifest, --results and --onnx belong to the export of a folder, and {out} is a file; name a folder")
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
    if onnx:
        _export_onnx(name, out / "model.onnx")


def _export_onnx(name: str, file: Path) -> None:
    from encoders.zoo.onnx_export import export_onnx

    card, warned = export_onnx(name, file)
    for warning in warned:
        typer.echo(f"warning: {warning}", err=True)
    print(f"{file}: opset {card.opset}, any batch size, max relative difference from PyTorch {card.max_difference:.2g}")
