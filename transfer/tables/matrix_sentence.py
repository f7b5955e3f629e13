"""The first sentence of a report: what the matrix says, true whatever it holds."""

from collections import Counter
from collections.abc import Mapping, Sequence

from transfer.stats.verdict import Verdict
from transfer.tables.format import format_nonzero, format_signed
from transfer.tables.matrix import NO_VERDICT, MatrixCell, MatrixRow, VerdictMatrix

NOTHING_TO_COMPARE = "benchmark ImageNet or random weights of the same network too, or name a reference with --baseline"


def summarize_matrix(matrix: VerdictMatrix, display_names: Mapping[str, str]) -> str:
    """One sentence on the encoders against their strongest baselines, from the corrected verdicts of the matrix.

    An encoder that is a seed of a recipe is counted in its recipe. Without pretrained encoders the baselines are summarized."""
    scored = [row for row in matrix.rows if any(cell.state == "scored" for cell in row.cells)]
    if not scored:
        return "There is no result: every cell of the benchmark failed."
    leading = [row for row in scored if row.role == "encoder" and not row.is_seed]
    compared = [row for row in leading if _compared(row)]
    if not compared:
        others = [row for row in scored if row.role != "encoder" and _compared(row)]
        if leading or not others:
            return _say_nothing_to_compare(leading or scored, display_names)
        compared = others
    kind = "encoder" if leading else "baseline"
    reference = _name_reference(compared, display_names)
    sentence = (
        _say_one(display_names[compared[0].encoder], _compared(compared[0]), reference, matrix)
        if len(compared) == 1
        else _say_several(compared, reference, kind, display_names)
    )
    alone = len(leading) - len(compared) if leading else 0
    extra = [f"{alone} more {'is' if alone == 1 else 'are'} compared with nothing"] if alone > 0 else []
    extra += [caveat] if leading and (caveat := _missing_imagenet(matrix, compared)) else []
    caveats = f" ({'; '.join(extra)})" if extra else ""
    return f"{sentence}{caveats}."


def _compared(row: MatrixRow) -> list[MatrixCell]:
    return [cell for cell in row.cells if cell.verdict is not None]


def _say_nothing_to_compare(rows: Sequence[MatrixRow], names: Mapping[str, str]) -> str:
    count = len(rows)
    who = f"{names[rows[0].encoder]} was benchmarked alone" if count == 1 else f"{count} encoders were benchmarked without a baseline"
    return f"There is nothing to compare, as {who}: {NOTHING_TO_COMPARE}."


def _name_reference(rows: Sequence[MatrixRow], names: Mapping[str, str]) -> str:
    """The one reference of all cells, or `the strongest baseline`; `their reference` where some are no baselines."""
    cells = [cell for row in rows for cell in _compared(row)]
    references = {cell.reference for cell in cells}
    if len(references) == 1:
        return names.get(cells[0].reference, cells[0].reference)
    return "the strongest baseline" if all(cell.reference_role != "encoder" for cell in cells) else "the reference"


def _missing_imagenet(matrix: VerdictMatrix, compared: Sequence[MatrixRow]) -> str:
    """A caveat where the baselines of some columns do not include ImageNet weights."""
    weights = [row for row in matrix.rows if row.role == "imagenet"]
    columns = [i for i in range(len(matrix.columns)) if any(row.cells[i].verdict is not None for row in compared)]
    missing = sum(not any(row.cells[i].state == "scored" for row in weights) for i in columns)
    if missing == 0:
        return ""
    if missing == len(columns):
        return "no ImageNet weights were benchmarked"
    return f"without ImageNet weights in {missing} of {len(columns)} columns"


def _say_one(name: str, cells: Sequence[MatrixCell], reference: str, matrix: VerdictMatrix) -> str:
    """The sentence on one encoder: its only difference, or how often it is better and worse."""
    count = Counter(verdict for cell in cells if (verdict := cell.verdict) is not None)
    if len(count) > 1:
        listed = ", ".join(f"{verdict} in {n}" for verdict, n in sorted(count.items(), key=lambda item: _order(item[0])))
        return f"Compared with {reference}, {name} is {listed} of {len(cells)} comparisons"
    verdict, difference = next(iter(count)), cells[0].difference
    assert difference is not None
    every = " in both comparisons" if len(cells) == 2 else f" in all {len(cells)} comparisons" if len(cells) > 2 else ""
    if verdict in ("better", "worse"):
        size = f" by {format_nonzero(abs(difference.value)).lstrip('+')} AUROC" if not every else ""
        return f"{name} is {verdict} than {reference}{size}{every}"
    size = f": difference {format_signed(difference.value)} AUROC" if not every else ""
    if verdict in NO_VERDICT:
        reason = "neither is above chance" if verdict == "does not transfer" else verdict
        return f"{name} cannot be compared with {reference}{every}: {reason}"
    link = "from" if verdict == "not distinguishable" else "to"
    margin = f" at a margin of {difference.margin:g} AUROC" if difference.margin is not None and verdict != "not distinguishable" else ""
    return f"{name} is {verdict} {link} {reference}{margin}{every}{size}"


def _say_several(rows: Sequence[MatrixRow], reference: str, kind: str, names: Mapping[str, str]) -> str:
    """The sentence on several encoders: how many are better, worse, both, neither, or cannot be judged."""
    total = len(rows)
    groups: dict[str, list[MatrixRow]] = {"better": [], "worse": [], "both": [], "neither": [], "none": []}
    for row in rows:
        groups[_classify(row)].append(row)
    if len(groups["none"]) == total:
        reasons = Counter(cell.verdict for row in rows for cell in _compared(row))
        told = ", ".join(f"{verdict} in {n}" for verdict, n in reasons.items())
        return f"None of the {total} {kind}s can be compared with {reference}: {told} of {sum(reasons.values())} comparisons"
    words = {
        "better": "better than {} in at least one comparison and worse in none",
        "worse": "worse in at least one and better in none",
        "both": "better in some and worse in others",
        "neither": "without a significant difference",
        "none": "without any verdict",
    }
    if not groups["better"] and not groups["both"]:
        rest = _join([f"{len(groups[key])} {_be(groups[key])} {words[key]}" for key in ("worse", "neither", "none") if groups[key]])
        if len(groups["neither"]) == total:
            return f"None of the {total} {kind}s differs significantly from {reference}"
        return f"None of the {total} {kind}s is better than {reference}: {rest}"
    parts = []
    for key, same in groups.items():
        if same:
            often = _name_most_often(same, names) if key == "better" else ""
            parts.append(f"{len(same)} {_be(same)} {words[key].format(reference)}{often}")
    if not groups["better"]:
        parts[0] += f" than {reference}" if len(parts) == 1 else f" (compared with {reference})"
    return f"Of {total} {kind}s, {_join(parts)}"


def _classify(row: MatrixRow) -> str:
    verdicts = {cell.verdict for cell in _compared(row)}
    if "better" in verdicts:
        return "both" if "worse" in verdicts else "better"
    if "worse" in verdicts:
        return "worse"
    return "none" if verdicts <= set(NO_VERDICT) else "neither"


def _name_most_often(rows: Sequence[MatrixRow], names: Mapping[str, str]) -> str:
    """The encoder that is better in most comparisons, with the number; up to three in a tie, none in a larger one."""
    count = {row.encoder: sum(cell.verdict == "better" for cell in _compared(row)) for row in rows}
    top = [row for row in rows if count[row.encoder] == max(count.values())]
    if len(top) > 3:
        return ""
    who = _join([f"{names[row.encoder]} in {count[row.encoder]} of {len(_compared(row))}" for row in top])
    return f" ({who})" if len(top) == len(rows) else f" (most often {who})"


def _be(rows: Sequence[MatrixRow]) -> str:
    return "is" if len(rows) == 1 else "are"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _order(verdict: Verdict) -> int:
    return ["better", "worse", "equivalent", "not inferior", "not distinguishable", *NO_VERDICT].index(verdict)
