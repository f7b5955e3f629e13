"""The settings of an encoder's W&B run: the columns by which one filters, groups and plots benchmarks."""

from collections.abc import Iterable, Mapping, Sequence

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.store.store import Store
from encoders.zoo.card import Card
from encoders.zoo.names import short_name
from encoders.zoo.pretraining_columns import describe_pretraining
from transfer.records.record import Record
from transfer.tables.rows import Section
from transfer.tasks.task import read_task, to_absolute_path

# Of the table of runs in a saved workspace.
SHOWN_COLUMNS = (
    "encoder.role", "encoder.method", "encoder.architecture", "encoder.pretraining_images", "encoder.epochs", "encoder.pretraining_dataset",
    "encoder.size", "encoder.seed", "encoder.licence",
)  # fmt: skip


def describe_benchmarked_encoder(name: str, card: Card, sections: Sequence[Section]) -> dict[str, Json]:
    """`encoder`: what the encoder is; `bench`: what it was tested on; `versions`, `gpu` and `slurm_job` of its results."""
    records = encoder_records(name, sections)
    first = records[0].meta
    tested = [section for section in sections if any(r.identity.encoder == name for row in section.rows for r in row.records)]
    encoder = describe_pretraining(card) | {
        "name": short_name(name),
        "role": first.role,
        "size": first.size or card.preprocess.size,
        "sha256": "+".join(sorted({r.identity.encoder_sha256 for r in records})),
        "seed": card.config.get("seed") if card.config else first.pretraining_seed,
    }
    task_names = sorted({section.task for section in tested})
    bench: dict[str, Json] = {
        "tasks": task_names,
        "protocols": sorted({section.protocol for section in tested}),
        "datasets": list_datasets(sorted({r.identity.task for r in records})),
        "seeds": sorted({r.identity.seed for r in records}),
        "label_fractions": sorted({r.identity.fraction for r in records}),
        "precision": _join_different(r.identity.precision for r in records),
        "results": len(records),
    }
    return {
        "encoder": encoder,
        "bench": bench,
        "versions": first.versions,
        "device": _join_different(r.meta.device for r in records),
        "gpu": _join_different(r.meta.computed_on.get("gpu", "") for r in records),
        "slurm_job": _join_different(r.meta.computed_on.get("slurm_job", "") for r in records),
    }


def list_encoder_tags(encoder: Mapping[str, Json], tested: Sequence[str]) -> tuple[str, ...]:
    """Role, method, architecture, modality and pretraining data of the encoder, and the tested tasks."""
    named = [encoder.get(key) for key in ("role", "method", "architecture", "modality", "pretraining_dataset")]
    return tuple(str(name) for name in ["bench", *named, *tested] if name)


def encoder_records(name: str, sections: Sequence[Section]) -> list[Record]:
    """Every record of an encoder, each once."""
    found = [r for section in sections for row in section.rows for r in row.records if r.identity.encoder == name]
    return list(dict.fromkeys(found))


def list_datasets(task_names: Sequence[str]) -> list[str]:
    """The names of the data sets of these tasks; a task that is not registered here any more, or whose store is gone, is left out."""
    names: list[str] = []
    for task in task_names:
        try:
            names.append(Store.open([to_absolute_path(path) for path in read_task(task).store]).dataset)
        except (InputError, OSError):
            continue
    return list(dict.fromkeys(names))


def _join_different(values: Iterable[object]) -> str:
    """The different values, joined: W&B groups by text."""
    return "+".join(dict.fromkeys(str(value) for value in values if value))
