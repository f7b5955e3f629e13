"""The encoder `features:FOLDER`: tile features that another tool computed, one file per slide, instead of a network.

`encoders.features.match_features` finds the features of the tiles of a store. Protocols on features work; those that need images do not.
"""

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import nn

from encoders.runtime.errors import InputError
from encoders.runtime.files import sha256_file, walk_files
from encoders.runtime.precision_names import FeaturePrecision
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.encoder import Encoder, EncoderInput, FeatureKind
from encoders.zoo.feature_file import FEATURE_SUFFIXES, read_feature_file
from encoders.zoo.names import STORED_FEATURES

FEATURES_PREFIX = f"{STORED_FEATURES}:"  # of the name of the encoder


class StoredFeatures(Encoder):
    """An encoder whose features stand in the files of a folder."""

    def __init__(self, card: Card, folder: Path, device: str | torch.device = "cpu"):
        super().__init__(card, nn.Identity(), device)
        self.folder = folder

    @cached_property
    def files(self) -> list[Path]:
        """The files of features, sorted."""
        return list_feature_files(self.folder)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the names and contents of the files."""
        digest = hashlib.sha256()
        for path in self.files:
            digest.update(f"{path.relative_to(self.folder).as_posix()}\\0{sha256_file(path)}\\n".encode())
        return digest.hexdigest()

    def with_precision(self, precision: FeaturePrecision) -> Self:
        """This encoder: its features are computed already."""
        return self

    def prepare(self, images: object) -> EncoderInput:
        """Raises InputError: there is no network."""
        raise InputError(f"{self.card.name} has features of tiles and no network, so it cannot embed images; use a protocol on features")

    def forward(self, x: EncoderInput, kind: FeatureKind = "pooled") -> torch.Tensor:
        """Raises InputError: there is no network."""
        raise InputError(f"{self.card.name} has features of tiles and no network")


def list_feature_files(folder: Path) -> list[Path]:
    """The files below a folder whose suffix is one of features. Raises InputError if there is none."""
    if not folder.is_dir():
        raise InputError(f"{FEATURES_PREFIX}{folder}: there is no such folder; name the folder with a file of features per slide")
    files = sorted(path for path in walk_files(folder) if path.suffix.lower() in FEATURE_SUFFIXES)
    if not files:
        raise InputError(f"{FEATURES_PREFIX}{folder}: it holds no file of features ({', '.join(FEATURE_SUFFIXES)})")
    return files


def stored_features_card(name: str) -> Card:
    """The card of `features:FOLDER`; its width is that of the first file."""
    first = read_feature_file(list_feature_files(Path(name.removeprefix(FEATURES_PREFIX)))[0])
    return Card(
        name=name,
        arch=first.extractor or "unknown",
        dim=first.x.shape[1],
        preprocess=Preprocess(),
        lineage={"init": None, "extractor": first.extractor or None},
        source=STORED_FEATURES,
    )
