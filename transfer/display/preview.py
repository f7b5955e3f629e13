"""A picture of what fine-tuning does to images of a task, before hours are spent on it: one row for each of the first images of step 0.

Columns: the stored image with the outlines of the crops, what validation and test see, several draws of the augmentation, mixup and CutMix
with their shares, and the views of test-time augmentation. Draws and mixes are those of the training itself: the first draw is that of step
0. The images are train images; no other part of the task is read.

Shapes: B images of a step, n of the preview, C channels, K channels of the encoder, H, W pixels, S of a view, L labels or classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from encoders.augment.config import Augment
from encoders.augment.picture import describe_augmentation, draw_crop_outline, draw_image, split_params, to_pictures
from encoders.loading.sampler import BatchOrder
from encoders.loading.views import RawBatch, make_views, read_raw_batch
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.threads import single_torch_thread
from encoders.zoo import zoo
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.preprocess import prepare_input
from transfer.losses.registry import build_loss
from transfer.protocols.common import find_labeled_rows, order_by_image
from transfer.protocols.finetune import count_steps, require_network, resolve_augmentation
from transfer.protocols.finetune_config import Config
from transfer.protocols.mixing import Mix, draw_mix, mix_images
from transfer.protocols.tta import list_tta_views
from transfer.tasks.load import LoadedTask, load_task
from transfer.tasks.task import read_task
from transfer.trained.train import TrainRequest, load_finetune_settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL_WIDTH, CELL_HEIGHT = 1.9, 2.3  # of an image with its caption, inches
MOST_TTA_VIEWS = 8
STEPS_TO_SEARCH = 1000  # for a step that is mixed by mixup, and one by CutMix
LONGEST_LABEL = 24  # characters


@dataclass(frozen=True)
class FirstStep:
    """Step 0 of a training: what is read for it, and its labels. y: (B, L), NaN = unknown."""

    cfg: Config
    preprocess: Preprocess
    spec: Augment
    draws: list[RawBatch]  # of step 0, and the same images with the draws of the steps after it
    y: Array
    kind: str
    classes: tuple[str, ...]

    def make_views(self, draw: int) -> Tensor:
        """(B, K, S, S), the normalised views of a draw, as the network gets them."""
        (views,) = make_views(self.draws[draw].images, self.draws[draw], [self.spec], self.preprocess)
        return views


@dataclass(frozen=True)
class TrainPicture:
    """A column of the preview. pictures: (n, H, W, C) in [0, 1].  notes: one for each."""

    title: str
    pictures: Array
    notes: list[str]


def write_finetune_preview(request: TrainRequest, out: Path, n: int = 6, draws: int = 3) -> Path:
    """Writes the PNG, which only this user may read, and returns its path.

    Raises InputError for a file that is no PNG, an encoder without a network, unknown names and settings."""
    if out.suffix.lower() != ".png":
        raise InputError(f"a preview is a PNG picture; use a name like {out.stem or 'preview'}.png instead of {str(out)!r}")
    cfg = load_finetune_settings(request)
    card = zoo.find_encoder(request.encoder).card
    require_network(card)
    figure = draw_finetune_preview(read_first_step(cfg, card, load_task(read_task(request.task)), draws), n)
    with atomic_write(out, private=True) as part:
        figure.savefig(part, format="png", dpi=100, metadata={"Software": None})  # without a version equal pictures have equal bytes
    return out


def read_first_step(cfg: Config, card: Card, loaded: LoadedTask, draws: int) -> FirstStep:
    """What step 0 of fine-tuning on the task reads and draws. draws: how many there are of each image, at least 1.

    Raises InputError for fewer than two labeled train images."""
    index = loaded.split.rows("train")
    index = index[order_by_image(loaded.key[index], loaded.sha256[index])]
    index = index[find_labeled_rows(loaded.y[index], loaded.task.kind)]
    if len(index) < 2:
        raise InputError(
            f"task {loaded.task.name} has {len(index)} labeled train images, and fine-tuning needs two; check its label column"
        )
    y, kind = loaded.y[index], loaded.task.kind
    loss = build_loss(cfg, cfg.class_weight == "balanced", y, kind, loaded.patient[index], torch.device("cpu"))
    _, batch = count_steps(cfg, len(index))
    rows, positions = BatchOrder(index, batch, cfg.seed, weights=loss.row_weight).micro_batch_rows(0)
    spec = resolve_augmentation(cfg.augment, loaded.store.modality)
    raw = [read_raw_batch(loaded.store, rows, positions + i * batch, [spec], None, cfg.seed, corpus=index) for i in range(draws)]
    return FirstStep(cfg, card.preprocess, spec, raw, loaded.y[rows], kind, tuple(loaded.task.classes))


def draw_finetune_preview(step: FirstStep, n: int) -> "Figure":
    """The figure: a row for each of the first n images of the step."""
    from matplotlib.figure import Figure

    n = min(n, len(step.y))
    columns = build_train_columns(step, n)
    figure = Figure(figsize=(CELL_WIDTH * len(columns), CELL_HEIGHT * n + 0.4), layout="constrained")
    grid = figure.subplots(n, len(columns), squeeze=False)
    drawn = [split_params(raw.params[0], n) for raw in step.draws]
    for row, axes in enumerate(grid):
        for ax, column in zip(axes, columns, strict=True):
            title = f"{column.title}\n{column.notes[row]}" if row == 0 else column.notes[row]
            draw_image(ax, column.pictures[row], title)
        for i, own in enumerate(drawn):
            draw_crop_outline(axes[0], own[row], f"C{i}")
    for i in range(len(drawn)):
        grid[0][2 + i].title.set_color(f"C{i}")  # that of its outline
    return figure


def build_train_columns(step: FirstStep, n: int) -> list[TrainPicture]:
    """The columns in their order."""
    with single_torch_thread():  # as in training: the last bit of some sums depends on the number of threads
        first = step.draws[0]
        stored = first.images[:n].numpy() / first.scale
        prepared = prepare_input(stored.astype(np.float32), step.preprocess)
        labels = [describe_labels(y, step.kind, step.classes) for y in step.y]
        columns = [TrainPicture("stored train image", stored, labels[:n])]
        columns.append(TrainPicture("as validation and test\nsee it", to_pictures(prepared, step.preprocess), [""] * n))
        for i, raw in enumerate(step.draws):
            words = [describe_augmentation(own) for own in split_params(raw.params[0], n)]
            columns.append(TrainPicture(f"draw {i + 1}", to_pictures(step.make_views(i)[:n], step.preprocess), words))
        return [*columns, *mixed_columns(step, labels, n), *tta_columns(step, prepared)]


def mixed_columns(step: FirstStep, labels: list[str], n: int) -> list[TrainPicture]:
    """The first draw, mixed: by the first mixup and the first CutMix of the training, where they are on."""
    columns = []
    views = step.make_views(0)
    for number, mix in find_first_mixes(step.cfg, views.shape[2]):
        name = "mixup" if mix.box is None else "CutMix"
        pairs = zip(labels[:n], labels[::-1][:n], strict=True)
        notes = [f"{mix.share:.2f} {own}\n{1 - mix.share:.2f} {other}" for own, other in pairs]
        columns.append(TrainPicture(f"{name}, as in step {number}", to_pictures(mix_images(views, mix)[:n], step.preprocess), notes))
    return columns


def find_first_mixes(cfg: Config, size: int) -> list[tuple[int, Mix]]:
    """The first step of each kind of mixing that is on, with its mix."""
    found: dict[bool, tuple[int, Mix]] = {}
    for step in range(STEPS_TO_SEARCH if cfg.mixes else 0):
        mix = draw_mix(cfg, cfg.seed, step, size)
        if mix is not None:
            found.setdefault(mix.box is None, (step, mix))
    return [found[kind] for kind in (True, False) if kind in found]


def tta_columns(step: FirstStep, prepared: Tensor) -> list[TrainPicture]:
    """The views of test-time augmentation besides the image itself, at most 8 of them.  prepared: (n, K, S, S)."""
    views = list_tta_views(step.cfg.tta)[1:]
    more = len(views) - MOST_TTA_VIEWS
    columns = [
        TrainPicture(f"test-time view:\n{view.describe()}", to_pictures(view.of_images(prepared), step.preprocess), [""] * len(prepared))
        for view in views[:MOST_TTA_VIEWS]
    ]
    if more > 0:
        columns[-1] = TrainPicture(f"{columns[-1].title} (and {more} more)", columns[-1].pictures, columns[-1].notes)
    return columns


def describe_labels(y: Array, kind: str, classes: tuple[str, ...]) -> str:
    """The labels of an image: its class, its positive labels, `no LABEL`, or `unknown`.  y: (L,)."""
    positive = [name for name, value in zip(classes, y, strict=True) if value > 0.5]
    known = ~np.isnan(y)
    if positive:
        words = ", ".join(positive)
    elif not known.any():
        words = "unknown"
    else:
        words = f"no {classes[0]}" if kind == "binary" else "no label"
    return words if len(words) <= LONGEST_LABEL else f"{words[: LONGEST_LABEL - 3]}..."
