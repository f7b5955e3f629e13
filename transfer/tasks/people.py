"""Who is one person: sentences about the patients of a task's stores, and the data sets that the user declares to number the same people.

Equal patient ids of two data sets are two people, unless `--same-people A,B` says otherwise.

Shapes: N images.
"""

from collections.abc import Collection, Sequence
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.unknown_values import describe_unknown
from encoders.store.patient_ids import SameNames, list_same_names, normalise_id

if TYPE_CHECKING:
    from encoders.store.store import Store


def parse_same_people(options: Sequence[str]) -> list[list[str]]:
    """The values of `--same-people`, `A,B` each, as groups of data-set names. Raises InputError for fewer than two names."""
    groups = [[name for part in text.split(",") if (name := normalise_id(part))] for text in options]
    for text, group in zip(options, groups, strict=True):
        if len(set(group)) < 2:
            raise InputError(f"--same-people {text!r} is not NAME,NAME: name two data sets that number the same people, e.g. nih,nih_test")
    return groups


def check_same_people(store: "Store", same: SameNames, others: Collection[str] = ()) -> None:
    """Raises InputError for a name that is no data set of the store or of `others`, and for pseudonyms, which no name can join."""
    known = {*store.datasets.tolist(), *others}
    for name in (normalise_id(name) for group in same for name in group):
        if name not in known:
            raise unknown_name_error("data set", name, known, "(for --same-people)")
    hidden = sorted({str(part.attrs["dataset"]) for part in store.parts if part.attrs.get("patients")})
    for dataset in hidden:
        if len(list_same_names(dataset, same)) > 1:
            raise InputError(
                f"--same-people cannot join {dataset!r}: its patients are pseudonyms made from the data set's name and PatientID, so equal "
                "patients of another data set have other pseudonyms; ingest both with one --dataset (and one --salt-file)"
            )


def describe_people(store: "Store", same: SameNames) -> list[str]:
    """Sentences about images that name no patient, and about ids that several data sets share."""
    named, messages = store.names_patient(), []
    if not named.all():
        n, counts = int((~named).sum()), store.unknown_texts("patient")
        texts = f" ({describe_unknown(counts)})" if sum(counts.values()) == n else ""
        messages.append(f"{n:,} of {len(store):,} images name no patient; each counts as a patient of its own{texts}")
    ids = {str(d): set(store.column("patient")[named & (store.datasets == d)].tolist()) for d in np.unique(store.datasets)}
    for a, b in combinations(sorted(ids), 2):
        shared = sorted(ids[a] & ids[b])
        if not shared:
            continue
        text = f"{len(shared):,} patient ids are in both data sets {a} and {b}, e.g. {', '.join(shared[:3])}"
        joined = b in list_same_names(a, same)
        messages.append(
            f"{text}; " + ("they are the same people" if joined else f"they count as different people (--same-people {a},{b} joins them)")
        )
    return messages
