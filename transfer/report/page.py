"""The page: verdict first, then every task, then what stands behind the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from encoders.names import short
from encoders.runtime.html import Html, folded, join, tag
from transfer import show
from transfer.decide import Asked
from transfer.firewall import Looks, looks
from transfer.record import Record
from transfer.report import contents, embedding, groups, images, plots, robustness, saved, tables, trust
from transfer.report.curves import RESAMPLES
from transfer.report.discreet import Discreet
from transfer.report.verdict import cards, findings, full, headline
from transfer.table import Section

# Nothing may be fetched, whatever a name on the page contains.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CHECKPOINT = (
    "This is about these very checkpoints on these test patients. The intervals say what other patients would change; they do not say what "
    "another pretraining seed would change."
)
RECIPE = (
    "Where several pretraining seeds of one recipe were benched, their mean is compared, and the interval holds their spread too: that is "
    "about the recipe. Everything else is about these very checkpoints on these test patients."
)


def page(
    records: Sequence[Record],
    parts: Sequence[Section],
    lines: Sequence[dict[str, Any]],
    refused: Mapping[str, str] | None = None,
    store: Any | None = None,
    when: str = "",
    asked: Asked = Asked(),
) -> str:
    """The whole page. parts: the sections of these records.  lines: of the ledger.  refused: files that are no intact record, and why.
    store: where pictures come from, or None for a page without any.  asked: the operating rule of decisions."""
    shown = {r.identity.encoder: short(r.identity.encoder) for r in records} | show.names(parts)
    pens, discreet = plots.pens(parts), Discreet(records)
    known = {h: looks(h, known=list(lines)) for s in parts for h in s.splits}
    blocks = show.blocks(parts)
    tasks = [task(block, records, known, shown, pens, discreet, store, asked) for block in blocks]
    behind = [
        trust.leak_section(records, discreet),
        trust.ledger_section(records, lines),
        trust.protocol_section(records, parts, shown, discreet),
        trust.environment_section(records, shown),
    ]
    body, links = contents.linked([*tasks, *(tag("section", part) for part in behind)])
    body = [top(records, parts, shown, refused or {}, discreet, store, when, links), *body]
    return "<!doctype html>\n" + tag("html", head(blocks), tag("body", tag("main", *body)), lang="en")


def head(blocks: Sequence[Sequence[Section]]) -> Html:
    names = ", ".join(dict.fromkeys(block[0].task for block in blocks))
    style = Html((files("transfer.report") / "style.css").read_text())
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"isograft report: {names}"),
        tag("style", style),
    )


def top(
    records: Sequence[Record],
    parts: Sequence[Section],
    shown: Mapping[str, str],
    refused: Mapping[str, str],
    discreet: Discreet,
    store: Any | None,
    when: str,
    links: Html,
) -> Html:
    """Refusals and leaks, then the verdict."""
    alarms = []
    if refused:
        listed = tag("ul", *(tag("li", tag("code", name), f": {why}") for name, why in refused.items()))
        told = f"{len(refused)} file{'s were' if len(refused) > 1 else ' was'} refused. "
        alarms.append(tag("div", tag("b", told), "Nothing on this page comes from what is listed here.", listed, class_="alarm"))
    leaks = trust.leakage(records, discreet)
    if leaks:
        listed = tag("ul", *(tag("li", line) for line in leaks))
        alarms.append(tag("div", tag("b", "LEAKAGE ALLOWED. "), "The numbers of these tasks flatter:", listed, class_="alarm"))
    found = findings(parts)
    if found:
        about = RECIPE if any(f.row.seeds for f in found) else CHECKPOINT
        says = [*headline(found, shown), tag("p", about, class_="note"), cards(found, shown)]
        method = "; ".join(dict.fromkeys(f.difference.method for f in found))
        says.append(
            tag("p", f"Differences of AUROC on the same test patients ({method}). In the strips, right of 0 is better.", class_="note")
        )
    else:
        why = "No two encoders here may be compared: bench ImageNet or random weights beside yours, or name one with --baseline."
        says = [tag("p", why, class_="headline")]
    pictures = "With pictures of patients: not to be passed on." if store is not None else "No picture of a patient is on this page."
    made = f"{len(records)} records{f', made {when}' if when else ''}. {pictures} No patient is named."
    first = tag("p", "isograft report", class_="kicker")
    return tag("header", first, *alarms, tag("h1", "Verdict"), *says, tag("p", made, class_="note"), links)


def task(
    block: Sequence[Section],
    records: Sequence[Record],
    known: Mapping[str, Looks],
    shown: Mapping[str, str],
    pens: plots.Pens,
    discreet: Discreet,
    store: Any | None,
    asked: Asked,
) -> Html:
    """One task: table, curves, classes, decisions, calibration, pictures."""
    clean = [replace(s, failed=[]) for s in block]  # why a cell failed may name a patient: it stays in the record
    said = discreet.each(show.captions(clean, known, {})) + show.legend(block, shown)
    said += [
        f"{shown[r.identity.encoder]}, {r.identity.protocol} failed; why stands in its record {r.identity.id}"
        for s in block
        for r in s.failed
    ]
    stamp = [line for line in said if line.startswith("LEAKAGE")]
    notes = tag("ul", *(tag("li", line, class_="bad" if line.startswith(("LEAK", "warn")) else None) for line in said), class_="captions")
    body: list[Any] = [tag("h2", f"Task {block[0].task}"), tables.results(block, shown)]
    drawn = [s for s in block if s.rows]
    if drawn:
        body += [tag("p", tables.intervals_note(drawn, shown), class_="note"), notes]
        body += figures(drawn, shown, pens, stamp)
        body.append(robustness.section(drawn, records, shown, pens))
        body += details(drawn, shown, asked)
        body.append(groups.section(drawn, shown))
        body.append(images.section(drawn, store, shown))
        body.append(embedding.section(drawn, store, shown))
    else:
        body.append(notes)
    return tag("section", *body)


def figures(block: Sequence[Section], shown: Mapping[str, str], pens: plots.Pens, stamp: Sequence[str]) -> list[Any]:
    """The charts of a task under one legend."""
    mark = [tag("p", line, class_="bad") for line in stamp]
    found: list[Any] = []
    growth = [g for g in (plots.efficiency(s, pens) for s in block) if g is not None]
    if growth:
        found += [tag("h3", "With fewer labels"), *mark, plots.legend(block, shown, pens), tag("div", *growth, class_="grid")]
        found.append(tag("p", "Whiskers: 95 % interval over test patients. The spread over draws is in the table (sd).", class_="note"))
        found.append(saved.section(block, shown))
    drawings = [
        [*plots.ranking(s, pens), plots.calibrations(s, pens), plots.calibrations(s, pens, cooled=True), plots.risks(s, pens)]
        for s in block
    ]
    rows = [tag("div", *charts, class_="grid") for charts in drawings]
    found += [tag("h3", "Ranking and calibration"), *mark, plots.legend(block, shown, pens), *rows, *curve_notes(block)]
    return [*found, folded("Calibration in numbers", plots.calibration_table(block, shown))]


def curve_notes(block: Sequence[Section]) -> list[Html]:
    """What the curves show."""
    meta = block[0].rows[0].records[0].meta
    mean = "Mean curve over the classes. " if len(meta.classes) > 1 else ""
    most = max(len(full(s)) for s in block)
    cut = f"The first {plots.MOST} of {most} encoders are drawn. " if most > plots.MOST else ""
    bands = f"Bands (of the first {plots.BANDS})" if most > plots.BANDS else "Bands"
    of = " of the class that was chosen" if meta.kind == "multiclass" else ""
    said = [
        f"{mean}{cut}{bands}: pointwise 95 %, from {RESAMPLES} resamples of the test patients.",
        f"Reliability: probability{of}, ten bins of equally many answers; below the dotted line is too sure. The temperature is fitted on "
        "validation patients.",
        "Risk and coverage: the error among the answers that are given when the least sure ones are left to a person.",
    ]
    return [tag("p", line, class_="note") for line in said]


def details(block: Sequence[Section], shown: Mapping[str, str], asked: Asked) -> list[Any]:
    """Per class, operating points and confusion matrices, a protocol at a time."""
    found: list[Any] = []
    classes = [(s, t) for s in block if (t := tables.per_class(s, shown)) is not None]
    if classes:
        found.append(tag("h3", "AUROC of each class"))
        found += [join([tag("h4", tables.protocol(s)), t]) for s, t in classes]
    decided = [(s, tables.operating(s, shown, asked), tables.confusions(s, shown, asked)) for s in block]
    kind = block[0].rows[0].records[0].meta.kind
    how = "Decided by the largest score. Test images." if kind == "multiclass" else f"{asked.told()}. Test images."
    every = [folded(f"Every metric, {tables.protocol(s)}", tables.everything(s, shown, asked)) for s in block]
    found += [tag("h3", "Decisions"), tag("p", how, class_="note")]
    for i, (s, points, matrix) in enumerate(decided):
        inside = [part for part in (points, matrix) if part is not None]
        found.append(join([tag("h4", tables.protocol(s)), *inside]) if i == 0 else folded(tables.protocol(s), *inside))
    return [*found, *every]
