"""The filled checklists as one HTML page or as Markdown."""

from collections.abc import Sequence
from importlib.resources import files

from encoders.runtime.escape import escape_markdown
from encoders.runtime.html import Html, html_table, tag
from encoders.runtime.page import render_bare_document
from transfer.report.checklist.answers import Answer, answer_guideline
from transfer.report.checklist.facts import StudyFacts
from transfer.report.checklist.guidelines import Guideline, read_guidelines

CHECKLIST_HEADER = ("item", "topic", "status", "known from records, tasks, stores and cards", "for the authors")
CHECKLIST_NOTE = (
    "Filled from files of this benchmark, not from the manuscript. filled: the files answer the item; partly: they answer some of it; "
    "open: the authors must answer it. No patient is named."
)
STATUS_STYLES = {"filled": "better", "partly": None, "open": "worse"}


def render_checklist_html(facts: StudyFacts, made_at: str = "") -> str:
    """All guidelines as one HTML page that opens from disk without a network."""
    parts = [_guideline_section(g, answer_guideline(g, facts)) for g in read_guidelines()]
    origin = f"{len(facts.records) + len(facts.external) + len(facts.shifted)} records{f', {made_at}' if made_at else ''}."
    kicker = tag("p", "isograft report", class_="kicker")
    header = tag("header", kicker, tag("h1", "Reporting checklists"), tag("p", f"{CHECKLIST_NOTE} {origin}"))
    style = (files("transfer.report") / "style.css").read_text()
    return render_bare_document("isograft: reporting checklists", tag("body", tag("main", header, *parts)), style)


def _guideline_section(guideline: Guideline, answers: Sequence[Answer]) -> Html:
    body = [
        tag("h2", guideline.name),
        tag("p", tag("b", count_statuses(answers)), class_="headline"),
        tag("p", f"{guideline.citation}, ", tag("a", guideline.address, href=guideline.address), f". {guideline.wording}", class_="note"),
    ]
    for section in guideline.sections:
        rows = [_answer_row(answer) for answer in answers if answer.section == section]
        body += [tag("h3", section), html_table(CHECKLIST_HEADER, rows, "small")]
    return tag("section", *body)


def _answer_row(answer: Answer) -> list[object]:
    status = tag("td", answer.status, class_=STATUS_STYLES[answer.status], data_label="status", style="width: 7%")
    known, missing = (tag("ul", *(tag("li", line) for line in lines), class_="captions") if lines else "" for lines in answer[3:])
    return [
        answer.item.number,
        tag("td", answer.item.topic, data_label="topic", style="width: 19%"),
        status,
        tag("td", known, class_="long" if answer.known else "none", data_label="known", style="width: 42%"),
        tag("td", missing, class_=None if answer.missing else "none", data_label="for the authors", style="width: 26%"),
    ]


def render_checklist_markdown(facts: StudyFacts) -> str:
    """All guidelines as Markdown tables, to paste into a supplement."""
    out = ["# Reporting checklists", "", CHECKLIST_NOTE, ""]
    for guideline in read_guidelines():
        answers = answer_guideline(guideline, facts)
        out += [
            f"## {guideline.name}",
            "",
            f"{guideline.citation}, {guideline.address}. {guideline.wording}",
            "",
            count_statuses(answers),
            "",
        ]
        for section in guideline.sections:
            out += [f"### {section}", "", f"| {' | '.join(CHECKLIST_HEADER)} |", "|" + " --- |" * len(CHECKLIST_HEADER)]
            for answer in (a for a in answers if a.section == section):
                known, missing = ("<br>".join(map(escape_markdown, lines)) for lines in (answer.known, answer.missing))
                cells = (*map(escape_markdown, (answer.item.number, answer.item.topic, answer.status)), known, missing)
                out.append(f"| {' | '.join(cells)} |")
            out.append("")
    return "\n".join(out)


def count_statuses(answers: Sequence[Answer]) -> str:
    """`12 of 44 items filled, 20 partly, 12 open`."""
    filled, partly, unanswered = (sum(a.status == status for a in answers) for status in ("filled", "partly", "open"))
    return f"{filled} of {len(answers)} items filled, {partly} partly, {unanswered} open"
