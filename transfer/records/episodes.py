"""Few-shot episodes in a record: for every number of shots, the AUROC of each episode and the mean placement value of each test row.

Two encoders are compared episode by episode and patient by patient. That is valid only if both drew the same support sets, which the digest
of the support sets shows.

Shapes: E episodes, M test rows, C labels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from transfer.records.record import EPISODE_PREFIXES, Record


@dataclass(frozen=True)
class Episodes:
    """All episodes of one number of shots, in the order in which every encoder has them.

    auroc: (E,) mean over the labels that have both classes in the test part.  label_auroc: (E, C), NaN for the other labels.
    placement: (M, C) float32, in the order of `test_key`: the mean over episodes of the placement value of a row. For a positive row that
    is the share of the negative rows below it, for a negative row the share of the positive rows above it; ties count half. NaN where the
    label is unknown or has a single class. The mean over the positive rows is the mean of `label_auroc`.
    supports: digest of the support sets; equal digests mean the same train images in every episode."""

    auroc: Array
    label_auroc: Array
    placement: Array
    supports: str

    @property
    def mean(self) -> float:
        """The mean AUROC over episodes."""
        return float(np.mean(self.auroc))

    @property
    def std(self) -> float:
        """Standard deviation of the AUROC over episodes."""
        return float(np.std(self.auroc, ddof=1))


def episode_arrays(episodes: Mapping[int, Episodes]) -> dict[str, Array]:
    """The arrays of a record by name: `test_episode_auroc_8`, `test_episode_label_auroc_8` and `test_placement_8` for 8 shots."""
    columns = {shots: (e.auroc, e.label_auroc, e.placement) for shots, e in episodes.items()}
    return {f"{name}{shots}": array for shots, three in columns.items() for name, array in zip(EPISODE_PREFIXES, three, strict=True)}


def read_episodes(record: Record) -> dict[int, Episodes]:
    """The episodes of a record by number of shots, fewest first; {} for a protocol without episodes and for a record that has only their
    mean and standard deviation, as older versions of the protocol wrote."""
    episodes = {}
    for shots in sorted(map(int, record.meta.episode_supports)):
        auroc, label_auroc, placement = (record.arrays[f"{name}{shots}"] for name in EPISODE_PREFIXES)
        episodes[shots] = Episodes(auroc, label_auroc, placement, record.meta.episode_supports[str(shots)])
    return episodes


def pair_episodes(a: Record, b: Record, shots: int) -> tuple[Episodes, Episodes]:
    """The episodes of two records with the same support sets, so that `auroc` may be subtracted episode by episode.

    Raises InputError when a record lacks this number of shots, or when the support sets differ."""
    one, other = _find_episodes(a, shots), _find_episodes(b, shots)
    if one.supports != other.supports or len(one.auroc) != len(other.auroc):
        raise InputError(
            f"the {shots}-shot episodes of {a.identity.encoder} and {b.identity.encoder} on {a.identity.task} have different support sets "
            f"(digests {one.supports} and {other.supports}), so they cannot be paired; run `transfer bench` with --again"
        )
    return one, other


def _find_episodes(record: Record, shots: int) -> Episodes:
    known = read_episodes(record)
    if shots not in known:
        has = f"has {', '.join(map(str, known))} shots" if known else "has no single episodes"
        raise InputError(
            f"the record of {record.identity.encoder} on {record.identity.task} {has}, not {shots}; run `transfer bench --protocol fewshot`"
        )
    return known[shots]
