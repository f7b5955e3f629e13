"""The bench: every encoder on every task under every protocol, from records where there are some; then the table.

Encoders are the outer loop, so that one network at a time is in memory and a store is embedded once for all of its tasks and protocols.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from encoders.confirm import same
from encoders.runtime.config import Config, digest
from encoders.runtime.errors import InputError, unknown
from encoders.runtime.home import records_dir
from transfer import cell, external, leak, lineup, match, pairs, record
from transfer.data import Loaded, load
from transfer.external import Ask as Elsewhere
from transfer.lineup import Entry
from transfer.portions import Portion, portions
from transfer.slides import slides
from transfer.task import chosen
from transfer.task import load as by_name


@dataclass(frozen=True)
class Ask:
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
class Outcome:
    """The records of all cells, made or found, and what could not be had."""

    records: list[record.Record] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    made: int = 0
    reused: int = 0

    @property
    def failed(self) -> list[record.Record]:
        return [r for r in self.records if r.meta.status == "failed"]


@dataclass
class Plan:
    """All that is checked before the first image is embedded."""

    entries: list[Entry]
    tasks: list[Loaded]
    protocols: dict[str, tuple[Any, Config]]
    stamps: dict[tuple[str, str], tuple[list[str], list[str]]]  # (task, encoder): leaks that are allowed, warnings
    portions: dict[str, list[Portion]]
    missing: dict[str, str]

    def __len__(self) -> int:
        return len(self.entries) * len(self.protocols) * sum(len(p) for p in self.portions.values())


def protocols(names: Sequence[str], seed: int, overrides: Sequence[str] = ()) -> dict[str, tuple[Any, Config]]:
    """Module and settings of each protocol. overrides: `linear.steps=9`. Raises InputError for an unknown protocol or setting."""
    from encoders.runtime.config import load as settings
    from transfer.protocols import PROTOCOLS

    for name in [*names, *(o.partition(".")[0] for o in overrides)]:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
    chosen: dict[str, tuple[Any, Config]] = {}
    for name in dict.fromkeys(names):
        mine = [o.partition(".")[2] for o in overrides if o.partition(".")[0] == name]
        cfg = settings(PROTOCOLS[name].Config, None, mine)
        cfg = cfg.model_copy(update={"seed": seed}) if "seed" in type(cfg).model_fields else cfg
        module = getattr(PROTOCOLS[name], "module", None)  # a protocol whose presets are carried out by different modules
        chosen[name] = module(cfg) if module else PROTOCOLS[name], cfg
    return chosen


def plan(ask: Ask, say: Callable[[str], None]) -> Plan:
    """Encoders, tasks, protocols and splits. Raises InputError for whatever is wrong with them, a leak included."""
    settings = protocols(ask.protocols, ask.seed, ask.overrides)
    if not ask.encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    entries, missing = lineup.lineup(ask.encoders, ask.baselines)
    tasks = [load(task) for task in chosen(ask.tasks, [e.card.modality for e in entries if e.name in ask.encoders])]
    if ask.external is not None:
        tasks = [tested_elsewhere(tasks, ask.external, ask.folds)]
    stamps = {}
    for loaded in tasks:
        if any(module.NEEDS == "bags" for module, _ in settings.values()):
            slides(loaded, np.flatnonzero(loaded.split.part != ""))  # refuses here what it would refuse later
        if ask.shifts:
            from transfer.shifts import refuse

            refuse(ask.shifts, loaded.store)
        for line in loaded.said:
            say(f"{loaded.task.name}: {line}")
        own = leaks_of_split(loaded, ask.near)
        pictured(loaded, own, "leaks.png", say)
        sure, suspected = leak.judged(loaded.task.name, own, ask.allow_leakage)
        for entry in entries:
            met = leaks_of_encoder(loaded, entry, ask.near)
            pictured(loaded, met, f"leaks-{re.sub(record.SAFE, '_', entry.name)}.png", say)
            theirs = leak.judged(loaded.task.name, met, ask.allow_leakage)
            stores = [piece.store for piece in external.pieces(loaded)]
            unlike = list(dict.fromkeys(w for s in stores for w in match.warnings(entry.card, s.modality, s.attrs)))
            stamps[loaded.task.name, entry.name] = sure + theirs[0], suspected + theirs[1] + unlike
    parts = {t.task.name: portions(t, ask.fractions, ask.draws, ask.folds, ask.patients) for t in tasks}
    return Plan(entries, tasks, settings, stamps, parts, missing)


def tested_elsewhere(tasks: Sequence[Loaded], ask: Elsewhere, folds: int) -> external.External:
    """The one task that is selected on, joined to the one that is tested. Raises InputError when it is not one."""
    if folds > 1:
        raise InputError("--folds divides one task; an external task is tested once: leave --folds out")
    if len(tasks) != 1 or tasks[0].task.name == ask.task:
        told = ", ".join(t.task.name for t in tasks)
        raise InputError(f"--external {ask.task} needs one other task to select on, with --task; given: {told}")
    return external.joined(tasks[0], load(by_name(ask.task)), ask)


def pictured(loaded: Loaded, leaks: Sequence[leak.Leak], name: str, say: Callable[[str], None]) -> None:
    """Draws the pairs of leaks whose pixels are at hand, before anything is refused, and says where."""
    seen = pairs.picture(loaded.store, leaks, records_dir() / loaded.task.name / name)
    if seen is not None:
        say(f"{loaded.task.name}: the pairs of what leaks, or is suspected to, are in {seen}")


def leaks_of_split(loaded: Loaded, near: bool) -> list[leak.Leak]:
    """What the parts of a task's split share."""
    found = leak.between_parts(loaded.split, loaded.key, loaded.patient, loaded.sha256, loaded.task.split.patients_by_split)
    if near and loaded.store.has("phash"):
        phash, ask = loaded.store.column("phash"), partial(same, loaded.store)
        found += leak.near_between_parts(loaded.split, loaded.key, phash, loaded.sha256, ask)
    return found


def leaks_of_encoder(loaded: Loaded, entry: Entry, near: bool) -> list[leak.Leak]:
    """What an encoder's pretraining shares with the test part."""
    rows, found = loaded.split.rows("test"), []
    for name, manifest in lineup.manifests(entry.name):
        found += leak.with_manifest(name, manifest, rows, loaded.key, loaded.patient, loaded.sha256, loaded.store.datasets)
        if near and loaded.store.has("phash"):
            phash, ask = loaded.store.column("phash"), partial(same, loaded.store)
            found += leak.near_manifest(name, manifest, rows, loaded.key, phash, loaded.sha256, ask)
    return found


def bench(ask: Ask, whole: Plan, say: Callable[[str], None] = print, tick: Callable[[int], None] = lambda n: None) -> Outcome:
    """Runs all cells of the plan. One that fails becomes a failed record and the others go on."""
    outcome = Outcome(missing=dict(whole.missing))
    for entry in whole.entries:
        encoder = lineup.loaded(entry, ask.device, outcome.missing)
        if encoder is None:
            tick(len(whole) // len(whole.entries))
            continue
        for loaded in whole.tasks:
            features = Features(encoder, loaded, ask)
            for one in cells(ask, whole, entry, encoder, loaded):
                _one(one, encoder, features, ask, outcome, say)
                tick(1)
    return outcome


def _one(one: cell.Cell, encoder: Any, features: "Features", ask: Ask, outcome: Outcome, say: Callable[[str], None]) -> None:
    """The cell on its test images as they are, then under every shift; what has a record is not scored again."""
    from transfer.protocols.common import select

    todo = []
    for each in [one, *under_shifts(one, ask.shifts)]:
        known = None if ask.again else record.known(each.identity)
        if known is None or not cell.same_people(each, known):
            todo.append(each)
            continue
        outcome.records.append(stamped(known, each, ask.near))
        outcome.reused += 1
    for made in cell.run(todo, encoder, features, select) if todo else ():
        record.write(made)
        outcome.records.append(made)
        outcome.made += 1
        if made.meta.status == "failed":
            say(f"failed: {one.identity.encoder}, {one.identity.task}, {one.identity.protocol}: {made.meta.error}")


def under_shifts(one: cell.Cell, shifts: Sequence[tuple[str, int]]) -> Iterator[cell.Cell]:
    """The cell with its test images under every (shift, strength)."""
    for shift, strength in shifts:
        from transfer.shifts import SHIFTS, VERSION

        amount = float(SHIFTS[shift].values[strength - 1])
        about = {"shift": shift, "strength": strength, "amount": amount, "shift_version": VERSION}
        yield replace(one, identity=one.identity.model_copy(update=about))


def stamped(known: record.Record, one: cell.Cell, near: bool) -> record.Record:
    """A record with what this bench knows of leaks, groups and the recipe; they depend on more than its identity (on a manifest, --near).

    The scores stay, and the test split is not looked at again. Without --near the suspicions of an earlier look stay."""
    warned = list(one.warnings) if near else list(dict.fromkeys([*one.warnings, *known.meta.warnings]))
    arrays = {**{name: known.arrays[name] for name in record.ARRAYS}, **cell.groups(one)}
    about = {"leakage": list(one.leakage), "warnings": warned, "recipe": one.recipe, "pretraining_seed": one.pretraining_seed}
    meta = known.meta.model_copy(update=about)
    if meta == known.meta and record.hashed(arrays) == known.meta.arrays:
        return known
    now = record.Record(meta, arrays)
    record.write(now)
    return now


def cells(ask: Ask, whole: Plan, entry: Entry, encoder: Any, loaded: Loaded) -> Iterator[cell.Cell]:
    """The cells of one encoder on one task."""
    leakage, warned = whole.stamps[loaded.task.name, entry.name]
    base = {
        "task": loaded.task.name,
        "labels": loaded.labels_hash,
        "encoder": entry.name,
        "encoder_sha256": encoder.sha256,
        "card": digest(entry.card),
        "seed": ask.seed,
    }
    for name, (module, cfg) in whole.protocols.items():
        for portion in whole.portions[loaded.task.name]:
            identity = record.Identity(
                **base,
                **external.identity(loaded, portion.identity),
                protocol=name,
                protocol_hash=cell.protocol_hash(name, module.VERSION, cfg),
            )
            about = (entry.role, entry.card.arch, entry.card.preprocess.size, loaded, portion.split, module, cfg)
            of = lineup.recipe(entry.card), lineup.seed_of(entry.card)
            yield cell.Cell(identity, *about, tuple(leakage), tuple(warned), ask.device, *of)


class Features:
    """The pooled features of a task's store, embedded at the first call: a bench from records embeds nothing."""

    def __init__(self, encoder: Any, loaded: Loaded, ask: Ask):
        self.encoder, self.loaded, self.ask = encoder, loaded, ask
        self.x: np.ndarray | None = None

    def __call__(self) -> np.ndarray:
        """(N, D), a row for every image of the store; rows that the task does not use may be zero."""
        if self.x is None:
            self.x = self._embedded()
        return self.x

    def under(self, shift: str, strength: int, rows: np.ndarray) -> np.ndarray:
        """(M, D) of the given rows, their images under an acquisition shift."""
        from encoders.embed import features
        from transfer.shifts import Shifted

        store = Shifted(self.loaded.store, shift, strength)
        return features(self.encoder, store, index=rows, batch=self.ask.batch, workers=self.ask.workers)

    def _embedded(self) -> np.ndarray:
        from encoders.embed import features

        if len(pieces := external.pieces(self.loaded)) > 1:
            return np.concatenate([Features(self.encoder, piece, self.ask)() for piece in pieces])
        used = np.flatnonzero(self.loaded.split.part != "")
        n = len(self.loaded.key)
        # Nearly all: embed all, so that tasks on the same store share the cache.
        index = None if len(used) > n // 2 else used
        found = features(self.encoder, self.loaded.store, index=index, batch=self.ask.batch, workers=self.ask.workers)
        if index is None:
            return found
        whole = np.zeros((n, found.shape[1]), dtype=found.dtype)
        whole[used] = found
        return whole
