"""The page of a report: verdict, then every task, then provenance. Its sections are listed in `sections.REPORT_SECTIONS`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from encoders.runtime.html import Html, collapsible_section, tag
from encoders.runtime.page import render_bare_document
from encoders.runtime.redact import redact_text
from encoders.zoo.names import short_name
from transfer.explain.saved import SavedFolder
from transfer.records.record import Record
from transfer.records.redactor import Redactor
from transfer.records.test_usage import SplitUsage
from transfer.report import contents, provenance, tables
from transfer.report.context import Block, ReportContext
from transfer.report.notes import render_notes
from transfer.report.overview import render_matrix
from transfer.report.panels import assign_pens
from transfer.report.sections import REPORT_SECTIONS
from transfer.report.verdict_text import list_comparisons, render_headlines, render_verdict_cards
from transfer.tables import render
from transfer.tables.comparison_table import needs_comparison_table
from transfer.tables.ensemble_rows import Ensemble
from transfer.tables.matrix import build_matrix
from transfer.tables.matrix_sentence import summarize_matrix
from transfer.tables.operating_points import OperatingRule
from transfer.tables.rows import Section, group_sections
from transfer.tables.strategy_rows import StrategyLine

if TYPE_CHECKING:
    from encoders.store.store import Store

# The browser fetches nothing, whatever a name on the page contains.
CHECKPOINT_NOTE = (
    "Verdicts are about the tested checkpoints. The intervals cover the variation between test patients and between draws of the labeled "
    "patients, not between pretraining seeds."
)
RECIPE_NOTE = (
    "Where several pretraining seeds of one recipe were benchmarked, their mean is compared and the interval includes the variation "
    "between seeds: that verdict is about the recipe. All other verdicts are about the tested checkpoints."
)

RECORD_NAME = re.compile(r"^[\w.@-]+-[0-9a-f]{16}\.json$", re.ASCII)  # the file of a record, which we named


def render_page(
    records: Sequence[Record],
    sections: Sequence[Section],
    usage: Mapping[str, SplitUsage],
    refused: Mapping[str, str] | None = None,
    store: "Store | None" = None,
    made_at: str = "",
    rule: OperatingRule = OperatingRule(),
    elsewhere: Html | None = None,
    study: Sequence[Sequence[StrategyLine]] | None = None,
    explanations: Sequence[SavedFolder] = (),
    ensembles: Sequence[Ensemble] = (),
) -> str:
    """The HTML of the page. sections: of these records.  usage: split hash -> uses of its test images.

    refused: file name -> why it is no intact record.  store: source of images; None for a page without images.
    rule: how thresholds of the decisions are chosen.  elsewhere: what is said of records that are not on the page.
    study: strategies of the study that these records are, corrected with the sections by `judge_study`.
    explanations: folders of heat maps, which show patients; () for a page without.  ensembles: those whose rows are in `sections`."""
    context = ReportContext(
        records=records,
        sections=sections,
        usage=usage,
        display_names={r.identity.encoder: short_name(r.identity.encoder) for r in records} | render.shorten_names(sections),
        pens=assign_pens(sections),
        redactor=Redactor(records),
        store=store,
        rule=rule,
        study=study,
        explanations=explanations,
        ensembles=ensembles,
    )
    blocks = group_sections(sections)
    parts = [*_page_sections("first", context), *(task_section(block, context) for block in blocks), *_page_sections("page", context)]
    parts, links = contents.add_contents(parts)
    main = tag("main", page_header(context, refused or {}, made_at, links, elsewhere), *parts)
    names = ", ".join(dict.fromkeys(block[0].task for block in blocks))
    style = (files("transfer.report") / "style.css").read_text()
    return render_bare_document(f"isograft report: {names}", tag("body", main), style)


def _page_sections(scope: Literal["first", "page"], context: ReportContext) -> list[Html]:
    """The sections that are built once, from all sections of the page."""
    found = [(s.title, s.build(context.sections, context)) for s in REPORT_SECTIONS.values() if s.scope == scope]
    return [tag("section", tag("h2", title), body) for title, body in found if body is not None]


def page_header(context: ReportContext, refused: Mapping[str, str], made_at: str, links: Html, elsewhere: Html | None) -> Html:
    """Refused files and leaks, then the verdict and the table of contents."""
    alarms = []
    if refused:
        shown = [(name if RECORD_NAME.search(name) else redact_text(name), redact_text(reason)) for name, reason in refused.items()]
        files_refused = tag("ul", *(tag("li", tag("code", name), f": {reason}") for name, reason in shown))
        count = f"{len(refused)} file{'s were' if len(refused) > 1 else ' was'} refused. "
        alarms.append(tag("div", tag("b", count), "This page uses nothing from these files.", files_refused, class_="alarm"))
    leaks = provenance.allowed_leaks(context)
    if leaks:
        listed = tag("ul", *(tag("li", line) for line in leaks))
        alarms.append(tag("div", tag("b", "LEAKAGE ALLOWED. "), "The scores of these tasks are too high:", listed, class_="alarm"))
    images = "The page contains images of patients: do not share it." if context.shows_patients else "The page contains no patient images."
    origin = f"{len(context.records)} records{f', report of {made_at}' if made_at else ''}. {images} No patient is named."
    first = tag("p", "isograft report", class_="kicker")
    return tag("header", first, *alarms, tag("h1", "Verdict"), *_verdict(context), tag("p", origin, class_="note"), elsewhere, links)


def _verdict(context: ReportContext) -> list[Html]:
    """One sentence and the matrix; every comparison in words is in a part that opens on a click."""
    matrix = build_matrix(context.sections)
    top = [tag("p", summarize_matrix(matrix, context.display_names), class_="headline"), render_matrix(matrix, context.display_names)]
    comparisons = list_comparisons(context.sections)
    if not comparisons:
        return top
    note = RECIPE_NOTE if any(c.row.seeds for c in comparisons) else CHECKPOINT_NOTE
    method = "; ".join(dict.fromkeys(c.difference.method for c in comparisons))
    family = "their table" if context.study is None else "the study"
    scale = (
        f"Verdicts are corrected for all comparisons of {family} (Holm). Differences of AUROC on the same test patients ({method}). "
        "In the interval plots, values to the right of 0 are better."
    )
    count = len(comparisons)
    cards = render_verdict_cards(comparisons, context.display_names)
    headlines = render_headlines(comparisons, context.display_names)
    title = f"{'The comparison' if count == 1 else f'All {count} comparisons'} in words"
    return [*top, tag("p", note, class_="note"), collapsible_section(title, *headlines, cards, tag("p", scale, class_="note"))]


def task_section(block: Block, context: ReportContext) -> Html:
    """One task: its results, then all sections of the registry with scope "task"."""
    # The reason of a failure may name a patient: it stays in the record. Episodes have a chart.
    redacted = [replace(s, failed=[], rows=[replace(row, episodes_note="") for row in s.rows]) for s in block]
    lines = context.redactor.redact_all(render.build_captions(redacted, context.usage, {}))
    lines += render.describe_legend(block, context.display_names)
    lines += [
        f"{context.display_names[r.identity.encoder]}, {r.identity.protocol} failed; its record {r.identity.id} states the reason"
        for s in block
        for r in s.failed
    ]
    body = [tag("h2", f"Task {block[0].task}"), tables.results_table(block, context.display_names)]
    if needs_comparison_table(block):
        body.append(tables.comparison_table(block, context.display_names))
    successful = [s for s in block if s.rows]
    if successful:
        body.append(tag("p", tables.intervals_note(successful, context.display_names), class_="note"))
    body.append(render_notes(lines))
    for section in REPORT_SECTIONS.values() if successful else ():
        if section.scope == "task" and (part := section.build(successful, context)) is not None:
            body += [tag("h3", section.title), part]
    return tag("section", *body)
