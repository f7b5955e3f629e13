"""Finds the images of a finished store whose names are pseudonyms, by the names that a table or a list has: the hash is computed again.

`ingest dicom` hides the names of files that contain an identifier (`--key`), and the identifiers of patients, studies, series and images. A
pseudonym depends on the name of the data set, which the store has, and on the secret salt, which it does not have.

Shapes: N images of the store.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from encoders.ingest.dicom.header import HIDDEN_KEY_PREFIX, PSEUDONYM_COLUMNS, PSEUDONYM_DIGITS, pseudonym
from encoders.ingest.tables.file_finder import share_end, split_path, stem_of
from encoders.ingest.tables.join_images import JoinWay, Match
from encoders.store.patient_ids import normalise_id

if TYPE_CHECKING:
    from encoders.store.store import Store

DICOM_ENDINGS = ("", ".dcm", ".DCM", ".dicom", ".ima", ".IMA")  # of a file whose name the table has without, or with another suffix


class HiddenNames:
    """The pseudonyms in a store."""

    def __init__(self, store: "Store"):
        salted = [bool((part.attrs.get("recipe") or {}).get("salted")) for part in store.parts]
        plain = [str(part.attrs["dataset"]) for part, secret in zip(store.parts, salted, strict=True) if not secret]
        self.datasets = list(dict.fromkeys(plain))  # whose pseudonyms can be computed again
        self.salted = sum(len(part) for part, secret in zip(store.parts, salted, strict=True) if secret)  # images
        keys = store.column("key").tolist()
        self.hidden = [i for i, key in enumerate(keys) if key.startswith(HIDDEN_KEY_PREFIX)]
        self.by_path = group_pseudonyms({i: keys[i].removeprefix(HIDDEN_KEY_PREFIX) for i in self.hidden})
        self.by_name, self.by_uid = (read_pseudonyms(store, PSEUDONYM_COLUMNS[name]) for name in ("file", "uid"))

    def find(self, name: str) -> list[int]:
        """The images whose hidden path is an end of this one, or the one image with this file name or SOPInstanceUID; [] without any."""
        for text in list_path_ends(name) if self.hidden else ():
            for dataset in self.datasets:
                if found := self.by_path.get(pseudonym(dataset, text)):
                    return found
        for known in (self.by_name, self.by_uid):
            texts = {file_stem(name), split_path(name)[-1]} if known and split_path(name) else ()
            if len(images := {i for text in texts for dataset in self.datasets for i in known.get(pseudonym(dataset, text), [])}) == 1:
                return [*images]
        return []

    def describe(self) -> str:
        """What to do about names that were not found: a sentence, or "" if nothing is hidden that could be meant."""
        again = "ingest again with --labels, which is joined before names are hashed"
        if self.salted:
            return f"{self.salted:,} images have keys or identifiers that are hashed with a secret (--salt-file): {again}"
        if not self.hidden:
            return ""
        return (
            f"the keys of {len(self.hidden):,} images are hashes of the paths of their files (`encoders ingest dicom --key`): write a "
            f"path as it was below the folder of that ingest, such as case7/scan1.dcm, or the SOPInstanceUID, or {again}"
        )


def add_hidden_names(way: JoinWay, names: HiddenNames) -> JoinWay:
    """A way to join on files that also finds hidden names. Images are numbers as text."""

    def match(values: Sequence[str]) -> Match:
        found, reasons, guessed = way.match(values)
        hidden = {value: images for value in values if value not in found and (images := names.find(value))}
        claims: dict[int, list[str]] = {}
        for value, images in hidden.items():
            claims.setdefault(images[0], []).append(value)
        for rivals in claims.values():
            if other := next((v for v in rivals if not share_end(split_path(v), split_path(rivals[0]))), None):
                both = f"{rivals[0]!r} and {other!r} end like one file whose name is hidden: it is unknown which one it is"
                reasons = reasons | dict.fromkeys(rivals, both)
                hidden = {value: images for value, images in hidden.items() if value not in rivals}
        reasons = {value: why for value, why in reasons.items() if value not in hidden}
        return found | {value: [str(i) for i in images] for value, images in hidden.items()}, reasons, guessed

    return replace(way, match=match)


def add_pseudonyms(way: JoinWay, values: Mapping[str, str], datasets: Sequence[str]) -> JoinWay:
    """A way to join on an identifier that also finds its pseudonyms.  values: image -> stored identifier."""
    images: dict[str, list[str]] = {}
    for image, value in values.items():
        if len(value) == PSEUDONYM_DIGITS and not set(value) - set("0123456789abcdef"):
            images.setdefault(value, []).append(image)

    def match(texts: Sequence[str]) -> Match:
        found, reasons, guessed = way.match(texts)
        for text in texts:
            if text not in found and (same := [image for hash in hash_identifier(text, datasets) for image in images.get(hash, [])]):
                found[text] = same
        return found, reasons, guessed

    return replace(way, match=match) if images else way


def hash_identifier(text: str, datasets: Iterable[str]) -> list[str]:
    """The pseudonyms of an identifier in each of the data sets."""
    return list(dict.fromkeys(pseudonym(dataset, form) for dataset in datasets for form in (normalise_id(text), text)))


def list_path_ends(name: str) -> Iterator[str]:
    """The relative paths that a name may stand for: its ends, the longest first, each as it is and with the suffixes of DICOM files."""
    parts = split_path(name)
    for k in range(len(parts)):
        folder, last = parts[k:-1], parts[-1]
        for file in dict.fromkeys((last, *(stem + ending for stem in (last, stem_of(last)) for ending in DICOM_ENDINGS))):
            yield "/".join((*folder, file))


def file_stem(name: str) -> str:
    """The name of a file without folders and suffix, which is hashed for a hidden key."""
    return stem_of((split_path(name) or ("",))[-1])


def read_pseudonyms(store: "Store", column: str) -> dict[str, list[int]]:
    """Pseudonym -> the images that have it in a column; {} if the store has no such column."""
    values = store.column(column).tolist() if store.has_column(column) else []
    return group_pseudonyms({i: value for i, value in enumerate(values) if value})


def group_pseudonyms(hashes: Mapping[int, str]) -> dict[str, list[int]]:
    """Pseudonym -> the images that have it."""
    images: dict[str, list[int]] = defaultdict(list)
    for image, value in hashes.items():
        images[value].append(image)
    return dict(images)
