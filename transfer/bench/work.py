"""How much a benchmark has to do, by kind of work, so that its progress can say how long the rest takes.

Kinds: images to embed, and the cells of each protocol at each label fraction. One unit of embedding is the work of one image for a network
of a million parameters at 224 pixels; a cell counts the rows that it uses. Results from records, features from the cache and encoders
without weights are taken off when they turn up.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.progress import Progress
from encoders.zoo.card import Card
from encoders.zoo.listing import common_archs
from encoders.zoo.pixels import has_network
from transfer.search.halving import count_trainings, plan_rungs
from transfer.search.settings import SearchGroup
from transfer.tasks.split import Split

if TYPE_CHECKING:
    from transfer.bench.baselines import EncoderEntry
    from transfer.bench.cell import Cell
    from transfer.bench.plan import BenchPlan

EMBED = "embed"
USUAL_PARAMS = 25.0  # millions, of a network that is not in the list of common ones
PIXELS_PARAMS = 0.1  # of `pixels`, which has no network
MIN_TRAIN_ROWS = 640  # fine-tuning takes at least as many steps as for these


class BenchWork:
    """Reports the progress of a benchmark, encoder by encoder."""

    def __init__(self, plan: "BenchPlan", progress: Callable[[int], None]):
        """progress: takes the number of finished cells; a `Progress` made with `count_work(plan)` also learns what took the time."""
        self.plan = plan
        self.progress = progress if isinstance(progress, Progress) else Progress(len(plan), {}, _call_with_new_cells(progress))
        self.to_embed: dict[str, float] = {}

    def start_encoder(self, entry: "EncoderEntry") -> None:
        """The next encoder begins; what was left to embed of the last one was in the cache."""
        self.end_encoder()
        self.weight = forward_cost(entry.card)
        self.to_embed = {EMBED: units_to_embed(self.plan, entry)}

    def end_encoder(self) -> None:
        """Takes off what the encoder did not have to embed."""
        self.progress.skip(0, self.to_embed)
        self.to_embed = {}

    def embedded(self, images: int) -> None:
        """The images were embedded since the last report."""
        units = min(images * self.weight, self.to_embed.get(EMBED, 0.0))
        self.to_embed[EMBED] = self.to_embed.get(EMBED, 0.0) - units
        self.progress.spend(EMBED, units)

    def finish_cell(self, entry: "EncoderEntry", cell: "Cell", was_computed: bool) -> None:
        """A cell is finished: it was computed, or taken from its record, or it failed."""
        own = cell.identity
        kind = cell_kind(own.protocol, own.fraction, own.patients)
        units = cell_units(entry.card, cell.split, count_fits(self.plan, own.protocol))
        if was_computed:
            self.progress.spend(kind, units)
            self.progress(1)
        else:
            self.progress.skip(1, {kind: units})

    def skip_encoder(self, entry: "EncoderEntry") -> None:
        """The encoder has no weights here: none of its work is done."""
        work = {EMBED: self.to_embed.pop(EMBED, 0.0)}
        n = 0
        for kind, units in list_cells(self.plan, entry):
            work[kind] = work.get(kind, 0.0) + units
            n += 1
        self.progress.skip(n, work)


def count_work(plan: "BenchPlan") -> dict[str, float]:
    """Kind of work -> units, of the whole plan."""
    work: dict[str, float] = {EMBED: 0.0}
    for entry in plan.entries:
        work[EMBED] += units_to_embed(plan, entry)
        for kind, units in list_cells(plan, entry):
            work[kind] = work.get(kind, 0.0) + units
    return work


def list_cells(plan: "BenchPlan", entry: "EncoderEntry") -> Iterator[tuple[str, float]]:
    """(kind, units) of every cell of an encoder."""
    for loaded in plan.tasks:
        for protocol in plan.protocols_of(entry):
            for portion in plan.portions[loaded.task.name]:
                kind = cell_kind(protocol, portion.fraction, portion.patients)
                yield kind, cell_units(entry.card, portion.split, count_fits(plan, protocol))


def units_to_embed(plan: "BenchPlan", entry: "EncoderEntry") -> float:
    """The images of all tasks, those of a store once, times the cost of one; 0 if no protocol takes features."""
    if all(is_trained(plan, protocol) for protocol in plan.protocols_of(entry)):
        return 0.0
    images: dict[str, int] = {}
    for task in (component for loaded in plan.tasks for component in loaded.components):
        used = int((task.split.part != "").sum())
        n = len(task.key) if used > len(task.key) // 2 else used  # as LazyFeatures does
        images[task.store.fingerprint] = max(images.get(task.store.fingerprint, 0), n)
    return sum(images.values()) * forward_cost(entry.card)


def cell_kind(protocol: str, fraction: float, patients: int | None) -> str:
    """Cells of one protocol at one label fraction take similar times per row."""
    return f"{protocol} at {patients} patients" if patients else f"{protocol} at {fraction:g}"


def cell_units(card: Card, split: Split, trainings: float) -> float:
    """The rows that the cell uses; if the network is trained, train rows times the cost of an image.

    trainings: of the network, several in a search; 0: none."""
    if trainings:
        return max(len(split.rows("train")), MIN_TRAIN_ROWS) * forward_cost(card) * trainings
    return max(float(np.count_nonzero(split.part != "")), 1.0)


def count_fits(plan: "BenchPlan", protocol: str) -> float:
    """How many whole trainings of the network a cell takes: 0 without any, 1, or those of all rungs of a search."""
    cfg = plan.protocols[protocol][1]
    if isinstance(cfg, SearchGroup) and cfg.search.space:
        return count_trainings(plan_rungs(cfg.search.trials, cfg.search.factor, cfg.model_dump()["evaluations"]))
    return float(is_trained(plan, protocol))


def is_trained(plan: "BenchPlan", protocol: str) -> bool:
    """Whether the protocol trains the network, and so takes images in place of features."""
    return plan.protocols[protocol][0].NEEDS == "images"


def forward_cost(card: Card) -> float:
    """How long an image takes, relative to a network of a million parameters at 224 pixels: right within a factor of about two."""
    if card.parts:
        return sum(forward_cost(part) for part in card.parts)
    params = PIXELS_PARAMS
    if has_network(card):
        params = common_archs()[card.arch]["params"] if card.arch in common_archs() else USUAL_PARAMS
    return params * (card.preprocess.size / 224) ** 2


def _call_with_new_cells(progress: Callable[[int], None]) -> Callable[[Progress], None]:
    """Calls a plain function with the number of cells that finished since its last call."""
    told = 0

    def show(state: Progress) -> None:
        nonlocal told
        if state.done > told:
            progress(state.done - told)
            told = state.done

    return show
