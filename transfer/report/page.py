"""The page: verdict first, then every task, then what stands behind the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from encoders.runtime.html import Html, collapsible_section, join_html, tag
from encoders.zoo.names import short_name
from transfer.records.record import Record
from transfer.records.test_seal import SplitUsage, count_split_usage
from transfer.report import contents, embedding, groups, images, label_savings, plots, provenance, robustness, tables
from transfer.report.curves import BAND_RESAMPLES
from transfer.report.redact import Redactor
from transfer.report.verdict import list_comparisons, render_headlines, render_verdict_cards, rows_with_most_labels
from transfer.tables import render
from transfer.tables.operating_points import OperatingRule
from transfer.tables.rows import Section

# Nothing may be fetched, whatever a name on the page contains.
CONTENT_SECURITY_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CHECKPOINT_NOTE = (
    "This is about these very checkpoints on these test patients. The intervals say what other patients would change; they do not say what "
    "another pretraining seed would change."
)
RECIPE_NOTE = (
    "Where several pretraining seeds of one recipe were benched, their mean is compared, and the interval holds their spread too: that is "
    "about the recipe. Everything else is about these very checkpoints on these test patients."
)


def render_page(
    records: Sequence[Record],
    parts: Sequence[Section],
    lines: Sequence[dict[str, Any]],
    refused: Mapping[str, str] | None = None,
    store: Any | None = None,
    when: str = "",
    asked: OperatingRule = OperatingRule(),
) -> str:
    """The whole page. parts: the sections of these records.  lines: of the ledger.  refused: files that are no intact record, and why.
    store: where pictures come from, or None for a page without any.  asked: the operating rule of decisions."""
    shown = {r.identity.encoder: short_name(r.identity.encoder) for r in records} | render.shorten_names(parts)
    pens, discreet = plots.assign_pens(parts), Redactor(records)
    known = {h: count_split_usage(h, known=list(lines)) for s in parts for h in s.splits}
    blocks = render.group_sections(parts)
    tasks = [task_section(block, records, known, shown, pens, discreet, store, asked) for block in blocks]
    behind = [
        provenance.leak_section(records, discreet),
        provenance.ledger_section(records, lines),
        provenance.protocol_section(records, parts, shown, discreet),
        provenance.environment_section(records, shown),
    ]
    body, links = contents.add_contents([*tasks, *(tag("section", part) for part in behind)])
    body = [page_header(records, parts, shown, refused or {}, discreet, store, when, links), *body]
    return "<!doctype html>\n" + tag("html", html_head(blocks), tag("body", tag("main", *body)), lang="en")


def html_head(blocks: Sequence[Sequence[Section]]) -> Html:
    names = ", ".join(dict.fromkeys(block[0].task for block in blocks))
    style = Html((files("transfer.report") / "style.css").read_text())
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=CONTENT_SECURITY_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"isograft report: {names}"),
        tag("style", style),
    )


def page_header(
    records: Sequence[Record],
    parts: Sequence[Section],
    shown: Mapping[str, str],
    refused: Mapping[str, str],
    discreet: Redactor,
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
    leaks = provenance.allowed_leaks(records, discreet)
    if leaks:
        listed = tag("ul", *(tag("li", line) for line in leaks))
        alarms.append(tag("div", tag("b", "LEAKAGE ALLOWED. "), "The numbers of these tasks flatter:", listed, class_="alarm"))
    found = list_comparisons(parts)
    if found:
        about = RECIPE_NOTE if any(f.row.seeds for f in found) else CHECKPOINT_NOTE
        says = [*render_headlines(found, shown), tag("p", about, class_="note"), render_verdict_cards(found, shown)]
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


def task_section(
    block: Sequence[Section],
    records: Sequence[Record],
    known: Mapping[str, SplitUsage],
    shown: Mapping[str, str],
    pens: plots.Pens,
    discreet: Redactor,
    store: Any | None,
    asked: OperatingRule,
) -> Html:
    """One task: table, curves, classes, decisions, calibration, pictures."""
    clean = [replace(s, failed=[]) for s in block]  # why a cell failed may name a patient: it stays in the record
    said = discreet.each(render.build_captions(clean, known, {})) + render.describe_legend(block, shown)
    said += [
        f"{shown[r.identity.encoder]}, {r.identity.protocol} failed; why stands in its record {r.identity.id}"
        for s in block
        for r in s.failed
    ]
    stamp = [line for line in said if line.startswith("LEAKAGE")]
    notes = tag("ul", *(tag("li", line, class_="bad" if line.startswith(("LEAK", "warn")) else None) for line in said), class_="captions")
    body: list[Any] = [tag("h2", f"Task {block[0].task}"), tables.results_table(block, shown)]
    drawn = [s for s in block if s.rows]
    if drawn:
        body += [tag("p", tables.intervals_note(drawn, shown), class_="note"), notes]
        body += task_figures(drawn, shown, pens, stamp)
        body.append(robustness.robustness_section(drawn, records, shown, pens))
        body += decision_details(drawn, shown, asked)
        body.append(groups.subgroup_section(drawn, shown))
        body.append(images.images_section(drawn, store, shown))
        body.append(embedding.embedding_section(drawn, store, shown))
    else:
        body.append(notes)
    return tag("section", *body)


def task_figures(block: Sequence[Section], shown: Mapping[str, str], pens: plots.Pens, stamp: Sequence[str]) -> list[Any]:
    """The charts of a task under one legend."""
    mark = [tag("p", line, class_="bad") for line in stamp]
    found: list[Any] = []
    growth = [g for g in (plots.label_efficiency_chart(s, pens) for s in block) if g is not None]
    if growth:
        found += [tag("h3", "With fewer labels"), *mark, plots.draw_legend(block, shown, pens), tag("div", *growth, class_="grid")]
        found.append(tag("p", "Whiskers: 95 % interval over test patients. The spread over draws is in the table (sd).", class_="note"))
        found.append(label_savings.label_savings_section(block, shown))
    drawings = [
        [
            *plots.ranking_charts(s, pens),
            plots.reliability_chart(s, pens),
            plots.reliability_chart(s, pens, cooled=True),
            plots.risk_chart(s, pens),
        ]
        for s in block
    ]
    rows = [tag("div", *charts, class_="grid") for charts in drawings]
    found += [tag("h3", "Ranking and calibration"), *mark, plots.draw_legend(block, shown, pens), *rows, *curve_notes(block)]
    return [*found, collapsible_section("Calibration in numbers", plots.calibration_table(block, shown))]


def curve_notes(block: Sequence[Section]) -> list[Html]:
    """What the curves show."""
    meta = block[0].rows[0].records[0].meta
    mean = "Mean curve over the classes. " if len(meta.classes) > 1 else ""
    most = max(len(rows_with_most_labels(s)) for s in block)
    cut = f"The first {plots.MAX_CURVES} of {most} encoders are drawn. " if most > plots.MAX_CURVES else ""
    bands = f"Bands (of the first {plots.MAX_BANDS})" if most > plots.MAX_BANDS else "Bands"
    of = " of the class that was chosen" if meta.kind == "multiclass" else ""
    said = [
        f"{mean}{cut}{bands}: pointwise 95 %, from {BAND_RESAMPLES} resamples of the test patients.",
        f"Reliability: probability{of}, ten bins of equally many answers; below the dotted line is too sure. The temperature is fitted on "
        "validation patients.",
        "Risk and coverage: the error among the answers that are given when the least sure ones are left to a person.",
    ]
    return [tag("p", line, class_="note") for line in said]


def decision_details(block: Sequence[Section], shown: Mapping[str, str], asked: OperatingRule) -> list[Any]:
    """Per class, operating points and confusion matrices, a protocol at a time."""
    found: list[Any] = []
    classes = [(s, t) for s in block if (t := tables.class_table(s, shown)) is not None]
    if classes:
        found.append(tag("h3", "AUROC of each class"))
        found += [join_html([tag("h4", tables.protocol_title(s)), t]) for s, t in classes]
    decided = [(s, tables.operating_table(s, shown, asked), tables.draw_confusion_matrices(s, shown, asked)) for s in block]
    kind = block[0].rows[0].records[0].meta.kind
    how = "Decided by the largest score. Test images." if kind == "multiclass" else f"{asked.told()}. Test images."
    every = [collapsible_section(f"Every metric, {tables.protocol_title(s)}", tables.all_metrics_table(s, shown, asked)) for s in block]
    found += [tag("h3", "Decisions"), tag("p", how, class_="note")]
    for i, (s, points, matrix) in enumerate(decided):
        inside = [part for part in (points, matrix) if part is not None]
        found.append(
            join_html([tag("h4", tables.protocol_title(s)), *inside]) if i == 0 else collapsible_section(tables.protocol_title(s), *inside)
        )
    return [*found, *every]
