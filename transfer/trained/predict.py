"""Predicting with the head of a trained encoder: probabilities of images, a batch at a time, with draws of dropout and distances if wanted.

Shapes: B images of a batch, C labels or classes, T draws of dropout or members of an ensemble.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from encoders.features.input_batches import iterate_inputs, move_input
from encoders.runtime.arithmetic import without_tf32
from encoders.runtime.arrays import FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.npz_file import load_npz
from encoders.runtime.worker_process import worker_context
from encoders.store.store import Store
from encoders.store.verified import require_intact
from encoders.zoo import zoo
from encoders.zoo.encoder import Encoder, EncoderInput
from encoders.zoo.head import read_head_of
from encoders.zoo.head_card import Head
from encoders.zoo.location import find_manifest
from transfer.bench.preprocess_check import list_preprocess_mismatches
from transfer.metrics.outliers import OutlierScore, TrainFeatures, score_outliers
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.tta import average_views
from transfer.trained.calibrate import calibrated_probabilities
from transfer.trained.dropout_samples import build_dropout_network, sample_logits
from transfer.trained.head_network import build_head_network
from transfer.trained.image_files import STORES, FileBatch, FileBatches, FileReader, FoundImages, choose_form, find_image_files
from transfer.trained.reference import head_features
from transfer.trained.reference_file import DISTANCES, read_reference
from transfer.trained.slide_input import FoundSlides, find_slides, names_slides, tile_slides

BATCH = 64


@dataclass(frozen=True)
class DropoutRequest:
    """network: with the dropout of its training.  count: draws of each image."""

    network: FinetuneNetwork
    count: int


@dataclass(frozen=True)
class DistanceRequest:
    """kind: of the distance.  train: what it is measured to.  validation: (V,) those of validation images.  patient: (V,) theirs."""

    kind: OutlierScore
    train: TrainFeatures
    validation: FloatArray
    patient: IntArray


@dataclass(frozen=True)
class TrainedModel:
    """A trained encoder with its head. trained_on: hashes of the images that trained or calibrated it, as far as they are known."""

    name: str
    encoder: Encoder
    head: Head
    network: FinetuneNetwork
    trained_on: frozenset[bytes]
    folder: Path | None = None  # of the card
    dropout: DropoutRequest | None = None
    distance: DistanceRequest | None = None

    def probabilities(self, x: EncoderInput) -> FloatArray:
        """(B, C) calibrated probabilities of prepared input."""
        with torch.inference_mode(), without_tf32():
            logits = average_views(self.network.eval(), self.head.tta)(x).double().cpu().numpy()
        return calibrated_probabilities(logits, self.head.temperature, self.head.kind)

    def sampled_probabilities(self, x: EncoderInput, sha256: Sequence[str]) -> FloatArray | None:
        """(T, B, C) calibrated probabilities of the draws of dropout; None if none are wanted.  sha256: of the pixels of each image."""
        if self.dropout is None:
            return None
        with torch.inference_mode(), without_tf32():
            logits = sample_logits(self.dropout.network, x, sha256, self.dropout.count, self.head.tta).cpu().numpy()
        return np.stack([calibrated_probabilities(drawn, self.head.temperature, self.head.kind) for drawn in logits])

    def distances(self, x: EncoderInput) -> FloatArray | None:
        """(B,) how far the images are from the train images; None if that is not wanted."""
        if self.distance is None:
            return None
        with torch.inference_mode(), without_tf32():
            features = head_features(self.network.eval(), x).double().cpu().numpy()
        return score_outliers(features, self.distance.train, self.distance.kind)


class PredictedBatch(NamedTuple):
    """keys: of B images.  probability: (B, C), NaN where the image could not be read.  problems: position -> why.

    trained_on: how many of the images trained or calibrated the model.  sha256: of the pixels, "" of an image that could not be read.
    samples: (T, B, C) the probabilities whose mean `probability` is; None: of one network.  distance: (B,) from the train images.
    slides: of which slide each image is a tile, "" of none; () where no image has one."""

    keys: list[str]
    probability: FloatArray
    problems: Mapping[int, str]
    trained_on: int
    sha256: Sequence[str] = ()
    samples: FloatArray | None = None
    distance: FloatArray | None = None
    slides: Sequence[str] = ()


@dataclass(frozen=True)
class PredictionInput:
    """The images to predict: those of a store, files, or whole slides.  notes: sentences for the user."""

    store: Store | None = None
    files: FoundImages | None = None
    slides: FoundSlides | None = None
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        """The number of images, or of slides."""
        given = next((each for each in (self.store, self.files, self.slides) if each is not None), ())
        return len(given)


def load_trained_model(name: str, device: str = "cpu") -> TrainedModel:
    """The encoder called `name` with its head. Raises InputError for one without a head, and for a head that is not that of its card."""
    location = zoo.find_encoder(name)
    weights = read_head_of(location, name)
    head = location.card.head
    assert head is not None, "read_head_of returned its tensors"
    encoder = zoo.load_location(location, device)
    network = build_head_network(encoder.model, encoder.card, weights).to(encoder.device)
    manifest = find_manifest(location)
    hashes = load_npz(manifest, "copy it again").get("sha256", ()) if manifest is not None else ()
    return TrainedModel(name, encoder, head, network, frozenset(bytes(row) for row in hashes), location.folder)


def add_dropout(model: TrainedModel, count: int) -> TrainedModel:
    """The model with `count` draws of dropout for each image. Raises InputError for one that was trained without."""
    return replace(model, dropout=DropoutRequest(build_dropout_network(model.encoder, model.network), count))


def add_distance(model: TrainedModel, kind: OutlierScore) -> TrainedModel:
    """The model with distances from its train images. Raises InputError for one without its reference."""
    reference = read_reference(model.folder, model.encoder.card, "--distance")
    own = reference.distance[:, DISTANCES.index(kind)]
    return replace(model, distance=DistanceRequest(kind, reference.train, own, reference.validation.patient))


def open_prediction_input(
    paths: Sequence[Path], model: TrainedModel, slides: bool = False, slide_mpp: float | None = None
) -> PredictionInput:
    """A store, several stores or a folder of stores as one; whole slides; otherwise the image files of a folder, or these files.

    slides: the files are whole slides, also those whose suffix is that of images (.tiff, .dcm).  slide_mpp: their
    micrometres per pixel, instead of their metadata.

    Raises InputError for what is neither, and for a store that was changed."""
    stores = [] if slides else list_stores(paths)
    if not stores and (slides or names_slides(paths)):
        return PredictionInput(slides=find_slides(paths, model.head, model.name, slide_mpp))
    if not stores:
        found = find_image_files(paths)
        skipped = [f"{n} files skipped: {suffix}" for suffix, n in sorted(found.skipped.items())]
        return PredictionInput(files=found, notes=skipped)
    store = Store.open([str(path) for path in stores])
    require_intact(store)
    notes = [
        f"warning: {line}"
        for attrs, modality in {str(part.attrs.get("geometry")): (part.attrs, str(part.attrs["modality"])) for part in store.parts}.values()
        for line in list_preprocess_mismatches(model.encoder.card, modality, attrs)
    ]
    return PredictionInput(store=store, notes=list(dict.fromkeys(notes)))


def list_stores(paths: Sequence[Path]) -> list[Path]:
    """The stores that the paths name, also by a folder that holds stores; [] if they name other files.

    Raises InputError for stores beside other files."""
    stores: list[Path] = []
    others: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.glob("*.h5") if p.is_file()) if path.is_dir() else []
        if inside:
            stores += inside
        elif path.suffix.lower() in STORES and not path.is_dir():
            stores.append(path)
        else:
            others.append(path)
    if stores and others:
        raise InputError(f"{stores[0]} is a store and {others[0]} is not; predict on stores and on files by a command each")
    return stores


def iterate_predictions(
    model: TrainedModel, images: PredictionInput, workers: int = 0, progress: Callable[[int], None] = lambda n: None
) -> Iterator[PredictedBatch]:
    """Yields the predictions of all images in their order, a batch at a time; no more than that is in memory.

    workers: processes that read; 0: this process reads.  progress: called with the number of images, or of slides, done."""
    if images.slides is not None:
        yield from _predict_slides(model, images.slides, workers, progress)
        return
    batches = _predict_store(model, images.store, workers) if images.store is not None else _predict_files(model, images.files, workers)
    for batch in batches:
        yield batch
        progress(len(batch.keys))


def _predict_store(model: TrainedModel, store: Store, workers: int) -> Iterator[PredictedBatch]:
    key, sha256 = store.column("key"), store.column("sha256")
    slide = store.column("slide").astype(str) if store.has_column("slide") else None
    parts = [np.arange(start, min(start + BATCH, len(store))) for start in range(0, len(store), BATCH)]
    for rows, x in zip(parts, iterate_inputs(model.encoder, store, parts, workers), strict=True):
        batch = _predict_batch(model, key[rows].astype(str).tolist(), x, sha256[rows].tolist(), {})
        yield batch if slide is None else batch._replace(slides=slide[rows].tolist())


def _predict_slides(model: TrainedModel, found: FoundSlides, workers: int, progress: Callable[[int], None]) -> Iterator[PredictedBatch]:
    """The tiles of one slide after the other, and a row for each slide that cannot be read as a whole."""
    for name, store, problem in tile_slides(found, workers):
        if store is not None:
            for batch in _predict_store(model, store, workers):
                yield batch._replace(slides=[name] * len(batch.keys))
        if problem:
            yield _predict_batch(model, [name], None, [""], {0: problem})._replace(slides=[name])
        progress(1)


def _predict_files(model: TrainedModel, found: FoundImages | None, workers: int) -> Iterator[PredictedBatch]:
    assert found is not None, "there are files where there is no store"
    reader = FileReader(found, choose_form(model.head, model.name))
    batches = FileBatches(reader, model.encoder, BATCH)
    workers = min(workers, len(batches))
    context = worker_context() if workers else None
    loader: DataLoader[FileBatch] = DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context=context)
    for batch in loader:
        x = None if batch.inputs is None else move_input(batch.inputs, model.encoder.device)
        yield _predict_batch(model, batch.keys, x, batch.sha256, batch.problems)


def _predict_batch(
    model: TrainedModel, keys: list[str], x: EncoderInput | None, sha256: Sequence[str], problems: Mapping[int, str]
) -> PredictedBatch:
    """The predictions of a batch.  x: of the images that were read, in order; None if there is none."""
    read = np.array([i not in problems for i in range(len(keys))])
    digests = [digest for digest, was_read in zip(sha256, read, strict=True) if was_read]

    def spread(values: FloatArray | None, axis: int = 0) -> FloatArray | None:
        """The values of all images, NaN of those that were not read."""
        if values is None:
            return None
        whole = np.full((*values.shape[:axis], len(keys), *values.shape[axis + 1 :]), np.nan)
        whole[(slice(None),) * axis + (read,)] = values
        return whole

    if x is None:
        return PredictedBatch(keys, np.full((len(keys), len(model.head.classes)), np.nan), problems, 0, sha256)
    samples, distance = spread(model.sampled_probabilities(x, digests), axis=1), spread(model.distances(x))
    p = spread(model.probabilities(x)) if samples is None else samples.mean(axis=0)
    assert p is not None, "there are images"
    return PredictedBatch(keys, p, problems, count_trained_on(model, digests), sha256, samples, distance)


def count_trained_on(model: TrainedModel, sha256: Sequence[str]) -> int:
    """How many images trained or calibrated the model.  sha256: hex digests of their pixels."""
    return sum(bytes.fromhex(digest) in model.trained_on for digest in sha256)
