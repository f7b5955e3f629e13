"""How often each image of a test part was scored, counted from the ledger and from the records together.

A scoring counts for an image when the image was in the set that was scored, whatever the split, its seed or the keys: a set that overlaps
counts for the images that it shares. All counts are lower bounds, as a ledger can be deleted and scores can be computed elsewhere.

Shapes: M test images of a split, U distinct ids of the images of all splits.
"""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, IntArray
from transfer.records.cached_results import cached_result
from transfer.records.looks import Look, LookLog
from transfer.records.record import Record
from transfer.records.scored_images import ID_TYPE, ScoredImages, read_scored_images
from transfer.records.validation_looks import NO_VALIDATION, ValidationUse, count_validation_use, gather_validation_looks


@dataclass(frozen=True, eq=False)
class SplitUsage:
    """Uses of a test part, as lower bounds.

    times, encoders, protocols: (M,) scorings of each image, and the distinct encoders and protocols among them.
    own: the scorings of this part.  others: the scorings of other test sets that share an image with it."""

    times: IntArray
    encoders: IntArray
    protocols: IntArray
    own: tuple[Look, ...] = ()
    others: tuple[Look, ...] = ()
    unreadable: int = 0
    validation: ValidationUse = NO_VALIDATION  # of the validation part of the same split

    @property
    def looks(self) -> tuple[Look, ...]:
        return (*self.own, *self.others)

    @property
    def typical(self) -> int:
        """Scorings of the median image: at least half of the images were scored this often or more."""
        return lower_median(self.times)

    @property
    def most(self) -> int:
        return int(self.times.max(initial=0))

    def __str__(self) -> str:
        same = self.typical == self.most == self.times.min(initial=self.most)
        by = f", by {_count(lower_median(self.encoders), 'encoder')} and {_count(lower_median(self.protocols), 'protocol')}"
        return (
            f"{'every' if same else 'the median'} test image was scored at least {_count(self.typical, 'time')}"
            f"{by if self.typical > 1 else ''}{'' if same else f'; most: {self.most:,}'}"
        )


def lower_median(values: Array) -> int:
    """The median, and of two middle values the lower one; 0 without values."""
    return int(np.sort(values)[(len(values) - 1) // 2]) if len(values) else 0


def _count(n: int, unit: str) -> str:
    return f"{n:,} {unit}{'' if n == 1 else 's'}"


def describe_usage(usage: Mapping[str, SplitUsage], splits: Sequence[str]) -> list[str]:
    """The caption about the uses of the test parts of `splits`, one split or the folds of a cross-validation; [] if none is known."""
    merged = merge_usage(usage, splits)
    if merged is None:
        return []
    folds = len(set(splits))
    line = f"{f'{folds} folds: ' if folds > 1 else ''}{merged}"
    notes = []
    if merged.others:
        of = f"{len(merged.others):,} of {_count(len(merged.looks), 'scoring')}"
        notes.append(f"{of} used another test set that shares images with this one")
    if merged.looks and not any(look.in_ledger for look in merged.looks):
        notes.append("counted from records, as there is no ledger")
    if merged.unreadable:
        notes.append(f"{_count(merged.unreadable, 'line')} of the ledger cannot be read")
    used = [str(merged.validation)] if merged.validation.looks else []
    return [f"{line} ({'; '.join(notes)})" if notes else line, *used]


def merge_usage(usage: Mapping[str, SplitUsage], splits: Sequence[str]) -> SplitUsage | None:
    """The uses of several disjoint test parts, such as those of all folds, as of one; None if none is known."""
    parts = [usage[split] for split in dict.fromkeys(splits) if split in usage]
    if len(parts) < 2:
        return parts[0] if parts else None
    times, encoders, protocols = (np.concatenate([getattr(p, name) for p in parts]) for name in ("times", "encoders", "protocols"))
    own = dict.fromkeys(look for part in parts for look in part.own)
    others = dict.fromkeys(look for part in parts for look in part.others if look not in own)
    validation = sum((part.validation for part in parts), NO_VALIDATION)
    return SplitUsage(times, encoders, protocols, tuple(own), tuple(others), max(part.unreadable for part in parts), validation)


def count_split_usage(records: Sequence[Record], log: LookLog) -> dict[str, SplitUsage]:
    """Split hash -> uses of its test part, for all splits of the records. Each distinct test set is read once."""
    sets = {digest: read_scored_images(digest, log.folders) for digest in _list_digests(records, log.looks)}
    targets = _list_targets(records, sets)
    ids = np.concatenate([np.empty(0, ID_TYPE), *(t.ids for t in targets if t.ids is not None)])
    indices = {name: np.unique(ids[name]) for name in ID_TYPE.names or ()}  # (U,) each
    for target in targets:
        target.locate(indices)
    groups: dict[str, list[Look]] = defaultdict(list)
    for look in log.looks:
        groups[look.test_set if sets.get(look.test_set) is not None else ""].append(look)
    for digest, looks in groups.items():
        images = sets.get(digest)
        members = None if images is None else {name: _find_members(index, images.ids[name]) for name, index in indices.items()}
        for target in targets:
            target.add(looks, members)
    validation = count_validation_use(gather_validation_looks(records, log.folders))
    return {
        target.split: replace(target.usage(log.unreadable), validation=validation.get(target.split, NO_VALIDATION)) for target in targets
    }


def _list_digests(records: Sequence[Record], looks: Sequence[Look]) -> set[str]:
    return ({r.meta.test_set for r in records} | {look.test_set for look in looks}) - {""}


def _find_members(index: Array, ids: Array) -> BoolArray:
    """(U,) whether each id of the sorted `index` is among `ids`."""
    found = np.zeros(len(index), dtype=bool)
    if len(index):
        wanted = np.sort(ids)  # sorted queries are found four times as fast as random ones
        at = np.minimum(np.searchsorted(index, wanted), len(index) - 1)
        found[at[index[at] == wanted]] = True
    return found


class _Target:
    """A test part whose uses are counted. ids: (M,) of its images; None if they are not stored: then uses of the same split count.

    digests: of its sets; one split has two when its images were ingested again, with the same keys."""

    def __init__(self, split: str, digests: set[str], ids: Array | None, size: int):
        self.split, self.digests, self.ids = split, digests, ids
        n = size if ids is None else len(ids)
        self.times = np.zeros(n, dtype=np.int64)
        self.seen_by: dict[str, dict[Hashable, BoolArray]] = {"encoders": {}, "protocols": {}}
        self.own: list[Look] = []
        self.others: list[Look] = []

    def locate(self, indices: Mapping[str, Array]) -> None:
        """Sets the positions of the images' ids in the sorted ids of all targets."""
        self.at = {} if self.ids is None else {name: np.searchsorted(index, self.ids[name]) for name, index in indices.items()}

    def add(self, looks: Sequence[Look], members: Mapping[str, BoolArray] | None) -> None:
        """Counts scorings of one set. members: which of the ids of all targets it has; None if its images are not stored."""
        if members is None or self.ids is None:
            looks = [look for look in looks if self._is_own(look)]
            mask = np.full(len(self.times), bool(looks))
        else:
            mask = np.logical_or.reduce([members[name][at] for name, at in self.at.items()])  # (M,)
        if not mask.any():
            return
        self.times += len(looks) * mask
        for look in looks:
            (self.own if self._is_own(look) else self.others).append(look)
        for encoder in {look.encoder_sha256 or look.encoder for look in looks}:
            self._mark("encoders", encoder, mask)
        for protocol in {(look.protocol, look.protocol_hash) for look in looks}:
            self._mark("protocols", protocol, mask)

    def _is_own(self, look: Look) -> bool:
        return look.split == self.split or look.test_set in self.digests

    def _mark(self, kind: str, name: Hashable, mask: BoolArray) -> None:
        seen = self.seen_by[kind]
        seen[name] = seen[name] | mask if name in seen else mask

    def usage(self, unreadable: int) -> SplitUsage:
        """What was counted. unreadable: lines of the ledger."""
        zeros = np.zeros(len(self.times), dtype=np.int64)
        encoders, protocols = (sum((m.astype(np.int64) for m in seen.values()), zeros) for seen in self.seen_by.values())
        return SplitUsage(self.times, encoders, protocols, tuple(self.own), tuple(self.others), unreadable)


def _count_images(record: Record) -> int:
    return cached_result("test images", [record], (), int, lambda: len(record.arrays["test_key"]))


def _list_targets(records: Sequence[Record], sets: Mapping[str, ScoredImages | None]) -> list[_Target]:
    """The test parts of all successful records."""
    digests: dict[str, set[str]] = defaultdict(set)
    latest: dict[str, Record] = {}
    for r in records:
        if r.meta.status == "ok":
            digests[r.identity.split] |= {r.meta.test_set} - {""}
            latest[r.identity.split] = r
    targets = []
    for split, own in digests.items():
        stored = [images.ids for digest in sorted(own) if (images := sets[digest]) is not None]
        ids = np.unique(np.concatenate(stored)) if len(stored) > 1 else next(iter(stored), None)
        targets.append(_Target(split, own, ids, _count_images(latest[split]) if ids is None else 0))
    return targets
