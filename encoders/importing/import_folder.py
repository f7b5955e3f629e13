"""Importing a folder of timm, transformers, open_clip or isograft, or a repository of the hub: its description fills the card."""

from pathlib import Path
from typing import NamedTuple

from encoders.importing.hub_config import HubConfig, find_weight_file, is_hub_folder, read_hub_config
from encoders.importing.hub_repo import fetch_hub_folder
from encoders.importing.import_settings import ImportSettings
from encoders.runtime.errors import InputError
from encoders.zoo.card import Card
from encoders.zoo.hub_name import HUB_PREFIX, parse_hub_name


class ImportSource(NamedTuple):
    """A weight file, and what is stated beside it."""

    file: Path
    settings: ImportSettings
    card: Card | None  # of an encoder that isograft exported
    name: str | None  # None: that of the card or the file
    notes: tuple[str, ...]


def find_import_source(source: str) -> ImportSource:
    """The weight file of a path, a folder or `hf:OWNER/NAME[@REVISION]`, and its description.

    Raises InputError for a folder without description or weights, and WeightsUnavailable for a repository that cannot be obtained."""
    if source.startswith(HUB_PREFIX):
        repo = parse_hub_name(source)
        return _read_folder(fetch_hub_folder(repo), repo.repo.rpartition("/")[2])
    if Path(source).is_dir():
        return _read_folder(Path(source), Path(source).resolve().name)
    return ImportSource(Path(source), ImportSettings(), None, None, ())


def hub_settings(config: HubConfig) -> ImportSettings:
    """What a folder states, as settings of an import."""
    p = config.input
    channels = p.channels if p.channels in (1, 3) else None
    if p.channels is not None and channels is None:
        raise InputError(f"{config.folder} describes a network of {p.channels} input channels; 1 and 3 are supported")
    return ImportSettings(
        arch=config.arch,
        model_args=dict(config.model_args),
        position_resampling=config.position_resampling,
        size=p.size or config.native_size,
        channels=channels,
        resize=p.resize,
        interpolation=p.interpolation,
        crop_pct=p.crop_pct,
        mean=p.mean,
        std=p.std,
        value_range=p.value_range,
        licence=config.licence,
        source=config.source,
    )


def _read_folder(folder: Path, name: str) -> ImportSource:
    own = folder / "card.yaml"
    if own.is_file():
        card = Card.read(own)
        return ImportSource(find_weight_file(folder), ImportSettings(), card, card.name, ())
    if not is_hub_folder(folder):
        return ImportSource(find_weight_file(folder), ImportSettings(), None, name, ("the folder has no description of its weights",))
    config = read_hub_config(folder)
    return ImportSource(config.weight_file, hub_settings(config), None, name, config.notes)
