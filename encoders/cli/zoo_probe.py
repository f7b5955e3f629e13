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


def record_answer(name: str, answer: Path) -> bool:
    """Compares an entry of the zoo with an answer of its source, records it on the card, prints it; whether they are equal."""
    from encoders.runtime.errors import InputError
    from encoders.zoo import zoo
    from encoders.zoo.source_check import compare_answer, describe_source_check, is_equal_to_source, record_source_check

    location = zoo.find_encoder(name)
    if location.origin not in ("zoo", "card") or location.folder is None or location.card != location.weights_card:
        raise InputError(f"{name} has no card of its own to record a comparison on; compare an entry of the zoo")
    check = compare_answer(zoo.load_location(location), answer)
    file = location.folder / "card.yaml" if (location.folder / "card.yaml").is_file() else Path(name)
    card = record_source_check(file, check)
    print(f"{name}: {describe_source_check(card)}")
    return bool(is_equal_to_source(card))
