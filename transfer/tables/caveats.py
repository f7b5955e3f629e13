"""Limits of a table's verdicts: whether they are about checkpoints or a recipe, and the smallest difference the test set can detect."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo.card import Card
from encoders.zoo.names import BUILTIN_PREFIXES, PIXELS, short_name
from encoders.zoo.source_status import NEVER_COMPARED, describe_source_check, is_equal_to_source, needs_source_check
from transfer.stats import MIN_PATIENTS, Difference, minimal_detectable_difference
from transfer.tables.rows import Section


def describe_seeds(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """The variation between pretraining seeds, and a caveat for verdicts on single checkpoints."""
    rows = [(s, row) for s in block for row in s.rows]
    lines = []
    for s, row in rows:
        if row.seeds:
            seeds = ", ".join(map(short_name, row.seeds))
            lines.append(
                f"{display_names[row.encoder]}, {s.protocol}: mean over {len(row.seeds)} pretraining seeds of one recipe ({seeds}); "
                f"AUROC sd {row.seed_std:.3f} over seeds; the intervals include this variation"
            )
    if any(row.difference is not None and not row.seeds and row.role == "encoder" for _, row in rows):
        lines.append("verdicts on a single encoder are about this checkpoint; another pretraining seed can give another result")
    return lines


def describe_precision(block: Sequence[Section]) -> list[str]:
    """The protocols of a block whose features were computed in another precision than fp32."""
    names = {precision: [s.protocol for s in block if s.precision == precision] for precision in dict.fromkeys(s.precision for s in block)}
    return [
        f"{', '.join(protocols)}: features computed in {precision} and stored as float32; those in fp32 are in a table of their own"
        for precision, protocols in names.items()
        if precision != "fp32"
    ]


def describe_source_checks(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """The imported encoders of a block whose features were never compared with those of their source, or differ from them."""
    lines = []
    for name in dict.fromkeys(row.encoder for s in block for row in s.rows):
        card = _find_card(name)
        if card is not None and needs_source_check(card):
            lines.append(f"{display_names[name]}: {NEVER_COMPARED}; see `encoders probe`")
        elif card is not None and is_equal_to_source(card) is False:
            lines.append(f"{display_names[name]}: {describe_source_check(card)}")
    return lines


def _find_card(name: str) -> Card | None:
    """The card of an encoder; None if it is not available locally, and for those that are their own source: built-in ones and `pixels`.

    An entry of the zoo is read here: looking up other names imports torch, which takes longer than the table."""
    try:
        if re.fullmatch(r"[\w.-]+", name) and not (Path(name) / "card.yaml").is_file():
            entry = zoo_dir() / name / "card.yaml"
            return Card.read(entry) if entry.is_file() else None
        if name.startswith(BUILTIN_PREFIXES) and not {"+", "~"} & set(name):  # not one of several parts
            return None
        from encoders.zoo.zoo import find_encoder

        return find_encoder(name).card
    except InputError:
        return None


def describe_convergence(block: Sequence[Section]) -> list[str]:
    """A warning for every encoder whose linear probe stopped at its limit of iterations before it reached its tolerance."""
    lines = []
    for s in block:
        advice = "; raise linear.max_iter" if s.protocol == "linear" else ""
        for row in s.rows:
            selections = [r.meta.selection for r in row.records]
            chosen = sum(one.get("converged") is False for one in selections)
            others = sum(one.get("converged_all") is False and one.get("converged") is not False for one in selections)
            if chosen > 0:
                lines.append(
                    f"warning: {row.encoder}, {s.protocol}: the solution did not converge in {chosen} of {len(selections)} fits{advice}"
                )
            if others > 0:
                lines.append(
                    f"warning: {row.encoder}, {s.protocol}: some other C did not converge in {others} of {len(selections)} fits, "
                    f"so that one of these may be the best{advice}"
                )
    return lines


def describe_missing_imagenet(block: Sequence[Section], missing: Mapping[str, str]) -> list[str]:
    """A caveat for every network that was benchmarked without its ImageNet weights.

    missing: baselines that are already listed as not available."""
    rows = [row for s in block for row in s.rows]
    arch = {role: {row.records[0].meta.arch for row in rows if row.role == role} for role in ("encoder", "imagenet")}
    own = {part for a in arch["encoder"] for part in a.split("+") if part != PIXELS}  # an encoder made of parts has several
    alone = sorted(a for a in own - arch["imagenet"] if f"imagenet_{a}" not in {short_name(name) for name in missing})
    return [f"no ImageNet weights of {a} were benchmarked, so this table does not compare pretraining with them" for a in alone]


def describe_family(block: Sequence[Section]) -> list[str]:
    """How the verdicts of a table are corrected, and which differences are significant only without the correction."""
    every = [c.difference for s in block for row in s.rows for c in row.comparisons]
    size = max((d.family for d in every), default=0)
    lost = sum(d.loses_to_holm for d in every)
    lines = (
        [f"verdicts are corrected for the {size} comparisons of {'the study' if size > len(every) else 'this table'} (Holm, 5 %)"]
        if size > 1
        else []
    )
    if lost:
        lines.append(f"{lost} difference{' is' if lost == 1 else 's are'} significant alone but not after Holm correction")
    return lines


def describe_rare_labels(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """The labels that the metrics leave out because a class has too few test patients, and the AUROC over all labels."""
    lines = []
    for s in block:
        if not s.rare or s.judged is None:
            continue
        names = ", ".join(f"{c.name} ({c.positive} with, {c.negative} without)" for c in s.rare)
        every = ", ".join(f"{display_names[r.encoder]}{r.labels_title} {r.all_labels['auroc']:.3f}" for r in s.rows if r.all_labels)
        lines.append(
            f"{s.protocol}: metrics are means over {len(s.judged)} of {len(s.judged) + len(s.rare)} labels with at least {MIN_PATIENTS} "
            f"test patients in each class; left out: {names}; AUROC over all labels that are defined, without a verdict: {every}"
        )
    return lines


def describe_withheld(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """Why comparisons have no verdict or no interval, each reason once with its encoders."""
    encoders: dict[tuple[str, str], list[str]] = {}
    for s in block:
        for row in s.rows:
            for c in row.comparisons:
                if c.difference.note and not c.difference.note.startswith("insufficient patients"):  # those are warnings of the row
                    encoders.setdefault((s.protocol + row.labels_title, c.difference.note), []).append(display_names[row.encoder])
    return [f"{where}: {note} ({', '.join(dict.fromkeys(names))})" for (where, note), names in encoders.items()]


def describe_detectable_differences(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """For comparisons without a detected difference, the smallest true difference that has a power of 80 %."""
    lines = []
    for s in block:
        smallest = [(row, c, detectable_difference(c.difference)) for row in s.rows if (c := row.primary) is not None]
        listed = list(dict.fromkeys(f"{display_names[row.encoder]} {value:.3f}" for row, _, value in smallest if value is not None))
        if listed:
            lines.append(
                f"{s.protocol}: 'not distinguishable' does not mean equal; "
                f"smallest AUROC difference detectable with 80 % power: {', '.join(listed)}"
            )
    return lines


def detectable_difference(d: Difference) -> float | None:
    """The minimal detectable difference of a comparison that is not distinguishable; None for others."""
    if d.reported_verdict != "not distinguishable" or not d.high > d.low:
        return None
    return minimal_detectable_difference(d)
