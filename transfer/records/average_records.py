"""Deep ensembles from saved records: the mean probability of several trainings of one network is the score of one further record.

Nothing is computed again: records hold the probabilities of all validation and test images. Records in memory alone; none is written.

Source: Lakshminarayanan et al. 2017, arXiv:1612.01474, sec. 2.4.

Shapes: K members, M images, C columns.
"""

import hashlib
from collections.abc import Sequence
from functools import cache

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from transfer.metrics.panel import are_probabilities
from transfer.records.cached_results import cached_result, derived_digest
from transfer.records.record import EPISODE_PREFIXES, Record
from transfer.records.score_units import CombinedArrays

ENSEMBLE_ROLE = "ensemble"


def average_records(members: Sequence[Record], name: str) -> Record:
    """The record whose scores are the mean of the members' scores. Its arrays are computed when they are used.

    members: of one fold, one draw and one protocol; (K,).  name: of the ensemble, in place of the encoder's.
    Raises InputError, when an array is used, for members with other images or labels."""
    first = members[0]
    names = [array for array in first.arrays if not array.startswith(EPISODE_PREFIXES)]
    weights = hashlib.sha256(" ".join(f"{r.identity.encoder_sha256} {r.identity.seed}" for r in members).encode()).hexdigest()
    identity = first.identity.model_copy(update={"encoder": name, "encoder_sha256": weights})
    changes = {"identity": identity, "role": ENSEMBLE_ROLE, "cost": {}, "episodes": {}, "episode_supports": {}, "recipe": ""}
    leaks = list(dict.fromkeys(leak for r in members for leak in r.meta.leakage))
    meta = first.meta.model_copy(update={**changes, "leakage": leaks})
    known = all(member.digest for member in members)
    digest = derived_digest(first, ENSEMBLE_ROLE, [member.digest for member in members]) if known else ""
    return Record(meta, CombinedArrays(names, cache(lambda: _average_arrays(members, names))), digest, first.statistics)


def place_record(ensemble: Record, member: Record) -> Record:
    """The ensemble in the place of one of its members: its fold, draw, seed and weights, so that both can be compared as a pair."""
    digest = derived_digest(ensemble, "in place of", member.digest) if member.digest else ""
    return Record(ensemble.meta.model_copy(update={"identity": member.identity}), ensemble.arrays, digest, ensemble.statistics)


def has_probability_scores(record: Record) -> bool:
    """Whether the scores of both parts are probabilities, which can be averaged."""
    parts = ("val", "test")
    return cached_result("probabilities", [record], (), bool, lambda: all(are_probabilities(record.arrays[f"{p}_scores"]) for p in parts))


def _average_arrays(members: Sequence[Record], names: Sequence[str]) -> dict[str, Array]:
    arrays = {name: members[0].arrays[name] for name in names}
    for part in ("val", "test"):
        scores = [align_scores(members[0], member, part) for member in members]
        arrays[f"{part}_scores"] = np.asarray(np.mean(scores, axis=0, dtype=np.float64))
    return arrays


def align_scores(first: Record, other: Record, part: str) -> Array:
    """(M, C) the scores of `other` in the order of the images of `first`. Raises InputError for other images or labels."""
    ours, theirs = (record.arrays[f"{part}_key"].astype(str) for record in (first, other))
    order, their_order = np.argsort(ours, kind="stable"), np.argsort(theirs, kind="stable")
    back = np.empty(len(order), dtype=np.int64)
    if np.array_equal(ours[order], theirs[their_order]):
        back[order] = their_order
        if np.array_equal(first.arrays[f"{part}_y"], other.arrays[f"{part}_y"][back], equal_nan=True):
            return other.arrays[f"{part}_scores"][back]
    i = other.identity
    raise InputError(
        f"records of {i.encoder} on {i.task} ({i.protocol}) have different {part} images or labels, so they are no ensemble; run "
        "`transfer bench` with --again"
    )
