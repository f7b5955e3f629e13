"""One self-contained HTML page on a run: verdict, diagnoses, curves, effective values, sessions, provenance, and settings.

All text is escaped. Hosts, process ids and folders are left out. The page can be shared without the picture of the views, which shows
images of patients.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.gallery.links import find_overview_link
from encoders.runtime.config import read_yaml
from encoders.runtime.files import atomic_write
from encoders.runtime.html import Html, collapsible_section, join_html, tag
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.page import render_document
from encoders.runtime.redact import redact_private, redact_text
from encoders.zoo.pretraining_columns import count_images_seen
from pretrain.display.curves import CurveEvent, draw_encoder_curves, draw_training_curves
from pretrain.display.dashboard import format_duration
from pretrain.run.effective import changes_of, describe_speed, list_effective_values
from pretrain.run.report_tables import (
    change_row,
    median_time_shares,
    provenance_rows,
    render_rows,
    rollback_row,
    session_row,
)
from pretrain.run.run_info import RunInfo, read_baseline
from pretrain.run.rundir import RunDir
from pretrain.run.verdict import Grade, RunVerdict, judge_run
from pretrain.watch.best import find_best
from pretrain.watch.diagnose import MetricsLine
from pretrain.watch.history import DiagnosisSpan

PAGE_NAME = "report.html"  # in the run's folder
PICTURE_WARNING = "This page shows images of patients: do not share it. "
GRADE_CLASSES: dict[Grade, str] = {"good": "good", "warned": "warned", "bad": "bad", "open": ""}


def write_report(run: RunDir, out: Path, images: bool = True) -> Path:
    """Writes the page and returns its path.  images: with the picture of the views, if the run has one."""
    page = render_page(run, out, images)
    with atomic_write(out) as part:
        part.write_text(page)
    return out


def render_page(run: RunDir, out: Path | None = None, images: bool = True) -> str:
    """The page of a run in its present state.  out: its file, for the link to the overview of the working folder."""
    info, lines = run.read(), read_metrics(run.path)
    settings = read_yaml(run.config)
    verdict, baseline = judge_run(run), read_baseline(info)
    views = run.path / "views.png" if images else None
    events = list_events(verdict.spans, info)
    marked = tag("p", "Red lines: start of an alarm. Gray lines: rollback.", class_="note") if events else None
    header = tag(
        "header",
        tag("p", "isograft pretraining run", _link_overview(out), class_="kicker"),
        _warn_of_pictures(run, views),
        tag("h1", run.name),
        tag("p", f"{run.name}: {redact_text(verdict.sentence)}.", class_=f"headline {GRADE_CLASSES[verdict.grade]}".strip()),
        tag("p", f"{settings['method']['name']} on {settings['arch']}, {info['images']:,} images of {settings['size']} px"),
    )
    body = [
        header,
        render_section("Diagnoses", render_spans(verdict)),
        render_facts(info, lines, int(settings["batch"]), baseline),
        render_section("Training", marked, tag("div", *draw_training_curves(lines, events), class_="charts")),
        render_section("Encoder", tag("div", *draw_encoder_curves(lines, baseline, events), class_="charts")),
        render_section(
            "Effective values",
            render_rows(["setting", "value", "from"], list_effective_values(settings, info)),
            tag("ul", *(tag("li", redact_text(note)) for note in info.get("notes", []))) if info.get("notes") else None,
        ),
        render_views(views),
        render_section("Time per part of a step", render_rows(["part", "median share of the time"], median_time_shares(lines))),
        render_section(
            "Sessions, rollbacks, changes",
            render_rows(["from step", "to step", "seconds", "device", "started", "ended by"], map(session_row, info["sessions"])),
            render_rows(["at step", "back to", "learning rate x", "why"], map(rollback_row, info.get("rollbacks", []))),
            render_rows(["step", "setting", "from", "to"], map(change_row, info.get("changes", []))),
        ),
        render_section("Lineage and environment", render_rows(["what", "value"], provenance_rows(info))),
        render_section("Settings", collapsible_section("All settings", tag("pre", json.dumps(redact_private(settings), indent=1)))),
    ]
    return render_document(f"{run.name}: pretraining run", *body)


def render_section(title: str, *parts: Html | None) -> Html:
    """A section with its heading, or nothing if it is empty."""
    content = join_html(parts)
    return tag("section", tag("h2", title), content) if content.replace('<div class="charts"></div>', "") else Html()


def render_spans(verdict: RunVerdict) -> Html:
    """The diagnoses: those that hold at the last logged line, then those that ended."""
    if not verdict.spans:
        return tag("p", "No problem was detected.")
    return tag("ul", *(tag("li", describe_span(span), class_="bad" if _is_present_alarm(span) else None) for span in verdict.spans))


def describe_span(span: DiagnosisSpan) -> Html:
    """Name, steps and advice of a diagnosis."""
    finding = span.finding
    when = f"step {span.start:,}" if not finding.alarm else f"from step {span.start:,} on"
    when = when if span.end is None else f"from step {span.start:,} to step {span.end:,}, ended"
    return join_html([tag("b", finding.name), f" ({when}): {finding.text}"])


def list_events(spans: Sequence[DiagnosisSpan], info: RunInfo) -> list[CurveEvent]:
    """Where alarms began, and where the run was rolled back."""
    alarms = [CurveEvent(span.start, "event") for span in spans if span.finding.alarm]
    return [*alarms, *(CurveEvent(int(str(entry["at_step"])), "event back") for entry in info.get("rollbacks", []))]


def render_facts(info: RunInfo, lines: Sequence[MetricsLine], batch: int, baseline: Mapping[str, float]) -> Html:
    """The most important numbers."""
    step = int(lines[-1]["step"]) if lines else 0
    rest = f"of {info['steps']:,}"
    facts: list[tuple[str, str, str]] = [("steps", f"{step:,}", rest)]
    seen = count_images_seen(step, batch, changes_of(info))
    facts.append(("images seen", f"{seen:,}", f"{seen / max(info['images'], 1):,.1f} epochs"))
    facts.append(("time", format_duration(info.get("seconds", 0)), describe_sessions(info)))
    if speed := describe_speed(lines):
        facts.append(("speed", f"{speed['rate']:,.0f} images/s", f"median; {100 * speed['wait']:.0f} % of the time waiting for images"))
        facts.append(("peak memory", f"{speed['memory']:.1f} GiB", ""))
    losses = [line["loss"] for line in lines if math.isfinite(line.get("loss", math.nan))]
    if losses:
        facts.append(("loss", f"{losses[-1]:.4g}", f"{losses[0]:.4g} at the first logged step"))
    if (best := find_best(lines)) is not None:
        last = [line for line in lines if "watch/knn" in line][-1]
        start = f"{baseline['watch/knn']:.3f} at step 0, " if "watch/knn" in baseline else ""
        facts.append(("k-NN probe", f"{last['watch/knn']:.3f}", f"{start}best {best['watch/knn']:.3f} at step {int(best['step']):,}"))
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value, tag("small", more) if more else None)) for name, value, more in facts),
               class_="facts")  # fmt: skip


def describe_sessions(info: RunInfo) -> str:
    """`3 sessions on cuda`, or the device alone."""
    devices = ", ".join(dict.fromkeys(str(entry.get("device", "")) for entry in info["sessions"]))
    return f"{len(info['sessions'])} sessions on {devices}" if len(info["sessions"]) > 1 else f"on {devices}" if devices else ""


def render_views(picture: Path | None) -> Html:
    """The picture of the views, if there is one."""
    if picture is None or not picture.exists():
        return Html()
    source = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    return render_section("Views", tag("img", alt="views of the first images", src=source, class_="picture"))


def _warn_of_pictures(run: RunDir, picture: Path | None) -> Html | None:
    """The warning of a page with images; None for one without."""
    if picture is None or not picture.exists():
        return tag("p", "This page shows no image of a patient.", class_="note")
    advice = tag("code", f"pretrain report {run.name} --no-images"), " writes one to share."
    return tag("p", tag("b", PICTURE_WARNING), *advice, class_="alarm", role="alert")


def _link_overview(out: Path | None) -> Html | None:
    """A relative link to the overview, from a page below the working folder."""
    where = find_overview_link(out)
    if where is None:
        return None
    return join_html([" · ", tag("a", "overview of all runs", href=where)])


def _is_present_alarm(span: DiagnosisSpan) -> bool:
    return span.finding.alarm and span.end is None
