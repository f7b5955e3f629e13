"""Taking an encoder that isograft exported from a folder, the Hugging Face hub or W&B into the zoo."""

import shutil
import tempfile
from pathlib import Path

from encoders.importing.hub_repo import fetch_hub_folder
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file
from encoders.runtime.npz_file import load_npz
from encoders.runtime.wandb_start import decide_mode
from encoders.zoo import canary, zoo
from encoders.zoo.card import Card
from encoders.zoo.head import read_head
from encoders.zoo.hub_name import HUB_PREFIX, parse_hub_name
from encoders.zoo.publish import publish_encoder
from encoders.zoo.wandb_name import WANDB_PREFIX, parse_artifact_name


def pull_encoder(source: str, name: str | None = None, replace: bool = False) -> Path:
    """Publishes the encoder at `hf:OWNER/NAME[@REVISION]`, `wandb:ENTITY/PROJECT/NAME:VERSION` or in a folder; returns its zoo folder.

    replace: as for `publish_folder`.  The weights must have the sha256 of the card, and the network its canary.  Raises InputError if they
    have not, and for a source without a card of isograft."""
    if source.startswith(HUB_PREFIX):
        return adopt_folder(fetch_hub_folder(parse_hub_name(source)), source, name, replace)
    if not source.startswith(WANDB_PREFIX):
        return adopt_folder(Path(source), source, name, replace)
    scratch = Path(tempfile.mkdtemp(prefix="isograft-"))
    try:
        _download_artifact(source, scratch)
        return adopt_folder(scratch, source, name, replace)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def adopt_folder(folder: Path, source: str, name: str | None = None, replace: bool = False) -> Path:
    """Publishes the encoder of a folder that `encoders export` wrote; its manifest too, if it has one."""
    if not (folder / "card.yaml").is_file():
        raise InputError(f"{source} has no card.yaml, so `encoders export` did not write it; `encoders import {source}` reads other forms")
    card, weights = Card.read(folder / "card.yaml"), folder / "model.safetensors"
    if not weights.is_file():
        raise InputError(f"{source} has a card and no model.safetensors; copy it again")
    if card.sha256 is None or sha256_file(weights) != card.sha256:
        raise InputError(f"the weights of {source} have another sha256 than its card: the copy is damaged, or one of the two was changed")
    encoder = zoo.load_encoder(str(folder))
    if card.canary is not None:
        off = canary.canary_distance(card.canary, canary.compute_canary(encoder.model, card))
        if off > canary.CANARY_TOLERANCE:
            raise InputError(f"{source} gives other features than its card states (relative difference {off:.2g}); the card was changed")
    head = None if card.head is None else read_head(folder, card)
    return publish_encoder(name or card.name, encoder.model, card, _read_manifest(folder / "manifest.npz"), replace, head)


def _read_manifest(path: Path) -> dict[str, Array] | None:
    if not path.is_file():
        return None
    return load_npz(path, "copy the manifest again")


def _download_artifact(source: str, folder: Path) -> None:
    """Downloads the files of a W&B artifact, whose own digests the client checks."""
    wanted = parse_artifact_name(source)
    if wanted.version is None:
        raise InputError(f"{source} names no version; write {source}:latest, or :v3")
    if decide_mode()[0] != "online":
        raise InputError(f"W&B is {decide_mode()[1] or decide_mode()[0]}; artifacts are read online only (WANDB_MODE=online and a key)")
    import wandb

    try:
        wandb.Api().artifact(str(wanted), type="model").download(root=str(folder), skip_cache=True)
    except (wandb.errors.Error, OSError, ValueError) as error:
        raise InputError(f"{source} could not be read ({str(error).splitlines()[0]}); check the name and the version") from error
