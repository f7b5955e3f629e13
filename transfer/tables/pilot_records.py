"""The records of two encoders on the same test patients, as the pilot of a planned comparison.

Shapes: N test images, C labels, R repeats (draws of the labeled patients and protocol seeds).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.zoo.names import short_name
from transfer.records.record import Identity, Record
from transfer.records.redactor import Redactor
from transfer.stats import Difference, patients_per_class
from transfer.stats.estimate import estimate_difference
from transfer.stats.factors import Position
from transfer.stats.patients import encode_patients
from transfer.stats.permutation import midranks
from transfer.stats.pilot_rows import PilotRows
from transfer.tables.comparisons import check_same_images
from transfer.tables.row_estimates import record_position, row_estimate

MIN_PILOT_PATIENTS = 10  # per class; with fewer, the error of the pilot is larger than what is planned


@dataclass(frozen=True)
class PilotChoice:
    """What the user asked for. protocol, fraction, label: None where the records have only one.  fraction: `100%`, `10%` or `20p`."""

    encoder: str
    versus: str
    task: str | None = None
    protocol: str | None = None
    fraction: str | None = None
    label: str | None = None


@dataclass(frozen=True)
class Pilot:
    """rows: the scores.  one, other: the records.  observed: the difference of the pilot as a table has it.  labels: of the mean.

    notes: what was left out, and allowed leaks."""

    rows: PilotRows
    one: list[Record]
    other: list[Record]
    observed: Difference
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def encoder(self) -> str:
        return self.one[0].identity.encoder

    @property
    def versus(self) -> str:
        return self.other[0].identity.encoder

    @property
    def draws(self) -> int:
        return len({p.draw for p in self.rows.positions})


def find_pilot(records: Sequence[Record], choice: PilotChoice) -> Pilot:
    """The pilot of a choice. Raises InputError when it names no records, or those of several settings, or records that cannot be paired."""
    usable = [r for r in records if r.meta.status == "ok" and r.identity.shift is None and r.identity.selected_on is None]
    if not usable:
        raise InputError(
            "there are no pilot records (of images without an acquisition shift, tested on the task that was trained on); "
            f"create some with `transfer bench --encoder {choice.encoder} --baseline {choice.versus}`"
        )
    usable = _select(usable, "--task", "tasks", choice.task, lambda i: i.task)
    sides = [_records_named(usable, name) for name in (choice.encoder, choice.versus)]
    if sides[0][0].identity.encoder == sides[1][0].identity.encoder:
        raise InputError(f"--encoder and --versus are both {sides[0][0].identity.encoder}; name two encoders")
    shared = set.intersection(*({r.identity.protocol for r in side} for side in sides))
    sides = [[r for r in side if r.identity.protocol in shared] for side in sides]
    if not shared:
        raise InputError(f"{choice.encoder} and {choice.versus} have no protocol in common; run `transfer bench` for both with one")
    both = _select([*sides[0], *sides[1]], "--protocol", "protocols", choice.protocol, lambda i: i.protocol)
    default = "100%" if choice.fraction is None and any(fraction_text(r.identity) == "100%" for r in both) else choice.fraction
    both = _select(both, "--fraction", "label fractions", default, fraction_text)
    settings = ("versions of the protocol or its settings", lambda i: i.protocol_hash), ("precisions of features", lambda i: i.precision)
    for word, of in (("splits", _split_of), *settings):
        _check_single(both, word, of)
    one, other = ([r for r in both if r.identity.encoder == side[0].identity.encoder] for side in sides)
    for side in (one, other):
        _check_single(side, f"weights of {side[0].identity.encoder}" if side else "", lambda i: f"{i.encoder_sha256} {i.card}")
    return _pair(one, other, choice)


def fraction_text(i: Identity) -> str:
    """The label fraction as `--fraction` names it."""
    return f"{i.patients}p" if i.patients is not None else f"{100 * i.fraction:.4g}%"


def _split_of(i: Identity) -> str:
    return f"{i.store} {i.labels} {i.partition}"


def _records_named(records: Sequence[Record], name: str) -> list[Record]:
    """The records of the encoder with this name, or with this name before its options."""
    known = {r.identity.encoder for r in records}
    exact = {e for e in known if e == name} or {e for e in known if short_name(e) == name}
    if not exact:
        raise unknown_name_error("encoder among the records", name, known, "Run `transfer bench` with it first.")
    if len(exact) > 1:
        raise InputError(f"{name} is the start of several encoders among the records; name one of {', '.join(sorted(exact))}")
    return [r for r in records if r.identity.encoder in exact]


def _select(records: Sequence[Record], option: str, kind: str, wanted: str | None, of: Callable[[Identity], str]) -> list[Record]:
    """The records with the wanted value; without one, all must have the same."""
    known = sorted({of(r.identity) for r in records})
    if wanted is None and len(known) > 1:
        raise InputError(f"the records have several {kind}; choose one with {option}: {', '.join(known)}")
    if wanted is not None and wanted not in known:
        raise InputError(f"no record with {option} {wanted}; the records have {', '.join(known)}")
    return [r for r in records if wanted is None or of(r.identity) == wanted]


def _check_single(records: Sequence[Record], kind: str, of: Callable[[Identity], str]) -> None:
    known = {of(r.identity) for r in records}
    if len(known) > 1:
        raise InputError(
            f"the records are of {len(known)} different {kind}; pass only the records of one, as files or a folder: "
            "transfer power RECORDS ... --encoder ..."
        )


def _pair(one: list[Record], other: list[Record], choice: PilotChoice) -> Pilot:
    """The pilot of two sets of records with the same task, split, protocol and label fraction."""
    ours, theirs = ({record_position(r) for r in side} for side in (one, other))
    if ours != theirs:
        raise InputError(
            f"{choice.encoder} has {len(ours)} and {choice.versus} {len(theirs)} records (folds, draws, seeds), "
            f"{len(ours & theirs)} of them in common; run `transfer bench` with both encoders and the same options"
        )
    first = one[0]
    if first.meta.episodes:
        raise InputError(
            f"{first.identity.protocol} is judged by episodes, which are not simulated; "
            "choose another protocol, for example --protocol linear"
        )
    check_same_images(one, other)
    labels = _choose_labels(first.meta.classes, choice.label)
    rows, dropped = _join_rows(one, other, labels)
    enough = _labels_with_enough(rows, [first.meta.classes[c] for c in labels])
    rare = [first.meta.classes[labels[c]] for c in range(len(labels)) if c not in enough]
    kept = [labels[c] for c in enough]
    if rare:
        rows, _ = _join_rows(one, other, kept)
    difference = estimate_difference(row_estimate(one, "auroc", kept), row_estimate(other, "auroc", kept))
    assert difference is not None  # both have the same positions
    notes = [f"{dropped} test patients without a known label are left out"] if dropped else []
    notes += [f"labels with fewer than {MIN_PILOT_PATIENTS} pilot patients in a class are left out: {', '.join(rare)}"] if rare else []
    leaks = Redactor([*one, *other]).redact_all(leak for r in (*one, *other) for leak in r.meta.leakage)
    notes += [f"LEAKAGE ALLOWED: {leak}" for leak in leaks]
    return Pilot(rows, one, other, difference, tuple(first.meta.classes[c] for c in kept), tuple(notes))


def _labels_with_enough(rows: PilotRows, names: Sequence[str]) -> list[int]:
    """The labels with MIN_PILOT_PATIENTS pilot patients in each class. Raises InputError when there is none."""
    counts = patients_per_class(rows.y, rows.patient)
    enough = [c for c, each in enumerate(counts) if each.min() >= MIN_PILOT_PATIENTS]
    if not enough:
        best = int(np.argmax(counts.min(axis=1)))
        negative, positive = counts[best]
        raise InputError(
            f"the pilot has {positive} test patients with a positive image and {negative} with a negative one of {names[best]}, at least "
            f"{MIN_PILOT_PATIENTS} of each are needed: with fewer, the error of the pilot dominates the number it gives. Benchmark more "
            "patients, or use `transfer bench --folds 5`, which tests every labeled patient"
        )
    return enough


def _choose_labels(classes: Sequence[str], label: str | None) -> list[int]:
    if label is None:
        return list(range(len(classes)))
    if label not in classes:
        raise unknown_name_error("label in the records", label, classes)
    return [classes.index(label)]


def _join_rows(one: Sequence[Record], other: Sequence[Record], labels: Sequence[int]) -> tuple[PilotRows, int]:
    """The rows of all folds for these labels, and the number of patients that are dropped because none of their labels is known.

    Scores of several folds come from several models; each fold's are replaced by their ranks before they are joined."""
    by_position = [{record_position(r): r for r in side} for side in (one, other)]
    folds = sorted({p.fold for p in by_position[0]})
    repeats = sorted({Position(0, p.draw, p.seed) for p in by_position[0]})
    if any(repeat._replace(fold=fold) not in by_position[0] for fold in folds for repeat in repeats):
        raise InputError("not every fold has the same draws and seeds among the records; run `transfer bench` again with the same options")

    def read(record: Record) -> tuple[Array, Array, FloatArray]:
        y, s, patient = record.part("test")
        order = np.argsort(record.arrays["test_key"], kind="stable")
        scores = s[order][:, list(labels)].astype(np.float64)
        return y[order][:, list(labels)], patient[order].astype(str), midranks(scores) / len(scores) if len(folds) > 1 else scores

    read_all = [[[read(side[repeat._replace(fold=fold)]) for fold in folds] for repeat in repeats] for side in by_position]
    y, patient = (np.concatenate([fold[i] for fold in read_all[0][0]]) for i in (0, 1))
    a, b = (np.stack([np.concatenate([fold[2] for fold in repeat]) for repeat in side]) for side in read_all)
    known = ~np.isnan(y).all(axis=1)
    code, patients = encode_patients(patient[known])
    sampled = any(r.identity.fraction < 1 or r.identity.patients is not None for r in one)
    rows = PilotRows(y[known], a[:, known], b[:, known], code, tuple(repeats), sampled)
    return rows, len(np.unique(patient)) - patients
