"""`encoders push | pull`."""

from typing import Annotated

import typer

from encoders.cli.zoo import NameArgument, ReplaceOption


def push(
    name: NameArgument,
    target: Annotated[str, typer.Argument(help="hf:OWNER/NAME, wandb:ENTITY/PROJECT/NAME, or a folder, in which FOLDER/NAME is written")],
    manifest: Annotated[bool, typer.Option("--manifest", help="also send the hashes of the training images and patients")] = False,
    public: Annotated[bool, typer.Option("--public", help="a new repository of the hub is public  [default: private]")] = False,
) -> None:
    """Send an encoder to a folder, the Hugging Face hub, or Weights & Biases.

    Sends what `encoders export` writes: config.json, weights, model card and card. The weights are compared by sha256 with what has
    arrived. Tokens are those of `hf auth login` and `wandb login`. Licences travel; a warning names each restriction.

    \b
        encoders push cxr_moco /shared/encoders
        encoders push cxr_moco hf:my-group/cxr_moco
        encoders push cxr_moco wandb:my-group/isograft/cxr_moco
    """
    from encoders.zoo.push import push_encoder

    pushed = push_encoder(name, target, manifest, public)
    for warning in pushed.warnings:
        typer.echo(f"warning: {warning}", err=True)
    print(f"sent to {pushed.place}; sha256 {pushed.sha256[:16]}... is the same there")


def pull(
    source: Annotated[str, typer.Argument(help="hf:OWNER/NAME[@REVISION], wandb:ENTITY/PROJECT/NAME:VERSION, or a folder")],
    name: Annotated[str | None, typer.Option(help="name in the zoo  [default: the name on the card]", show_default=False)] = None,
    replace: ReplaceOption = False,
) -> None:
    """Take an encoder that was pushed or exported into the zoo.

    The weights must have the sha256 of the card, and the network must give the features of its canary. Encoders that isograft did not
    export have no card: import them with `encoders import`.

    \b
        encoders pull /shared/encoders/cxr_moco
        encoders pull hf:my-group/cxr_moco
        encoders pull wandb:my-group/isograft/cxr_moco:latest
    """
    from encoders.importing.pull import pull_encoder

    folder = pull_encoder(source, name, replace)
    print(f"written to {folder}; check it with `encoders verify {folder.name}`")
