"""Removing an encoder from the zoo, and what is kept of it while something refers to it.

Records hold the scores and the hash of their encoder, so no table needs the weights. The card tells how the encoder was trained, and the
manifest which images it saw: both are kept in `zoo/.removed/NAME/` when a run, a record or another encoder refers to the name, so that
reports stay complete and leaks of encoders trained from it are still found.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write, process_tag
from encoders.runtime.limited_yaml import parse_yaml
from encoders.runtime.paths import home_dir, records_dir, runs_dir, zoo_dir
from encoders.zoo.card import Card
from encoders.zoo.listing import find_card_folders

KEPT_FILES = ("card.yaml", "manifest.npz")
SHOWN_REFERENCES = 3  # of each kind, in the message


class EncoderReference(NamedTuple):
    """A file that refers to an encoder."""

    kind: str  # run, record, encoder
    name: str


class RemovedEncoder(NamedTuple):
    """What was removed and what was kept."""

    folder: Path
    freed_bytes: int
    kept: Path | None
    references: list[EncoderReference]
    unread: list[Path]  # records, runs and cards that cannot be read, so that they may refer to it


def remove_encoder(name: str, force: bool = False) -> RemovedEncoder:
    """Removes the entry `zoo/name/`. Card and manifest are kept if something refers to it.

    Raises InputError for a name that is no entry of the zoo, and, without `force`, while a run, a record or another encoder refers to it
    or a file that may refer to it cannot be read."""
    folder = _find_entry(name)
    references, unread = find_references(name)
    if (references or unread) and not force:
        raise InputError(f"{name} was not removed: {describe_references(references, unread)}; --force removes it and keeps its card")
    freed = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    kept = _keep_card(folder) if references or unread else None
    freed -= sum(path.stat().st_size for path in kept.iterdir()) if kept else 0
    part = folder.with_name(f".{name}.{process_tag()}.part")
    folder.rename(part)  # whole or not at all: an interrupted removal leaves no entry with half of its files
    shutil.rmtree(part)
    return RemovedEncoder(folder, freed, kept, references, unread)


def find_removed(name: str) -> Path | None:
    """The folder with the card, and the manifest if it had one, of a removed encoder; None if nothing was kept of that name."""
    folder = _removed_dir() / name
    return folder if "/" not in name and (folder / "card.yaml").is_file() else None


def find_references(name: str) -> tuple[list[EncoderReference], list[Path]]:
    """The runs, records and encoders whose settings name the entry, also as a part or a variant; and the files that cannot be read."""
    references: list[EncoderReference] = []
    unread: list[Path] = []
    for kind, title, path in _list_referring_files():
        try:
            texts = _read_encoder_names(kind, path)
        except (OSError, ValueError, yaml.YAMLError):
            unread.append(path)
            continue
        if title != name and any(mentions_encoder(text, name) for text in texts):
            references.append(EncoderReference(kind, title))
    return references, unread


def mentions_encoder(text: str, name: str) -> bool:
    """Whether the name `text` of an encoder, which may be a variant or made of several, means the entry `name` of the zoo."""
    for piece in re.split(r"[+~]", text):
        base = re.sub(r"^(statistics|weights)=", "", piece.strip()).partition(":")[0]
        path = (home_dir() / base).resolve()
        if base == name or (path.parent if path.name == "card.yaml" else path) == (zoo_dir() / name).resolve():
            return True
    return False


def _find_entry(name: str) -> Path:
    entries = [folder.name for folder in find_card_folders(zoo_dir())]
    if name in entries:
        return zoo_dir() / name
    if name.startswith("runs/"):
        raise InputError(
            f"{name} is a run, and only entries of the zoo can be removed; delete {home_dir() / name} if the run is not needed"
        )
    raise unknown_name_error("entry of the zoo", name, entries, "`encoders list` shows all.")


def _list_referring_files() -> Iterator[tuple[str, str, Path]]:
    """(kind, title, file) of everything that may name an encoder."""
    for path in sorted(runs_dir().glob("*/config.yaml")):
        yield "run", f"runs/{path.parent.name}", path
    for path in sorted(records_dir().glob("*/*.json")):
        yield "record", f"{path.parent.name}/{path.name}", path
    for folder in find_card_folders(zoo_dir()):
        yield "encoder", folder.name, folder / "card.yaml"


def _read_encoder_names(kind: str, path: Path) -> list[str]:
    """The names of encoders in a file. Raises ValueError for a file of another form."""
    content = json.loads(path.read_text()) if kind == "record" else parse_yaml(path.read_text())
    if not isinstance(content, dict):
        raise ValueError("not a mapping")
    if kind == "record":
        identity = content.get("identity")
        return [str(identity["encoder"])] if isinstance(identity, dict) and "encoder" in identity else []
    if kind == "run":
        values = [content.get("init")]
    else:
        lineage = content.get("lineage") or {}
        values = [lineage.get(key) for key in ("init", "weights_of", "statistics_of")]
    return [value for value in values if isinstance(value, str)]


def _keep_card(folder: Path) -> Path:
    """Copies card and manifest to the folder of removed encoders; the latest removal of a name counts."""
    Card.read(folder / "card.yaml")
    kept = _removed_dir() / folder.name
    kept.mkdir(parents=True, exist_ok=True)
    for file in KEPT_FILES:
        if (folder / file).is_file():
            with atomic_write(kept / file) as part:
                shutil.copyfile(folder / file, part)
        else:
            (kept / file).unlink(missing_ok=True)
    return kept


def _removed_dir() -> Path:
    return zoo_dir() / ".removed"


def describe_references(references: list[EncoderReference], unread: list[Path]) -> str:
    """What refers to an encoder, in words: counts and the first names."""
    words = []
    for kind in dict.fromkeys(reference.kind for reference in references):
        own = [reference.name for reference in references if reference.kind == kind]
        more = f" and {len(own) - SHOWN_REFERENCES} more" if len(own) > SHOWN_REFERENCES else ""
        words.append(
            f"{len(own)} {kind}{'s' if len(own) > 1 else ''} refer{'' if len(own) > 1 else 's'} to it ({', '.join(own[:3])}{more})"
        )
    if unread:
        words.append(f"{len(unread)} file{'s' if len(unread) > 1 else ''} that may refer to it cannot be read ({unread[0]})")
    return "; ".join(words)
