"""The bench: every encoder on every task with every protocol. Cells with a finished record are read from it, the others are computed.

Encoders are the outer loop, so that one network at a time is in memory and a store is embedded once for all of its tasks and protocols.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.config import Config, json_digest, load_config
from encoders.runtime.errors import InputError
from encoders.runtime.local_notes import LOCAL_ERRORS, prints_to_job_log, relative_to_home
from encoders.runtime.storage_errors import name_lost
from encoders.store.verified import require_intact
from transfer.bench import baselines, cell, external, leaks, preprocess_check, start_check
from transfer.bench.baselines import EncoderEntry
from transfer.bench.diagnosis import add_diagnosis
from transfer.bench.fit_places import find_fit_place, log_looks_of_training
from transfer.bench.lazy_features import LazyFeatures
from transfer.bench.plan import BenchPlan, BenchRequest
from transfer.bench.record_names import has_same_patients, name_ids_again
from transfer.bench.shifts import SHIFTS, VERSION, check_shifts
from transfer.bench.slide_bags import gather_slides
from transfer.bench.work import BenchWork
from transfer.leakage import check
from transfer.protocols import find_protocol, resolve_protocol
from transfer.protocols.contract import AnyProtocol
from transfer.records import record
from transfer.records.ledger import ledger_path
from transfer.records.record_ids import has_own_ids, write_as_in
from transfer.records.scored_images import write_scored_images
from transfer.strategies.names import parse_strategy, protocol_of_strategy, split_protocol, split_search
from transfer.strategies.settings import StrategySettings
from transfer.tasks.folds_and_fractions import build_portions
from transfer.tasks.load import LoadedTask, load_task
from transfer.tasks.task import choose_tasks

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder

LogLine = Callable[[str], None]


@dataclass
class BenchResult:
    """The records of all cells, computed or reused, and the encoders that are missing, with the reason."""

    records: list[record.Record] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    reused: int = 0

    @property
    def failed(self) -> list[record.Record]:
        return [r for r in self.records if r.meta.status == "failed"]


def load_protocols(
    names: Sequence[str], seed: int, overrides: Sequence[str] = (), device: str = "cpu"
) -> dict[str, tuple[AnyProtocol, Config]]:
    """Each protocol with its settings, by its name in records, which has the strategy. overrides: `linear.steps=9`.

    Raises InputError for an unknown protocol or setting.

    device: of the bench. A setting `precision: auto` becomes what it means there, which the record then says."""
    for text in overrides:
        if "." not in text.partition("=")[0]:
            raise InputError(f"{text!r} names no protocol; write PROTOCOL.SETTING=VALUE, e.g. {next(iter(names), 'linear')}.{text}")
    for name in [*names, *(o.partition(".")[0] for o in overrides)]:
        find_protocol(name)
        if trials := split_search(name)[1]:
            raise InputError(f"{name} is the name of a search in records; write --protocol finetune --search SPACE --trials {trials}")
    loaded: dict[str, tuple[AnyProtocol, Config]] = {}
    for name in dict.fromkeys(names):
        base, strategy = split_protocol(name)
        own = [o.partition(".")[2] for o in overrides if o.partition(".")[0] == base]
        cfg: Config = load_config(find_protocol(name).load().Config, None, [*own, *(parse_strategy(strategy) if strategy else [])])
        cfg = cfg.model_copy(update={"seed": seed}) if "seed" in type(cfg).model_fields else cfg
        if has_own_precision(cfg):
            from encoders.runtime.arithmetic import resolve_training_precision  # imports torch

            cfg = cfg.model_copy(update={"precision": resolve_training_precision(cfg.model_dump()["precision"], device)})
        loaded[protocol_of_strategy(cfg) if isinstance(cfg, StrategySettings) else name] = resolve_protocol(name, cfg), cfg
    return loaded


def has_own_precision(cfg: Config) -> bool:
    """Whether a protocol trains the network, in a precision of its own; the others use features in that of the bench."""
    return "precision" in type(cfg).model_fields


def plan_bench(request: BenchRequest, log: LogLine) -> BenchPlan:
    """Encoders, tasks, protocols and splits. Raises InputError for anything wrong with them, including a leak."""
    protocols = load_protocols(request.protocols, request.seed, request.overrides, request.device)
    if not request.encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    entries, missing = baselines.resolve_encoders(request.encoders, request.baselines, request.floor)
    entries, lines = add_diagnosis(entries, request.diagnose)
    for line in lines:
        log(line)
    modalities = [e.card.modality for e in entries if e.name in request.encoders]
    tasks = [load_task(task) for task in choose_tasks(request.tasks, modalities)]
    if request.external is not None:
        tasks = [external.join_external_task(tasks, request.external, request.folds, request.same_people)]
    leaks.check_declared_people(tasks, entries, request.same_people)
    leaks_and_warnings = {}
    for loaded in tasks:
        _check_images(loaded, request, protocols)
        for line in loaded.messages:
            log(f"{loaded.task.name}: {cell.hide_task_names(loaded, line) if prints_to_job_log() else line}")
        own = leaks.gather_split_leaks(loaded, request.near_duplicates)
        listed = leaks.save_leaks(loaded, own, "leaks", log)
        confirmed, suspected = check.check_leaks(loaded.task.name, own, request.allow_leakage, listed)
        for entry in entries:
            shared, uncompared = leaks.gather_pretraining_leaks(loaded, entry, request.near_duplicates)
            same_patients, comparisons = leaks.gather_pretraining_patients(loaded, entry, request.same_people)
            for comparison in comparisons:
                log(f"{loaded.task.name}: {comparison}")
            shared += same_patients
            listed = leaks.save_leaks(loaded, shared, f"leaks-{re.sub(record.UNSAFE_CHARACTERS, '_', entry.name)}", log)
            confirmed_shared, suspected_shared = check.check_leaks(loaded.task.name, shared, request.allow_leakage, listed)
            uncompared += [str(c) for c in comparisons if not c.is_complete]
            warnings = suspected + suspected_shared + uncompared + leaks.describe_label_use(loaded, entry)
            warnings += _list_mismatches(loaded, entry, entries)
            leaks_and_warnings[loaded.task.name, entry.name] = confirmed + confirmed_shared, warnings
    portions = {
        t.task.name: build_portions(t, request.fractions, request.draws, request.folds, request.patients, request.only_draw) for t in tasks
    }
    for loaded in tasks:
        tested = np.unique(np.concatenate([portion.split.rows("test") for portion in portions[loaded.task.name]]))
        if read := require_intact(loaded.store, tested.tolist()):
            log(f"{loaded.task.name}: {read:,} images verified now; all {len(tested):,} test images are as they were stored")
    return BenchPlan(entries, tasks, protocols, leaks_and_warnings, portions, missing)


def _check_images(loaded: LoadedTask, request: BenchRequest, protocols: dict[str, tuple[AnyProtocol, Config]]) -> None:
    """Raises InputError now for slides or shifts that would fail after the embedding."""
    if any(protocol.NEEDS == "bags" for protocol, _ in protocols.values()):
        gather_slides(loaded, np.flatnonzero(loaded.split.part != ""))
    if request.shifts:
        check_shifts(request.shifts, loaded.store)


def _list_mismatches(loaded: LoadedTask, entry: EncoderEntry, entries: Sequence[EncoderEntry]) -> list[str]:
    """Differences in preprocessing between an encoder, all stores of a task and the encoders that it comes from, each once."""
    stores = [component.store for component in loaded.components]
    mismatches = [w for s in stores for w in preprocess_check.list_preprocess_mismatches(entry.card, s.modality, s.attrs)]
    mismatches += start_check.list_start_differences(entry.card, start_check.find_ancestors(entry.name), [e.card for e in entries])
    return list(dict.fromkeys(mismatches))


def run_bench(
    request: BenchRequest, plan: BenchPlan, log: LogLine = print, progress: Callable[[int], None] = lambda n: None
) -> BenchResult:
    """Runs all cells of the plan. A cell that fails becomes a failed record and the others continue.

    progress: called with the number of cells that finished; a `Progress` made with `count_work(plan)` can say how long the rest takes."""
    result, work = BenchResult(missing=dict(plan.missing)), BenchWork(plan, progress)
    for entry in plan.entries:
        work.start_encoder(entry)
        encoder = baselines.load_encoder(entry, request.device, request.precision, result.missing)
        if encoder is None:
            work.skip_encoder(entry)
            continue
        for loaded in plan.tasks:
            features = LazyFeatures(encoder, loaded, request.batch, request.workers, work.embedded)
            for one_cell in build_cells(request, plan, entry, encoder, loaded):
                work.finish_cell(entry, one_cell, _run_cell(one_cell, encoder, features, request, result, log))
    work.end_encoder()
    return result


def _run_cell(
    clean: cell.Cell, encoder: "Encoder", features: LazyFeatures, request: BenchRequest, result: BenchResult, log: LogLine
) -> bool:
    """Scores the cell on unchanged test images, then under every shift; a cell with a finished record is not scored again.

    Returns whether something was computed and nothing failed."""
    from transfer.protocols.common import validation_score

    todo = []
    for one_cell in [clean, *build_shifted_cells(clean, request.shifts)]:
        known = None if request.recompute else record.find_finished_record(one_cell.identity)
        if known is None or not has_same_patients(one_cell, known):
            todo.append(one_cell)
            continue
        result.records.append(restamp_record(known, one_cell, request.near_duplicates))
        result.reused += 1
    failed = False
    own = f"{clean.identity.encoder}, {clean.identity.task}, {clean.identity.protocol}"
    place = find_fit_place(clean, lambda line: log(f"{own}: {line}")) if todo else None
    if place is not None and place.is_used:
        log(f"{own}: goes on from where it was interrupted")
    with name_lost(f"the result of {own}", "finished results are saved; rerun the same command to resume"):
        for new in cell.run_cells(todo, encoder, features, validation_score, None, place) if todo else ():
            result.records.append(record.store_record(new)[1])
            result.computed += 1
            log_looks_of_training(new)
            if new.meta.status == "failed":
                log(f"failed: {own}: {describe_failure(new)}")
                failed = True
    if place is not None and not failed:
        place.remove()
    return bool(todo) and not failed


def describe_failure(failed: record.Record) -> str:
    """Why a cell failed: on a terminal in full, in the log of a job without names, with the file that has them."""
    if not prints_to_job_log():
        return failed.local_error or str(failed.meta.error)
    return f"{failed.meta.error} (in full: {relative_to_home(record.record_path(failed.identity).parent / LOCAL_ERRORS)})"


def build_shifted_cells(clean: cell.Cell, shifts: Sequence[tuple[str, int]]) -> Iterator[cell.Cell]:
    """The cell with its test images under every (shift, strength)."""
    for shift, strength in shifts:
        amount = float(SHIFTS[shift].values[strength - 1])
        changes = {"shift": shift, "strength": strength, "amount": amount, "shift_version": VERSION}
        yield replace(clean, identity=clean.identity.model_copy(update=changes))


def restamp_record(known: record.Record, current: cell.Cell, near_duplicates: bool) -> record.Record:
    """A record with the leaks, groups, class order and recipe of this bench, which depend on more than its identity (a manifest, --near).

    The scores stay, and the test split is not used again. Without a search for near-duplicates, earlier warnings stay."""
    warnings = list(current.warnings) if near_duplicates else list(dict.fromkeys([*current.warnings, *known.meta.warnings]))
    kept = known if has_own_ids(known) else name_ids_again(known, current)
    studies = {name: write_as_in(kept, values) for name, values in cell.gather_studies(current).items()}
    arrays = {**kept.arrays_without_groups, **cell.gather_test_groups(current), **studies}
    seed = current.pretraining_seed
    changes = {"leakage": list(current.leakage), "warnings": warnings, "recipe": current.recipe, "pretraining_seed": seed}
    meta = kept.meta.model_copy(update={**changes, "order": current.loaded.task.order})
    if not meta.test_set:  # a record of an earlier version: equal identities have equal test images
        images = current.tested_images()
        write_scored_images(images, ledger_path().parent)
        meta = meta.model_copy(update={"test_set": images.digest})
    if meta == known.meta and record.hash_arrays(arrays) == known.meta.arrays:
        return known
    return record.store_record(record.Record(meta, arrays))[1]


def build_cells(request: BenchRequest, plan: BenchPlan, entry: EncoderEntry, encoder: "Encoder", loaded: LoadedTask) -> Iterator[cell.Cell]:
    """The cells of one encoder on one task."""
    leakage, warnings = plan.leaks_and_warnings[loaded.task.name, entry.name]
    for name, (protocol, cfg) in plan.protocols_of(entry).items():
        for portion in plan.portions[loaded.task.name]:
            identity = record.Identity(
                task=loaded.task.name,
                labels=loaded.labels_hash,
                encoder=entry.name,
                encoder_sha256=encoder.sha256,
                card=json_digest(entry.card),
                seed=request.seed,
                **loaded.record_identity(portion.identity),
                protocol=name,
                protocol_hash=cell.hash_protocol(name, protocol.VERSION, cfg),
                precision="fp32" if has_own_precision(cfg) else request.precision,
            )
            yield cell.Cell(
                identity=identity,
                role=entry.role,
                arch=entry.card.arch,
                size=entry.card.preprocess.size,
                loaded=loaded,
                split=portion.split,
                protocol=protocol,
                cfg=cfg,
                leakage=tuple(leakage),
                warnings=tuple(warnings),
                device=request.device,
                recipe=baselines.recipe_digest(entry.card),
                pretraining_seed=baselines.read_pretraining_seed(entry.card),
            )
