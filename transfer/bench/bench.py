"""The bench: every encoder on every task under every protocol, from records where there are some; then the table.

Encoders are the outer loop, so that one network at a time is in memory and a store is embedded once for all of its tasks and protocols.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from encoders.runtime.config import Config, json_digest
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.paths import records_dir
from encoders.similarity.pixel_check import is_same_image
from transfer.bench import baselines as lineup
from transfer.bench import cell, external, preprocess_check
from transfer.bench.baselines import EncoderEntry
from transfer.bench.external import ExternalRequest as Elsewhere
from transfer.bench.slide_bags import gather_slides
from transfer.leakage import check, pictures
from transfer.records import record
from transfer.tasks.folds_and_fractions import Portion, build_portions
from transfer.tasks.load import LoadedTask, load_task
from transfer.tasks.task import choose_tasks
from transfer.tasks.task import read_task as by_name


@dataclass(frozen=True)
class BenchRequest:
    """What the user wants benched."""

    encoders: Sequence[str]
    tasks: Sequence[str] = ()
    protocols: Sequence[str] = ("knn", "linear")
    baselines: Sequence[str] | None = None  # None: ImageNet and random weights of each architecture; []: none
    seed: int = 0
    device: str = "cpu"
    again: bool = False
    allow_leakage: bool = False
    near: bool = True
    fractions: Sequence[float] = (1.0,)
    patients: Sequence[int] = ()  # label fractions as numbers of train patients
    draws: int = 1
    folds: int = 1
    batch: int = 64
    workers: int = 0
    overrides: Sequence[str] = ()
    shifts: Sequence[tuple[str, int]] = ()  # (acquisition shift, strength 1..5) over the test images
    external: Elsewhere | None = None  # the one task is selected on, this one is tested


@dataclass
class BenchResult:
    """The records of all cells, made or found, and what could not be had."""

    records: list[record.Record] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    made: int = 0
    reused: int = 0

    @property
    def failed(self) -> list[record.Record]:
        return [r for r in self.records if r.meta.status == "failed"]


@dataclass
class BenchPlan:
    """All that is checked before the first image is embedded."""

    entries: list[EncoderEntry]
    tasks: list[LoadedTask]
    protocols: dict[str, tuple[Any, Config]]
    stamps: dict[tuple[str, str], tuple[list[str], list[str]]]  # (task, encoder): leaks that are allowed, warnings
    portions: dict[str, list[Portion]]
    missing: dict[str, str]

    def __len__(self) -> int:
        return len(self.entries) * len(self.protocols) * sum(len(p) for p in self.portions.values())


def load_protocols(names: Sequence[str], seed: int, overrides: Sequence[str] = ()) -> dict[str, tuple[Any, Config]]:
    """Module and settings of each protocol. overrides: `linear.steps=9`. Raises InputError for an unknown protocol or setting."""
    from encoders.runtime.config import load_config as settings
    from transfer.protocols import PROTOCOLS

    for name in [*names, *(o.partition(".")[0] for o in overrides)]:
        if name not in PROTOCOLS:
            raise unknown_name_error("protocol", name, PROTOCOLS)
    chosen: dict[str, tuple[Any, Config]] = {}
    for name in dict.fromkeys(names):
        mine = [o.partition(".")[2] for o in overrides if o.partition(".")[0] == name]
        cfg = settings(PROTOCOLS[name].Config, None, mine)
        cfg = cfg.model_copy(update={"seed": seed}) if "seed" in type(cfg).model_fields else cfg
        module = getattr(PROTOCOLS[name], "module", None)  # a protocol whose presets are carried out by different modules
        chosen[name] = module(cfg) if module else PROTOCOLS[name], cfg
    return chosen


def plan_bench(ask: BenchRequest, say: Callable[[str], None]) -> BenchPlan:
    """Encoders, tasks, protocols and splits. Raises InputError for whatever is wrong with them, a leak included."""
    settings = load_protocols(ask.protocols, ask.seed, ask.overrides)
    if not ask.encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    entries, missing = lineup.resolve_encoders(ask.encoders, ask.baselines)
    tasks = [load_task(task) for task in choose_tasks(ask.tasks, [e.card.modality for e in entries if e.name in ask.encoders])]
    if ask.external is not None:
        tasks = [join_external_task(tasks, ask.external, ask.folds)]
    stamps = {}
    for loaded in tasks:
        if any(module.NEEDS == "bags" for module, _ in settings.values()):
            gather_slides(loaded, np.flatnonzero(loaded.split.part != ""))  # refuses here what it would refuse later
        if ask.shifts:
            from transfer.bench.shifts import check_shifts

            check_shifts(ask.shifts, loaded.store)
        for line in loaded.said:
            say(f"{loaded.task.name}: {line}")
        own = gather_split_leaks(loaded, ask.near)
        save_leak_pictures(loaded, own, "leaks.png", say)
        sure, suspected = check.check_leaks(loaded.task.name, own, ask.allow_leakage)
        for entry in entries:
            met = gather_pretraining_leaks(loaded, entry, ask.near)
            save_leak_pictures(loaded, met, f"leaks-{re.sub(record.UNSAFE_CHARACTERS, '_', entry.name)}.png", say)
            theirs = check.check_leaks(loaded.task.name, met, ask.allow_leakage)
            stores = [piece.store for piece in external.list_component_tasks(loaded)]
            unlike = list(
                dict.fromkeys(w for s in stores for w in preprocess_check.list_preprocess_mismatches(entry.card, s.modality, s.attrs))
            )
            stamps[loaded.task.name, entry.name] = sure + theirs[0], suspected + theirs[1] + unlike
    parts = {t.task.name: build_portions(t, ask.fractions, ask.draws, ask.folds, ask.patients) for t in tasks}
    return BenchPlan(entries, tasks, settings, stamps, parts, missing)


def join_external_task(tasks: Sequence[LoadedTask], ask: Elsewhere, folds: int) -> external.ExternalTask:
    """The one task that is selected on, joined to the one that is tested. Raises InputError when it is not one."""
    if folds > 1:
        raise InputError("--folds divides one task; an external task is tested once: leave --folds out")
    if len(tasks) != 1 or tasks[0].task.name == ask.task:
        told = ", ".join(t.task.name for t in tasks)
        raise InputError(f"--external {ask.task} needs one other task to select on, with --task; given: {told}")
    return external.join_tasks(tasks[0], load_task(by_name(ask.task)), ask)


def save_leak_pictures(loaded: LoadedTask, leaks: Sequence[check.Leak], name: str, say: Callable[[str], None]) -> None:
    """Draws the pairs of leaks whose pixels are at hand, before anything is refused, and says where."""
    seen = pictures.draw_leak_pairs(loaded.store, leaks, records_dir() / loaded.task.name / name)
    if seen is not None:
        say(f"{loaded.task.name}: the pairs of what leaks, or is suspected to, are in {seen}")


def gather_split_leaks(loaded: LoadedTask, near: bool) -> list[check.Leak]:
    """What the parts of a task's split share."""
    found = check.find_part_leaks(loaded.split, loaded.key, loaded.patient, loaded.sha256, loaded.task.split.patients_by_split)
    if near and loaded.store.has("phash"):
        phash, ask = loaded.store.column("phash"), partial(is_same_image, loaded.store)
        found += check.find_near_duplicates(loaded.split, loaded.key, phash, loaded.sha256, ask)
    return found


def gather_pretraining_leaks(loaded: LoadedTask, entry: EncoderEntry, near: bool) -> list[check.Leak]:
    """What an encoder's pretraining shares with the test part."""
    rows, found = loaded.split.rows("test"), []
    for name, manifest in lineup.load_manifests(entry.name):
        found += check.find_manifest_leaks(name, manifest, rows, loaded.key, loaded.patient, loaded.sha256, loaded.store.datasets)
        if near and loaded.store.has("phash"):
            phash, ask = loaded.store.column("phash"), partial(is_same_image, loaded.store)
            found += check.find_manifest_near_duplicates(name, manifest, rows, loaded.key, phash, loaded.sha256, ask)
    return found


def run_bench(
    ask: BenchRequest, whole: BenchPlan, say: Callable[[str], None] = print, tick: Callable[[int], None] = lambda n: None
) -> BenchResult:
    """Runs all cells of the plan. One that fails becomes a failed record and the others go on."""
    outcome = BenchResult(missing=dict(whole.missing))
    for entry in whole.entries:
        encoder = lineup.load_encoder(entry, ask.device, outcome.missing)
        if encoder is None:
            tick(len(whole) // len(whole.entries))
            continue
        for loaded in whole.tasks:
            features = LazyFeatures(encoder, loaded, ask)
            for one in build_cells(ask, whole, entry, encoder, loaded):
                _run_cell(one, encoder, features, ask, outcome, say)
                tick(1)
    return outcome


def _run_cell(
    one: cell.Cell, encoder: Any, features: "LazyFeatures", ask: BenchRequest, outcome: BenchResult, say: Callable[[str], None]
) -> None:
    """The cell on its test images as they are, then under every shift; what has a record is not scored again."""
    from transfer.protocols.common import validation_score

    todo = []
    for each in [one, *build_shifted_cells(one, ask.shifts)]:
        known = None if ask.again else record.find_finished_record(each.identity)
        if known is None or not cell.has_same_patients(each, known):
            todo.append(each)
            continue
        outcome.records.append(restamp_record(known, each, ask.near))
        outcome.reused += 1
    for made in cell.run_cells(todo, encoder, features, validation_score) if todo else ():
        record.write_record(made)
        outcome.records.append(made)
        outcome.made += 1
        if made.meta.status == "failed":
            say(f"failed: {one.identity.encoder}, {one.identity.task}, {one.identity.protocol}: {made.meta.error}")


def build_shifted_cells(one: cell.Cell, shifts: Sequence[tuple[str, int]]) -> Iterator[cell.Cell]:
    """The cell with its test images under every (shift, strength)."""
    for shift, strength in shifts:
        from transfer.bench.shifts import SHIFTS, VERSION

        amount = float(SHIFTS[shift].values[strength - 1])
        about = {"shift": shift, "strength": strength, "amount": amount, "shift_version": VERSION}
        yield replace(one, identity=one.identity.model_copy(update=about))


def restamp_record(known: record.Record, one: cell.Cell, near: bool) -> record.Record:
    """A record with what this bench knows of leaks, groups and the recipe; they depend on more than its identity (on a manifest, --near).

    The scores stay, and the test split is not looked at again. Without --near the suspicions of an earlier look stay."""
    warned = list(one.warnings) if near else list(dict.fromkeys([*one.warnings, *known.meta.warnings]))
    arrays = {**{name: known.arrays[name] for name in record.ARRAY_NAMES}, **cell.gather_test_groups(one)}
    about = {"leakage": list(one.leakage), "warnings": warned, "recipe": one.recipe, "pretraining_seed": one.pretraining_seed}
    meta = known.meta.model_copy(update=about)
    if meta == known.meta and record.hash_arrays(arrays) == known.meta.arrays:
        return known
    now = record.Record(meta, arrays)
    record.write_record(now)
    return now


def build_cells(ask: BenchRequest, whole: BenchPlan, entry: EncoderEntry, encoder: Any, loaded: LoadedTask) -> Iterator[cell.Cell]:
    """The cells of one encoder on one task."""
    leakage, warned = whole.stamps[loaded.task.name, entry.name]
    base = {
        "task": loaded.task.name,
        "labels": loaded.labels_hash,
        "encoder": entry.name,
        "encoder_sha256": encoder.sha256,
        "card": json_digest(entry.card),
        "seed": ask.seed,
    }
    for name, (module, cfg) in whole.protocols.items():
        for portion in whole.portions[loaded.task.name]:
            identity = record.Identity(
                **base,
                **external.build_identity(loaded, portion.identity),
                protocol=name,
                protocol_hash=cell.hash_protocol(name, module.VERSION, cfg),
            )
            about = (entry.role, entry.card.arch, entry.card.preprocess.size, loaded, portion.split, module, cfg)
            of = lineup.recipe_digest(entry.card), lineup.read_pretraining_seed(entry.card)
            yield cell.Cell(identity, *about, tuple(leakage), tuple(warned), ask.device, *of)


class LazyFeatures:
    """The pooled features of a task's store, embedded at the first call: a bench from records embeds nothing."""

    def __init__(self, encoder: Any, loaded: LoadedTask, ask: BenchRequest):
        self.encoder, self.loaded, self.ask = encoder, loaded, ask
        self.x: np.ndarray | None = None

    def __call__(self) -> np.ndarray:
        """(N, D), a row for every image of the store; rows that the task does not use may be zero."""
        if self.x is None:
            self.x = self._embedded()
        return self.x

    def under(self, shift: str, strength: int, rows: np.ndarray) -> np.ndarray:
        """(M, D) of the given rows, their images under an acquisition shift."""
        from encoders.features.embed import extract_features
        from transfer.bench.shifts import ShiftedStore

        store = ShiftedStore(self.loaded.store, shift, strength)
        return extract_features(self.encoder, store, index=rows, batch=self.ask.batch, workers=self.ask.workers)

    def _embedded(self) -> np.ndarray:
        from encoders.features.embed import extract_features

        if len(pieces := external.list_component_tasks(self.loaded)) > 1:
            return np.concatenate([LazyFeatures(self.encoder, piece, self.ask)() for piece in pieces])
        used = np.flatnonzero(self.loaded.split.part != "")
        n = len(self.loaded.key)
        # Nearly all: embed all, so that tasks on the same store share the cache.
        index = None if len(used) > n // 2 else used
        found = extract_features(self.encoder, self.loaded.store, index=index, batch=self.ask.batch, workers=self.ask.workers)
        if index is None:
            return found
        whole = np.zeros((n, found.shape[1]), dtype=found.dtype)
        whole[used] = found
        return whole
