"""Licences of weights: the identifiers of the Hugging Face hub, and which forbid commercial use or derivatives."""

import re
from collections.abc import Sequence
from typing import NamedTuple

# Identifiers that the metadata of a model card accepts, of licences that weights and their data have.
# Source: huggingface.co/docs/hub/repositories-licenses.
HUB_LICENCES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0", "afl-3.0",
    "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0",
    "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "mpl-2.0", "ms-pl", "ncsa", "odbl", "ofl-1.1",
    "osl-3.0", "postgresql", "pddl", "unlicense", "zlib",
)  # fmt: skip
UNKNOWN_LICENCES = ("", "unknown", "n/a", "none", "-")


class LicenceHolder(NamedTuple):
    """Whose licence: an encoder that the weights come from."""

    name: str
    licence: str


def hub_licence(licence: str) -> str | None:
    """The hub's identifier of a licence, e.g. `cc-by-nc-4.0` for "CC-BY-NC 4.0 (repo)"; None for one that the hub does not list."""
    text = re.sub(r"\(.*?\)", "", licence).strip().lower()
    text = re.sub(r"\b(licen[cs]e|version|international|the)\b", " ", text)
    text = re.sub(r"[\s_,]+", "-", text.strip()).strip("-")
    text = re.sub(r"-v(\d)", r"-\1", text).replace("creative-commons", "cc")
    known = {name.removesuffix("-license"): name for name in HUB_LICENCES}
    for candidate in (text, f"{text}.0", text.replace("bsd-3", "bsd-3-clause")):
        if candidate in known:
            return known[candidate]
    return None


def is_unknown_licence(licence: str) -> bool:
    """Whether nothing is known about the licence."""
    return licence.strip().lower() in UNKNOWN_LICENCES


def forbids_commercial_use(licence: str) -> bool:
    """Whether the licence says that commercial use is not permitted: CC BY-NC and its kinds, "non-commercial", "research only"."""
    text = licence.lower()
    words = re.split(r"[^a-z0-9]+", text)
    return "nc" in words or "research" in words or bool(re.search(r"non-?\s?commercial|academic", text))


def forbids_derivatives(licence: str) -> bool:
    """Whether the licence is a Creative Commons licence without derivatives."""
    words = re.split(r"[^a-z0-9]+", licence.lower())
    return "nd" in words and "cc" in words


def governing_licence(own: str, ancestors: Sequence[LicenceHolder]) -> str:
    """The licence to state for weights: their own, unless an encoder that they come from restricts more.

    The first ancestor without commercial use governs weights whose own licence permits it, or is unknown; the first known licence of an
    ancestor governs weights whose own licence is unknown."""
    if forbids_commercial_use(own):
        return own
    restricting = next((a.licence for a in ancestors if forbids_commercial_use(a.licence)), None)
    if restricting is not None:
        return restricting
    return next((a.licence for a in ancestors if not is_unknown_licence(a.licence)), own) if is_unknown_licence(own) else own


def licence_warnings(own: str, ancestors: Sequence[LicenceHolder]) -> list[str]:
    """What whoever passes the weights on must know: one sentence for each restriction, with whose it is."""
    lines = []
    for holder in (LicenceHolder("these weights", own), *ancestors):
        whose = f"{holder.licence}, the licence of {holder.name}"
        if forbids_commercial_use(holder.licence):
            lines.append(f"non-commercial: {whose}, does not permit commercial use")
        if forbids_derivatives(holder.licence):
            lines.append(f"no derivatives: {whose}, does not permit passing on changed weights")
    if is_unknown_licence(own):
        lines.append("the licence of these weights is unknown; state it on the card before you publish them")
    lines += [f"the licence of {a.name}, from which they come, is unknown" for a in ancestors if is_unknown_licence(a.licence)]
    return lines
