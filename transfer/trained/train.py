"""Fine-tuning an encoder on a task and keeping the network with its head as an encoder of the zoo.

The network is that of the protocol `finetune` under the same settings and seed, so `transfer bench --protocol finetune` measures what is
kept here. Train patients train it; validation patients choose the weights, the temperature and the thresholds. No test image is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from encoders.runtime.arrays import IntArray
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.local_notes import prints_to_job_log
from encoders.runtime.paths import cache_dir, zoo_dir
from encoders.store.verified import require_intact
from encoders.zoo import zoo
from encoders.zoo.card import Card
from encoders.zoo.encoder import Encoder
from encoders.zoo.head import HeadWeights
from encoders.zoo.head_card import Head
from encoders.zoo.publish import check_zoo_name, publish_encoder
from transfer.bench import leaks
from transfer.bench.baselines import EncoderEntry
from transfer.bench.bench import LogLine, load_protocols
from transfer.bench.cell import hide_task_names
from transfer.bench.preprocess_check import list_preprocess_mismatches
from transfer.leakage import check
from transfer.protocols import finetune, finetune_search
from transfer.protocols.common import ImageSet
from transfer.protocols.contract import Log
from transfer.protocols.finetune import VERSION, Fitted
from transfer.protocols.finetune_checkpoint import TrainingFile
from transfer.protocols.finetune_config import Config
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.fit_place import FitPlace, TrialReport
from transfer.protocols.search_space import with_settings
from transfer.records.validation_looks import log_validation_looks
from transfer.strategies.names import FINETUNE, FULL, check_settings_used, parse_strategy, strategy_label
from transfer.tasks.load import LoadedTask, load_task
from transfer.tasks.options import Part
from transfer.tasks.task import read_task
from transfer.trained.calibrate import Calibration, calibrate_head, fold_head
from transfer.trained.head_network import build_head_network, predict_with_head
from transfer.trained.reference import build_reference
from transfer.trained.reference_file import write_reference
from transfer.trained.stored_form import describe_stored_images
from transfer.trained.trained_card import build_trained_card, build_trained_manifest


@dataclass(frozen=True)
class TrainRequest:
    """What to train.  overrides: settings of fine-tuning, as `finetune.epochs=5`."""

    encoder: str
    task: str
    name: str
    strategy: str = FULL
    overrides: tuple[str, ...] = ()
    seed: int = 0
    device: str = "cpu"
    replace: bool = False
    allow_leakage: bool = False
    near_duplicates: bool = True
    licence: str = "unknown"


@dataclass(frozen=True)
class TrainedEncoder:
    """What was kept.  selection, cost: of the fine-tuning."""

    folder: Path
    card: Card
    network: FinetuneNetwork  # as it is kept: its head is that of the card
    calibration: Calibration
    selection: dict[str, Any]
    cost: dict[str, Any]


def load_finetune_settings(request: TrainRequest) -> Config:
    """The settings of fine-tuning. Raises InputError for an unknown one, for one that has no effect, and for an unknown strategy."""
    parse_strategy(request.strategy)
    protocol = FINETUNE if request.strategy == FULL else f"{FINETUNE}-{request.strategy}"
    check_settings_used([protocol], request.overrides)
    if wrong := [text for text in request.overrides if "." in text.partition("=")[0] and not text.startswith(f"{FINETUNE}.")]:
        raise InputError(f"{wrong[0]} is no setting of fine-tuning; write {FINETUNE}.SETTING=VALUE, e.g. {FINETUNE}.epochs=5")
    ((_, cfg),) = load_protocols([protocol], request.seed, request.overrides, request.device).values()
    assert isinstance(cfg, Config)
    return cfg


def train_encoder(request: TrainRequest, log: LogLine = print, on_validation: Log | None = None) -> TrainedEncoder:
    """Trains, calibrates and publishes `request.name`. Rerunning the same request on one CPU gives the same network, and after an
    interruption goes on from the last validation.

    on_validation: receives loss and score of every validation.

    Raises InputError for an encoder that has no network, or is made of several; for a name that the zoo has; for data leakage between the
    parts of the task, unless it is allowed; and for what `fit` refuses."""
    cfg = load_finetune_settings(request)
    loaded, location = load_task(read_task(request.task)), zoo.find_encoder(request.encoder)
    _check_name(request, location.card)
    if location.card.parts:
        raise InputError(f"{request.encoder} is made of several networks, and a trained encoder has one; train a part of it")
    _check_task(request, loaded, location.card, log)
    encoder = zoo.load_location(location, request.device)
    train, val = (gather_images(loaded, encoder, part) for part in ("train", "val"))
    place = find_training_place(loaded, encoder, cfg, hear_of_trials(request, loaded, encoder, log))
    if (saved := TrainingFile(place.path).load()) is not None:
        log(f"an interrupted training of these settings and images goes on from step {saved['step']}")
    elif place.folder.is_dir():
        log("an interrupted search of these settings and images goes on")
    fitted, cfg = fit_in_place(place, cfg, train, val, on_validation)
    if "search" not in fitted.selection:
        log_validation_looks(describe_training(request, loaded, encoder), len(fitted.selection["table"]))
    head = fold_head(fitted)
    network = build_head_network(fitted.network.backbone, encoder.card, head).to(encoder.device)
    logits = predict_with_head(network, val, cfg.workers, cfg.tta)
    calibration = calibrate_head(val.y, logits, val.kind, tuple(loaded.task.classes))
    for note in calibration.notes:
        log(f"note: {note}")
    reference = build_reference(network, train, val, logits, cfg.workers)
    rows = used_rows(loaded)
    card = build_trained_card(request.name, encoder, loaded, rows, cfg, fitted.selection, request.licence)
    card = card.replace(head=_describe_head(loaded, cfg, calibration, fitted, val, head).model_dump())
    folder = publish_encoder(request.name, network.backbone, card, build_trained_manifest(loaded, rows), request.replace, head)
    kept = Card.read(folder / "card.yaml")
    assert kept.head is not None, "it was published with its head"
    write_reference(folder, reference, kept.head)
    place.remove()
    return TrainedEncoder(folder, kept, network, calibration, dict(fitted.selection), dict(fitted.cost))


def fit_in_place(place: FitPlace, cfg: Config, train: ImageSet, val: ImageSet, log: Log | None) -> tuple[Fitted, Config]:
    """The fine-tuned network and its settings, which with a search are those of the best trial."""
    if not cfg.search.space:
        return finetune.fit_resumable(place, cfg, train, val, log=log), cfg
    fitted = finetune_search.fit_resumable(place, cfg, train, val, log=log)
    return fitted, Config.model_validate(with_settings(Config, cfg.model_dump(), fitted.selection["search"]["settings"]))


def describe_training(request: TrainRequest, loaded: LoadedTask, encoder: Encoder) -> dict[str, Json]:
    """What the ledger of validation looks says a training is for."""
    return {
        "task": request.task,
        "split": loaded.split.hash,
        "encoder": request.encoder,
        "encoder_sha256": encoder.sha256,
        "trained": request.name,
        "seed": request.seed,
    }


def hear_of_trials(request: TrainRequest, loaded: LoadedTask, encoder: Encoder, log: LogLine) -> Callable[[TrialReport], None]:
    """What prints every trial of a search, and adds its validations to the ledger."""

    def hear(report: TrialReport) -> None:
        log_validation_looks(describe_training(request, loaded, encoder), report.looks, report.trial, report.rung, report.images)
        log(str(report))

    return hear


def find_training_place(loaded: LoadedTask, encoder: Encoder, cfg: Config, on_trial: Callable[[TrialReport], None]) -> FitPlace:
    """Where the state of this training is kept until its end. Its name depends on everything that the weights depend on."""
    task = [json_digest(loaded.task), loaded.labels_hash, loaded.split.hash, loaded.store.fingerprint]
    identity = [*task, encoder.sha256, cfg.model_dump(mode="json"), encoder.device.type, torch.__version__, VERSION]
    return FitPlace(cache_dir() / "trainings" / f"{json_digest(identity, 32)}.pt", on_trial)


def _check_name(request: TrainRequest, start: Card) -> None:
    """Raises InputError now for a name that would be refused after an hour of training."""
    check_zoo_name(request.name, start.replace(config={"task": request.task}))
    if (zoo_dir() / request.name).exists() and not request.replace:
        raise InputError(f"the zoo has an encoder called {request.name}; choose another --name, or replace it with --replace")
    if request.name == request.encoder:
        raise InputError(f"{request.name} would replace the encoder that it starts from; choose another --name")


def _check_task(request: TrainRequest, loaded: LoadedTask, start: Card, log: LogLine) -> None:
    """Reports how labels and split were read, and what is wrong with them. Raises InputError for data leakage and for changed images.

    Test images that the start has seen do not spoil the training; a benchmark of the result refuses them, so they are named now."""
    for line in loaded.messages:
        log(f"{loaded.task.name}: {hide_task_names(loaded, line) if prints_to_job_log() else line}")
    own = leaks.gather_split_leaks(loaded, request.near_duplicates)
    listed = leaks.save_leaks(loaded, own, "leaks", log)
    confirmed, suspected = check.check_leaks(loaded.task.name, own, request.allow_leakage, listed)
    entry = EncoderEntry(request.encoder, start, True)
    seen = leaks.gather_pretraining_leaks(loaded, entry, request.near_duplicates)[0]
    seen += leaks.gather_pretraining_patients(loaded, entry, ())[0]
    warnings = confirmed + suspected + leaks.describe_label_use(loaded, entry)
    warnings += [f"{leak}; `transfer bench` refuses {request.name} on this task" for leak in seen if leak.confirmed]
    for warning in [*warnings, *list_preprocess_mismatches(start, loaded.store.modality, loaded.store.attrs)]:
        log(f"warning: {warning}")
    require_intact(loaded.store, used_rows(loaded).tolist())


def used_rows(loaded: LoadedTask) -> IntArray:
    """The rows of the store that train the network or choose something: train and validation images with a label."""
    rows = np.concatenate([loaded.split.rows("train"), loaded.split.rows("val")])
    return np.sort(rows[np.isfinite(loaded.y[rows]).any(axis=1)])


def gather_images(loaded: LoadedTask, encoder: Encoder, part: Part) -> ImageSet:
    """The images of a part of the task, as the encoder reads them."""
    rows = loaded.split.rows(part)
    columns = (loaded.y[rows], loaded.key[rows], loaded.patient[rows])
    return ImageSet(loaded.store, encoder, rows, *columns, loaded.task.kind, loaded.sha256[rows])


def _describe_head(loaded: LoadedTask, cfg: Config, calibration: Calibration, fitted: Fitted, val: ImageSet, weights: HeadWeights) -> Head:
    known = np.isfinite(val.y).any(axis=1)
    return Head(
        kind=loaded.task.kind,
        classes=tuple(loaded.task.classes),
        task=loaded.task.name,
        task_digest=json_digest(loaded.task),
        labels_digest=loaded.labels_hash,
        split_digest=loaded.split.hash,
        strategy=strategy_label(cfg),
        temperature=calibration.temperature,
        thresholds=None if calibration.threshold is None else tuple(float(cut) for cut in calibration.threshold),
        calibration_images=int(known.sum()),
        calibration_patients=len(set(val.patient[known].astype(str).tolist())),
        validation_score=float(fitted.selection["score"]),
        images=describe_stored_images(loaded.store),
        sha256=weights.sha256,
        tta=cfg.tta if cfg.tta.is_on else None,
    )
