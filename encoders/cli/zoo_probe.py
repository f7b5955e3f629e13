"""`encoders probe`."""

from pathlib import Path
from typing import Annotated

import typer

from encoders.cli.zoo import NameArgument


def probe(
    name: NameArgument,
    out: Annotated[Path, typer.Argument(help="folder to write inputs.npy, images.npy and probe.py to")],
) -> None:
    """Write what is needed to compare an imported encoder with its source.

    Copy the folder to where the source's own code loads its weights, edit the marked lines of probe.py, and run it. It writes the
    features that the source gives for the prepared tensors, and its prepared pixels of the images, to answer.npz. Until an answer is
    compared, nothing shows that the encoder is the function that its weights were trained in.

    \b
        encoders probe rad_dino probe/
        cd probe && python probe.py          # in the source's environment
        encoders verify rad_dino --answer probe/answer.npz
    """
    from encoders.runtime.errors import InputError
    from encoders.zoo import zoo
    from encoders.zoo.source_check import write_probe

    card = zoo.find_encoder(name).card
    if card.parts or card.arch == "none":
        raise InputError(f"{name} is not one network; probe each part")
    write_probe(card, out)
    print(f"written to {out}: edit and run probe.py where the source's code is, then `encoders verify {name} --answer answer.npz`")
