"""How faithful the maps of each method are, in numbers: deletion, insertion, pointing game, energy, and the sanity check.

Images whose label is decided positive are measured: for the others there is no evidence to find. Random maps are as smooth as those of the
method, and every image is compared with its own: differences are paired.

Shapes: n images of a batch, N all, S side of the input.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator
from encoders.store.masks import has_masks, read_masks
from transfer.explain.contract import EvidenceMaps, Method, enlarge_maps
from transfer.explain.deletion import measure_deletion
from transfer.explain.explained import ExplainedBatch, compute_maps, explain_images
from transfer.explain.localization import resize_mask, score_area, score_centre, score_energy, score_pointing
from transfer.explain.patient_means import mean_over_patients, name_people
from transfer.explain.randomised_weights import UNCHANGED, iterate_randomised, rank_correlation, structural_similarity
from transfer.explain.select_images import SelectedImages
from transfer.stats.interval import Interval
from transfer.trained.predict import TrainedModel

RANDOM_MAPS = 3  # of an image
SANITY_IMAGES = 32
HIGHER_IS_BETTER = {"deletion": False, "insertion": True, "pointing": True, "energy": True}


@dataclass(frozen=True)
class FaithfulnessRow:
    """A measure of a method's maps beside that of a baseline.  better: the map is better; None: the interval does not say.

    difference: map less baseline, of the same images."""

    method: str
    measure: str
    value: Interval
    baseline: str
    baseline_value: float
    difference: Interval
    better: bool | None
    images: int
    patients: int


@dataclass(frozen=True)
class SanityRow:
    """How alike the maps are to those of a network whose weights are randomised so far.  changes: they are not alike at the end.

    rank: mean Spearman correlation.  similarity: mean SSIM."""

    method: str
    randomised: str
    rank: float
    similarity: float
    changes: bool | None


@dataclass
class Evaluation:
    """What was measured. skipped: images whose label is not decided positive.  trained_on: images that trained the model."""

    rows: list[FaithfulnessRow] = field(default_factory=list)
    sanity: list[SanityRow] = field(default_factory=list)
    images: int = 0
    skipped: int = 0
    unreadable: int = 0
    trained_on: int = 0
    masks: int = 0


@dataclass
class _Measured:
    """The measurements of all images so far. values: (method, measure) -> for each image; of `random:CELLS` for the random maps."""

    values: dict[tuple[str, str], list[FloatArray]] = field(default_factory=lambda: defaultdict(list))
    people: list[str] = field(default_factory=list)
    with_mask: list[bool] = field(default_factory=list)
    cells: dict[str, int] = field(default_factory=dict)
    x: list[Tensor] = field(default_factory=list)
    label: list[IntArray] = field(default_factory=list)

    def add(self, name: str, **measures: FloatArray) -> None:
        for measure, values in measures.items():
            self.values[name, measure].append(values)

    def column(self, name: str, measure: str) -> FloatArray:
        return np.concatenate(self.values[name, measure])


def evaluate_methods(
    model: TrainedModel,
    images: SelectedImages,
    methods: Sequence[Method],
    label: str | None = None,
    workers: int = 0,
    progress: Callable[[int], None] = lambda n: None,
) -> Evaluation:
    """The measurements of every method on the images. Pointing game and energy need a store with masks.

    Raises InputError if no image has a label that is decided positive."""
    done, measured = Evaluation(), _Measured()
    masks = images.store is not None and has_masks(images.store)
    for batch in explain_images(model, images, methods, label, workers, progress):
        done.unreadable += len(batch.images.problems)
        done.trained_on += batch.images.trained_on
        positive = np.flatnonzero(batch.decided[np.arange(len(batch.label)), batch.label])
        done.skipped += len(batch.label) - len(positive)
        if len(positive):
            _measure_batch(model, batch, positive, _read_input_masks(model, images, batch, positive) if masks else None, measured)
    done.images, done.masks = len(measured.people), sum(measured.with_mask)
    if not measured.people:
        raise InputError(
            f"the label is decided positive in none of the {done.skipped} images, so there is no evidence whose map could be measured; "
            "choose other images or another --label"
        )
    people = np.array(measured.people)
    for method in methods:
        done.rows += _summarize(method.name, measured, people)
    done.sanity = check_randomised(model, torch.cat(measured.x)[:SANITY_IMAGES], np.concatenate(measured.label)[:SANITY_IMAGES], methods)
    return done


def _read_input_masks(model: TrainedModel, images: SelectedImages, batch: ExplainedBatch, positive: IntArray) -> BoolArray:
    """(n, S, S) masks of the images as the network sees them."""
    store, rows = images.store, batch.images.rows
    assert store is not None
    assert rows is not None
    return np.stack([resize_mask(mask, model.encoder.card.preprocess) for mask in read_masks(store, rows[positive])])


def _measure_batch(model: TrainedModel, batch: ExplainedBatch, positive: IntArray, masks: BoolArray | None, measured: _Measured) -> None:
    assert batch.images.x is not None, "explained images were read"
    x, label = batch.images.x[torch.from_numpy(positive).to(batch.images.x.device)], batch.label[positive]
    read = np.array(batch.images.read)[positive].tolist()
    start = len(measured.people)
    measured.people += name_people([batch.images.patient[i] for i in read], [batch.images.keys[i] for i in read]).tolist()
    if sum(map(len, measured.label)) < SANITY_IMAGES:
        measured.x.append(x)
        measured.label.append(label)
    measured.with_mask += [False] * len(x) if masks is None else [bool(mask.any()) for mask in masks]
    if masks is not None:
        measured.add("centre", pointing=score_centre(masks))
        measured.add("area", energy=score_area(masks))
    for cells in {maps.cells for maps in batch.maps.values()}:
        draws = [draw_random_maps(len(x), start, cells, x.shape[-1], i).to(x.device) for i in range(RANDOM_MAPS)]
        each = [_measure_maps(model, x, label, maps, masks) for maps in draws]
        measured.add(f"random:{cells}", **{name: np.mean([values[name] for values in each], axis=0) for name in each[0]})
    for name, explained in batch.maps.items():
        measured.cells[name] = explained.cells
        maps = explained.maps[torch.from_numpy(positive).to(explained.maps.device)]
        measured.add(name, **_measure_maps(model, x, label, maps, masks))


def _measure_maps(model: TrainedModel, x: Tensor, label: IntArray, maps: Tensor, masks: BoolArray | None) -> dict[str, FloatArray]:
    """Measure -> (n,) of maps (n, S, S)."""
    deletion, insertion = measure_deletion(model, x, label, maps)
    areas = {"deletion": deletion, "insertion": insertion}
    return areas if masks is None else areas | {"pointing": score_pointing(maps, masks), "energy": score_energy(maps, masks)}


def draw_random_maps(n: int, start: int, cells: int, side: int, draw: int) -> Tensor:
    """(n, S, S) maps of uniform noise on a grid of cells.  start: number of the first image.  draw: which of the maps of an image."""
    noise = [generator(draw, Purpose.EXPLAIN, 2, start + i).random((cells, cells)) for i in range(n)]
    return enlarge_maps(torch.from_numpy(np.stack(noise)), side).maps


def _summarize(method: str, measured: _Measured, people: Array) -> list[FaithfulnessRow]:
    """The rows of one method."""
    rows, known = [], np.array(measured.with_mask)
    for measure, higher in HIGHER_IS_BETTER.items():
        if (method, measure) not in measured.values:
            continue
        chosen = known if measure in ("pointing", "energy") else np.ones(len(people), bool)
        if not chosen.any():
            continue
        others = {"random maps": f"random:{measured.cells[method]}", "centre of the image": "centre", "area of the mask": "area"}
        own = measured.column(method, measure)[chosen]
        for title, name in others.items():
            if (name, measure) not in measured.values:
                continue
            base = measured.column(name, measure)[chosen]
            difference = mean_over_patients(own - base, people[chosen])
            sign = 1 if higher else -1
            better = True if sign * difference.low > 0 and sign * difference.high > 0 else None
            better = False if sign * difference.low < 0 and sign * difference.high < 0 else better
            value, patients = mean_over_patients(own, people[chosen]), len(set(people[chosen].tolist()))
            rows.append(FaithfulnessRow(method, measure, value, title, float(base.mean()), difference, better, len(own), patients))
    return rows


def check_randomised(model: TrainedModel, x: Tensor, label: IntArray, methods: Sequence[Method], seed: int = 0) -> list[SanityRow]:
    """The sanity check of each method on some images (n, K, S, S): the head randomised, then unit after unit."""
    before = compute_maps(model, x, label, methods)
    found: dict[str, list[SanityRow]] = {method.name: [] for method in methods}
    for title, broken in iterate_randomised(model.network, seed):
        after = compute_maps(replace(model, network=broken), x, label, methods)
        for name, rows in found.items():
            rows.append(SanityRow(name, title, *_compare_maps(before[name], after[name]), changes=None))
    for rows in found.values():
        rows[-1] = replace(rows[-1], changes=abs(rows[-1].rank) < UNCHANGED)
    return [row for rows in found.values() for row in rows]


def _compare_maps(a: EvidenceMaps, b: EvidenceMaps) -> tuple[float, float]:
    """Mean rank correlation and mean SSIM."""
    return float(rank_correlation(a.maps, b.maps).mean()), float(structural_similarity(a.maps, b.maps).mean())
