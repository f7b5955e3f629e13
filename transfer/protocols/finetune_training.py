"""The training loop of fine-tuning: the phases of a strategy, with validations evenly spaced over all steps; the best weights are kept.

A strategy says which tensors a phase trains (`transfer/strategies/contract.py`). Images, their order, augmentation and validations are the
same for every strategy. Within a phase, `patience` validations without a better score end it.

Shapes: B images of a step, C labels or classes.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.loading.batches import Batches
from encoders.runtime.arithmetic import resolve_training_precision, use_precision
from encoders.runtime.errors import InputError
from encoders.runtime.optim import build_optimizer, clip_gradients, set_lr
from encoders.runtime.precision_names import TrainingPrecision
from encoders.zoo.parts import list_networks
from transfer.losses.contract import TrainingLoss
from transfer.protocols import layers
from transfer.protocols.common import ImageSet
from transfer.protocols.contract import Log, Select
from transfer.protocols.finetune_checkpoint import TrainingFile, TrainingParts, TrainingPaused
from transfer.protocols.finetune_config import Config
from transfer.protocols.finetune_network import FinetuneNetwork, copy_state, predict_images, update_ema
from transfer.protocols.mixing import mix_step
from transfer.protocols.training_cost import TrainingCost
from transfer.strategies.contract import Phase, Strategy
from transfer.strategies.freezing import count_trained, set_trainable, set_training_mode
from transfer.strategies.units import find_unused_parameters
from transfer.strategies.wise import interpolate

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder


NO_LABEL = "the validation split has no label with a known value; give it more patients"


class NoValidationScore(InputError):
    """No validation had a finite score. cost: of the training."""

    def __init__(self, message: str, cost: TrainingCost):
        super().__init__(message)
        self.cost = cost


@dataclass(frozen=True)
class TrainingRun:
    """What a network is trained on, the same for every strategy.

    labels: (rows of the store, C).  steps: of all phases.  batch: images of a step."""

    cfg: Config
    encoder: "Encoder"
    batches: Batches
    labels: Tensor
    loss: TrainingLoss
    steps: int
    batch: int
    kind: str
    val: ImageSet
    select: Select
    log: Log | None
    file: TrainingFile | None = None  # where the state is saved at every validation; None: nowhere

    @property
    def checks(self) -> set[int]:
        """The steps after which the network is validated."""
        return {round(self.steps * (i + 1) / self.cfg.evaluations) for i in range(self.cfg.evaluations)}

    def score(self, network: FinetuneNetwork) -> float:
        """The validation score of the network; NaN where training has diverged, which no order of scores would show."""
        scores = predict_images(network, self.val, self.loss.shift, self.kind, self.cfg.workers, self.cfg.tta)
        return float(self.select(self.val.y, scores)) if np.isfinite(scores).all() else float("nan")


@dataclass
class BestWeights:
    """The weights with the best validation score so far; the first of equals."""

    state: dict[str, Tensor]
    score: float = -np.inf
    course: list[dict[str, Any]] = field(default_factory=list)  # one row for each validation

    def add(self, network: nn.Module, row: dict[str, Any]) -> None:
        """Keeps the weights of the network if the score of `row` is the best."""
        self.course.append(row)
        if row["score"] > self.score:
            self.score, self.state = row["score"], copy_state(network)

    @property
    def chosen(self) -> dict[str, Any]:
        """The row of the best validation."""
        return next(row for row in self.course if row["score"] == self.score)


def train_network(run: TrainingRun, network: FinetuneNetwork, strategy: Strategy) -> tuple[FinetuneNetwork, dict[str, Any], TrainingCost]:
    """The network with its best weights, the selection with every validation, and the cost.

    On a GPU the host waits for the device at every validation, and with fp16 once a step, to learn whether a gradient overflowed.

    Raises InputError when no validation has a finite score."""
    cfg, cost = run.cfg, TrainingCost(run.encoder.device, sum(p.numel() for p in network.parameters()))
    decay, start = describe_layer_decay(network.backbone, cfg.layer_decay), copy_state(network.backbone)
    strategy.prepare(network.backbone)
    phases = strategy.phases(network.backbone, find_unused_parameters(network.backbone, run.encoder.card.preprocess))
    average = copy.deepcopy(network) if cfg.ema else network
    best, begin = BestWeights(copy_state(average)), 0
    saved = run.file.load() if run.file else None
    for number, together in enumerate(group_phases(phases)):
        if saved is None or number > saved["group"]:
            if begin:  # these phases start from the best weights of those before
                average.load_state_dict(best.state if best.course else copy_state(average))
                network.load_state_dict(average.state_dict())
            train_phases(run, network, average, strategy, number, together, begin, best, cost, None)
        elif number == saved["group"]:
            train_phases(run, network, average, strategy, number, together, begin, best, cost, saved)
        begin = round(run.steps * together[-1].end)
    validate_blends(run, average, start, strategy, best)
    cost.validations = len(best.course)
    if not np.isfinite(best.score):
        known = bool(np.isfinite(run.val.y).any())
        reason = "training diverged; lower finetune.optim.lr" if known else NO_LABEL
        raise NoValidationScore(f"fine-tuning has no validation score: {reason}", cost)
    average.load_state_dict(best.state)
    strategy.merge(average.backbone)
    chosen = {name: value for name, value in best.chosen.items() if name != "loss"}
    return average, {**chosen, "steps": run.steps, "stopped": best.course[-1]["step"], "layer_decay": decay, "table": best.course}, cost


def train_phases(
    run: TrainingRun,
    network: FinetuneNetwork,
    average: FinetuneNetwork,
    strategy: Strategy,
    group: int,
    phases: Sequence[Phase],
    begin: int,
    best: BestWeights,
    cost: TrainingCost,
    saved: Mapping[str, Any] | None,
) -> None:
    """Trains the network over phases that share an optimizer and a schedule, from step `begin`; adds every validation to `best`.

    group: the number of these phases.  saved: the state of an interrupted training within them."""
    cfg, device = run.cfg, run.encoder.device
    precision = resolve_training_precision(cfg.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    optimizer = build_optimizer(build_groups(cfg, network, strategy, phases), cfg.optim, run.batch)
    length = round(run.steps * phases[-1].end) - begin  # of the schedule
    parts = TrainingParts(network, average, optimizer, scaler, best, cost)
    if saved:
        parts.restore(saved)
    first = end = begin
    for number, phase in enumerate(phases):
        opening, end, stale, phase_best = end, round(run.steps * phase.end), 0, -np.inf
        if saved and number <= saved["phase"]:
            first = end
            if number < saved["phase"]:
                continue
            first, stale, phase_best = saved["step"], saved["stale"], saved["phase_best"]
        kept = set_trainable(network.backbone, phase)
        cost.trained_parameters = max(cost.trained_parameters, count_trained(network))
        for step in range(first, end):
            if stale >= cfg.patience:
                break
            if run.file and run.file.is_due(step):
                raise pause_training(run, average, strategy, best, cost, step)
            set_training_mode(network, kept)
            set_lr(optimizer, step - begin, length, round(cfg.warmup * length), cfg.optim)
            torch.manual_seed((cfg.seed << 32) + step + 1)  # for drop path; the head is initialised from the seed alone
            (micro,) = run.batches.micro_batches(step)
            loss_of_labels = partial(run.loss.loss, progress=step / run.steps)
            images, step_loss = mix_step(cfg, step, micro.views[0], run.labels[micro.index], loss_of_labels)
            update = partial(training_step, network, optimizer, scaler, images, step_loss)
            with cost.measure([network, average], optimizer) if step == opening else nullcontext():  # not again when it is resumed
                loss = update(precision, cfg.clip, partial(strategy.penalty, network.backbone))
            cost.images_seen += len(micro.index)
            if cfg.ema:
                update_ema(average, network, min(cfg.ema, (1 + step - begin) / (10 + step - begin)))
            if step + 1 not in run.checks:
                continue
            if strategy.validates_while_training:
                score = run.score(average)
                named = {"phase": phase.name} if phase.name else {}
                best.add(average, {"step": step + 1, "score": score, "loss": float(loss), **named})
                if run.log:
                    run.log(step + 1, loss=float(loss), val=score)
                stale = 0 if score > phase_best else stale + 1
                phase_best = max(phase_best, score)
            if run.file:
                run.file.save(parts.capture(group, number, step + 1, stale, phase_best))
        first = end


def pause_training(
    run: TrainingRun, average: FinetuneNetwork, strategy: Strategy, best: BestWeights, cost: TrainingCost, step: int
) -> TrainingPaused:
    """What ends a training at its pause. A strategy that chooses its weights at the end has the score of the trained ones."""
    known = strategy.validates_while_training
    cost.validations = len(best.course) + (0 if known else 1)
    return TrainingPaused(best.score if known else run.score(average), cost, step, run.steps)


def validate_blends(run: TrainingRun, average: FinetuneNetwork, start: Mapping[str, Tensor], strategy: Strategy, best: BestWeights) -> None:
    """Adds a validation of every mean of start and trained weights that the strategy proposes.  start: of the backbone."""
    trained = copy_state(average.backbone)
    for alpha in strategy.blends(run.cfg.evaluations):
        average.backbone.load_state_dict(interpolate(start, trained, alpha))
        score = run.score(average)
        best.add(average, {"step": run.steps, "score": score, "alpha": alpha})
        if run.log:
            run.log(run.steps, alpha=alpha, val=score)


def group_phases(phases: Sequence[Phase]) -> list[list[Phase]]:
    """The phases in groups that share an optimizer and a schedule."""
    groups: list[list[Phase]] = []
    for phase in phases:
        if phase.restarts or not groups:
            groups.append([phase])
        else:
            groups[-1].append(phase)
    return groups


def build_groups(cfg: Config, network: FinetuneNetwork, strategy: Strategy, phases: Sequence[Phase]) -> list[dict[str, Any]]:
    """The parameter groups of the optimizer, with everything that one of the phases trains set to have gradients."""
    set_trainable(network.backbone, replace(phases[0], trained=frozenset[str]().union(*(phase.trained for phase in phases))))
    flat_lr, own_head_lr = phases[0].flat_lr, phases[0].head_lr
    decay, head_lr = cfg.layer_decay if flat_lr is None else 1.0, cfg.head_lr if own_head_lr is None else own_head_lr
    groups = layers.parameter_groups(network.backbone, network.head, decay, cfg.optim.weight_decay, head_lr)
    for group in (group for group in groups if not group["name"].startswith("head")):
        group["lr_scale"] *= flat_lr or 1.0
        group["weight_decay"] *= strategy.decays_to_zero
    return groups


def describe_layer_decay(backbone: nn.Module, decay: float | None) -> float | list[float]:
    """The layer decay that is used; one number for each part where parts differ."""
    decays = [layers.default_layer_decay(one) if decay is None else decay for _, one in list_networks(backbone)]
    return decays[0] if len(set(decays)) == 1 else decays


def training_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    precision: TrainingPrecision,
    clip: float,
    penalty: Callable[[], Tensor | None] = lambda: None,
) -> Tensor:
    """One update of the network; returns the loss before it, on its device. images: (B, K, S, S) prepared.

    loss_of: the loss of logits (B, C).  penalty: a scalar that is added to the loss, or None.

    The host does not wait for the device, except in `scaler.step` with fp16."""
    with use_precision(images.device, precision):
        logits = network(images)
    loss = loss_of(logits)
    if (extra := penalty()) is not None:
        loss = loss + extra
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    clip_gradients(list(network.parameters()), clip)
    scaler.step(optimizer)
    scaler.update()
    return loss.detach()
