"""Evidence about the data: sources, exclusions, labels, parts and cases."""

from collections.abc import Iterator

import numpy as np

from encoders.ingest.quarantine import read_quarantine
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from transfer.records.record import Record
from transfer.report.checklist.facts import Evidence, StudyFacts
from transfer.report.task_source import TaskSource
from transfer.tables.subgroups import list_shown_columns
from transfer.tasks.group_columns import is_age_column, name_groups, order_groups
from transfer.tasks.options import PARTS
from transfer.tasks.recipes import load_recipe

MAX_NAMED_LABELS = 14  # a longer list of labels is shortened
SITE_WORDS = ("site", "center", "centre", "hospital", "institution")


def list_tasks_with_sources(facts: StudyFacts) -> Iterator[tuple[str, Record, TaskSource | str]]:
    """Task, its record with the most labels, and its source or why there is none."""
    for task, record in facts.by_task.items():
        yield task, record, facts.sources[task]


def data_sources(facts: StudyFacts) -> Evidence:
    """Data set, size, hashes, and the citation of a recipe."""
    lines, gaps = [], []
    for task, record, source in list_tasks_with_sources(facts):
        hashes = f"pixels {record.identity.store[:12]}, labels {record.identity.labels[:12]} (hashes)"
        if isinstance(source, str):
            lines.append(f"{task}: {hashes}")
            gaps.append(f"name and size of the data set of {task} ({source})")
            continue
        lines.append(f"{task}: data set {source.store.dataset}, {len(source.store):,} images, {source.store.modality}; {hashes}")
        try:
            recipe = load_recipe(source.task.recipe) if source.task.recipe else None
        except InputError:
            recipe = None
        if recipe is not None:
            lines.append(f"{task}, recipe {source.task.recipe}: {recipe.citation}. Licence: {recipe.licence}. Access: {recipe.get}")
    return Evidence(tuple(lines), tuple(gaps))


def exclusions(facts: StudyFacts) -> Evidence:
    """How many stored images are used, and why others are not."""
    lines, gaps = [], []
    for task, record, source in list_tasks_with_sources(facts):
        if isinstance(source, str):
            gaps.append(f"excluded images of {task} ({source})")
            continue
        known = np.asarray(np.isfinite(source.targets.y).any(axis=1))
        unreadable = sum(len(read_quarantine(path)) for path in source.store.paths)
        words = [f"{len(known):,} images in the store", f"{int((~known).sum()):,} of them without a usable label (excluded)"]
        if source.task.keep:
            words.append(f"only the classes {', '.join(source.task.keep)} are kept")
        if record.identity.folds == 1 and record.identity.fraction == 1 and set(PARTS) <= set(record.meta.counts):
            used = sum(record.meta.counts[part]["images"] for part in PARTS)
            words.append(f"{used:,} used in the parts, so {int(known.sum()) - used:,} labeled images belong to no part")
        words.append(f"{unreadable:,} files could not be read at ingest")
        lines.append(f"{task}: {'; '.join(words)}")
    return Evidence(tuple(lines), tuple(gaps))


def part_counts(facts: StudyFacts) -> Evidence:
    """Patients and images of every part."""
    lines = []
    for task, record in facts.by_task.items():
        counts = "; ".join(f"{part} {c['patients']:,} patients, {c['images']:,} images" for part, c in record.meta.counts.items())
        folds = f" (fold {record.identity.fold + 1} of {record.identity.folds})" if record.identity.folds > 1 else ""
        lines.append(f"{task}{folds}: {counts}")
    return Evidence(tuple(lines))


def event_counts(facts: StudyFacts) -> Evidence:
    """Images with each label among the validation and test images. Train labels are not in a record."""
    lines = []
    for task, record in facts.by_task.items():
        for part in ("val", "test"):
            y = record.arrays[f"{part}_y"]
            counts = [f"{name} {int((y[:, c] > 0.5).sum())} of {int(np.isfinite(y[:, c]).sum())}" for c, name in _named(record)]
            lines.append(f"{task}, {part}: {', '.join(counts)}{_more(record)}")
    return Evidence(tuple(lines))


def missing_labels(facts: StudyFacts) -> Evidence:
    """Unknown labels of validation and test images, and how uncertain and blank ones are read."""
    lines, gaps = [], []
    for task, record, source in list_tasks_with_sources(facts):
        unknown = [
            f"{name} {int(n)} of {len(y)} ({part})"
            for part in ("val", "test")
            for y in [record.arrays[f"{part}_y"]]
            for c, name in _named(record)
            if (n := np.isnan(y[:, c]).sum())
        ]
        answer = f"unknown labels: {', '.join(unknown)}" if unknown else "no label of a validation or test image is unknown"
        lines.append(f"{task}: {answer}. Unknown labels are neither trained on nor scored; nothing is imputed")
        if isinstance(source, str):
            gaps.append(f"policy for uncertain and blank labels of {task} ({source})")
        else:
            policy = source.task.policy
            uncertain = f"uncertain labels ({policy.mark:g}): {policy.uncertain}" if policy.uncertain else "no policy for uncertain labels"
            lines.append(f"{task}: {uncertain}; blank labels: {policy.blank}")
    return Evidence(tuple(lines), tuple(gaps))


def acquisition(facts: StudyFacts) -> Evidence | None:
    """Resolution and the columns about views and sites that the stores hold."""
    lines = []
    for task, _, source in list_tasks_with_sources(facts):
        if isinstance(source, str):
            continue
        geometry = source.store.attrs.get("geometry") or {}
        words = [f"{geometry['mpp']} micrometres a pixel"] if geometry.get("mpp") else []
        columns = sorted({name for part in source.store.parts for name in part.groups.get("meta", ())})
        words += [f"columns stored for each image: {', '.join(columns)}"] if columns else []
        lines += [f"{task}: {'; '.join(words)}"] if words else []
    return Evidence(tuple(lines)) if lines else None


def reference_standard(facts: StudyFacts) -> Evidence:
    """The label columns, where they come from, and the classes."""
    lines, gaps = [], []
    for task, record, source in list_tasks_with_sources(facts):
        classes = f"{record.meta.kind}, {', '.join(name for _, name in _named(record))}{_more(record)}"
        if isinstance(source, str):
            lines.append(f"{task}: {classes}")
            gaps.append(f"label column of {task} ({source})")
            continue
        t = source.task
        columns = f"findings listed in column {t.findings.column}" if t.findings else f"label column{'s' if len(t.labels) > 1 else ''} "
        columns += "" if t.findings else ", ".join(t.labels[:MAX_NAMED_LABELS])
        lines.append(f"{task}: {columns} of {'a CSV file' if t.csv else f'the data set {source.store.dataset}'}; {classes}")
    return Evidence(tuple(lines), tuple(gaps))


def partition_rule(facts: StudyFacts) -> Evidence:
    """How images were assigned to the parts."""
    lines, gaps = [], []
    for task, record, source in list_tasks_with_sources(facts):
        i = record.identity
        lines.append(f"{task}: split {i.partition[:12]} (hash of the images of each part)")
        if i.folds > 1:
            lines.append(f"{task}: cross-validation with {i.folds} folds of patients; each patient is tested once")
        if isinstance(source, str):
            gaps.append(f"rule of the split of {task} ({source})")
        elif source.task.split.source is None:
            rule = source.task.split
            shares = f"shares val {rule.val:g}, test {rule.test:g}" if i.folds == 1 else f"share val {rule.val:g}"
            lines.append(f"{task}: random by patient, balanced by label, {shares}, seed {rule.seed}")
        else:
            rule = source.task.split
            gaps.append(f"how the source of {task} made the stored split")
            drawn = f"if it has no validation part, {rule.val:.0%} of the train patients are drawn for it, seed {rule.seed}"
            lines.append(f"{task}: stored split ({rule.source}); {drawn}")
    return Evidence(tuple(lines), tuple(gaps))


def disjoint_parts(facts: StudyFacts) -> Evidence:
    """The level at which parts are disjoint, counted where a record shows it, and the leaks that were allowed."""
    lines, gaps = [], []
    for task, record, source in list_tasks_with_sources(facts):
        shared = len(set(record.arrays["val_patient"].tolist()) & set(record.arrays["test_patient"].tolist()))
        lines.append(f"{task}: {shared} patients are in both the validation and the test part")
        if isinstance(source, str):
            gaps.append(f"whether the images of {task} name their patients ({source})")
        else:
            unnamed = int((source.store.column("patient").astype(str) == source.store.column("key").astype(str)).sum())
            if unnamed:
                lines.append(f"{task}: {unnamed:,} of {len(source.store):,} images name no patient; each counts as a patient of its own")
                gaps.append(f"whether images of one patient are in two parts of {task}: not all images name their patient")
            if source.task.split.patients_by_split:
                gaps.append(f"equal patient ids in two parts of {task} were declared to be different patients")
        gaps += [f"{shared} patients of {task} in two parts"] if shared else []
    leaks = facts.redactor.redact_all(f"{r.identity.task}: {leak}" for r in facts.records for leak in r.meta.leakage)
    if leaks:
        gaps += [f"leak that was allowed: {leak}" for leak in leaks]
    else:
        lines.append(
            "The benchmark refuses shared patients and identical images between parts, and between the test part and the manifests of "
            "pretrained encoders; no leak was allowed"
        )
    return Evidence(tuple(lines), tuple(gaps))


def leak_warnings_of_records(facts: StudyFacts) -> Evidence | None:
    """Warnings and allowed leaks of the records, without patients."""
    texts = [f"{r.identity.task}: {text}" for r in facts.records for text in (*r.meta.leakage, *r.meta.warnings)]
    lines = facts.redactor.redact_all(texts)
    return Evidence(tuple(lines), related=True) if lines else None


def sample_size(facts: StudyFacts) -> Evidence:
    """The achieved numbers of test patients: no plan."""
    lines = [f"{task}: {r.meta.counts['test']['patients']:,} test patients" for task, r in facts.by_task.items() if "test" in r.meta.counts]
    return Evidence((*lines, "achieved numbers; the records state no planned sample size"), related=True)


def data_subsets(facts: StudyFacts) -> Evidence:
    """Label fractions and draws that were used in training."""
    lines = []
    for task in facts.by_task:
        used: dict[str, set[int]] = {}
        for i in (r.identity for r in facts.records if r.identity.task == task):
            share = "all" if i.fraction == 1 else f"{i.fraction:.3g}"
            share = f"{i.patients} patients" if i.patients is not None else f"{share} of the train patients"
            used.setdefault(share, set()).add(i.draw)
        text = ", ".join(f"{share} ({len(draws)} draw{'s' if len(draws) > 1 else ''})" for share, draws in used.items())
        lines.append(f"{task}: labels used for training: {text}")
    return Evidence(tuple(lines))


def case_characteristics(facts: StudyFacts) -> Evidence | None:
    """Sex, age, view and site of the test images, as far as the store holds them."""
    lines = []
    for task, record in facts.by_task.items():
        lines += [f"{task}, test images, {name}: {summarize_group(name, record.groups[name])}" for name in list_shown_columns(record)]
    return Evidence(tuple(lines)) if lines else None


def summarize_group(name: str, values: Array) -> str:
    """`F 40, M 38, not stated 2`, or median and range of an age."""
    if is_age_column(name) and values.dtype.kind in "fiu":
        known = values[np.isfinite(values.astype(float))].astype(float)
        ages = f"median {np.median(known):.0f} years, {known.min():.0f} to {known.max():.0f}" if len(known) else "none known"
        return f"{ages}; not stated {len(values) - len(known)}"
    names = name_groups(name, values)
    return ", ".join(f"{group} {int((names == group).sum())}" for group in order_groups(name, names))


def sites(facts: StudyFacts) -> Evidence | None:
    """The sites of the test images, if the store has a column about them."""
    lines = [
        f"{task}, test images, {name}: {summarize_group(name, record.groups[name])}"
        for task, record in facts.by_task.items()
        for name in list_shown_columns(record)
        if any(word in name.lower() for word in SITE_WORDS)
    ]
    return Evidence(tuple(lines)) if lines else None


def _named(record: Record) -> list[tuple[int, str]]:
    return list(enumerate(record.meta.classes))[:MAX_NAMED_LABELS]


def _more(record: Record) -> str:
    left = len(record.meta.classes) - MAX_NAMED_LABELS
    return f" and {left} more" if left > 0 else ""
