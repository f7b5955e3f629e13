"""One self-contained page on a run: what it was, how it went, what ailed it, and where its weights come from.

Everything that is text is escaped. Hosts, process numbers and folders are left out: the page may be passed on, but for the picture of the
views, which shows patients.
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.runtime.config import read_yaml
from encoders.runtime.files import atomic_write
from encoders.runtime.html import Html, html_table, join_html, tag
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.svg import Frame, draw_chart, draw_line, line_style
from encoders.zoo.card import Card
from pretrain.display.dashboard import CURVES, format_duration
from pretrain.loop.timing import STEP_PARTS
from pretrain.run.rundir import RunDir
from pretrain.watch.diagnose import diagnose

CHART_WIDTH, CHART_HEIGHT = 340, 200  # pixels of a chart
PAGE_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; margin: 0 auto; max-width: 1080px; padding: 24px; overflow-wrap: anywhere; }
h2 { border-top: 1px solid #dfe3e8; padding-top: 12px; } table { border-collapse: collapse; } tbody th { font-weight: 400; }
td, th { text-align: left; padding: 3px 14px 3px 0; vertical-align: top; } figure { display: inline-block; margin: 0 10px 10px 0; }
svg text { font-size: 11px; fill: #5a626b; } .rule { stroke: #e3e6ea; } img { max-width: 100%; }
.alarm { color: #b34700; font-weight: 600; } pre { white-space: pre-wrap; background: #f6f7f9; padding: 12px; }
"""


def write_report(run: RunDir, out: Path) -> Path:
    """Writes the page and returns its path."""
    with atomic_write(out) as part:
        part.write_text(render_page(run))
    return out


def render_page(run: RunDir) -> str:
    """The page of a run as it stands."""
    told, lines, settings = run.read(), read_metrics(run.path), read_yaml(run.config)
    body = [
        tag("h1", run.name),
        tag(
            "p",
            f"{settings['method']['name']} on {settings['arch']}, {told['status']}, step {int(lines[-1]['step']) if lines else 0:,} of "
            f"{told['steps']:,}, {format_duration(told.get('seconds', 0))} of training, {told['images']:,} images",
        ),
        tag("h2", "Diagnoses"),
        render_findings(lines, told),
        tag("h2", "Curves"),
        *(render_curve(name, lines, key) for name, key in CURVES.items() if any(key in line for line in lines)),
        tag("h2", "Where the time goes"),
        render_rows(["part", "share, median over the record"], median_time_shares(lines)),
        render_views(run),
        tag("h2", "Sessions, rollbacks, changes"),
        render_rows(["from step", "to step", "seconds", "device", "started", "ended by"], map(session_row, told["sessions"])),
        render_rows(["at step", "back to", "learning rate x", "why"], map(rollback_row, told.get("rollbacks", []))),
        render_rows(["step", "setting", "from", "to"], map(change_row, told.get("changes", []))),
        tag("h2", "Lineage and environment"),
        render_rows(["what", "value"], provenance_rows(told)),
        tag("h2", "Settings"),
        tag("pre", json.dumps(settings_without_folders(settings), indent=1)),
    ]
    head = tag("head", tag("meta", charset="utf-8"), tag("title", run.name), tag("style", Html(PAGE_STYLE)))
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def render_findings(lines: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Html:
    """What holds at the end of the record."""
    found = diagnose(lines, {k: float(v) for k, v in told.get("untrained", {}).items()}, lines[-1]["step"] / told["steps"]) if lines else []
    said = [tag("li", f"{f.name} (step {f.step}): {f.text}", class_="alarm" if f.alarm else "note") for f in found]
    return tag("ul", *said) if said else tag("p", "Nothing was found amiss at the last line of the record.")


def render_curve(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Html:
    """A value over the steps; what is no number is left out."""
    points = [(int(line["step"]), float(line[key])) for line in lines if key in line and math.isfinite(float(line[key]))]
    if not points:
        return tag("figure", f"{name}: no number")
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    frame = Frame((steps[0], max(steps[-1], steps[0] + 1)), (low - room, high + room), width=CHART_WIDTH, height=CHART_HEIGHT)
    return tag(
        "figure",
        draw_chart(frame, [draw_line(frame, steps, values, line_style(0))], f"{name}, last {values[-1]:.4g}", "step", ""),
        style=f"width:{CHART_WIDTH}px",
    )


def render_rows(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """A table, or nothing where there is no row."""
    body = list(rows)
    return html_table(header, body) if body else Html()


def median_time_shares(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    from statistics import median

    known = {part: [line[f"time/{part}"] for line in lines if f"time/{part}" in line] for part in STEP_PARTS}
    return [[part, f"{100 * median(values):.1f} %"] for part, values in known.items() if values]


def render_views(run: RunDir) -> Html:
    """The views, where the run left them."""
    path = run.path / "views.png"
    if not path.exists():
        return Html()
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return join_html([tag("h2", "Views"), tag("img", alt="views of the first images", src=source)])


def session_row(one: Mapping[str, Any]) -> list[Any]:
    return [one.get(key, "") for key in ("from_step", "to_step", "seconds", "device", "started", "ended_by")]


def rollback_row(one: Mapping[str, Any]) -> list[Any]:
    return [one["at_step"], one["to_step"], one["lr_factor"], one["why"]]


def change_row(one: Mapping[str, Any]) -> list[Any]:
    """Files by their names alone."""
    return [one["step"], one["key"], *(Path(v).name if isinstance(v, str) else v for v in (one["from"], one["to"]))]


def provenance_rows(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Where the weights come from and what they were made with."""
    rows: list[tuple[str, Any]] = [("run id", told["id"]), ("store fingerprint", told["fingerprint"]), ("commit", told.get("commit"))]
    rows += sorted(told["versions"].items())
    card = Path(told.get("encoder", "")) / "card.yaml"
    if told.get("encoder") and card.is_file():
        rows += [(f"lineage: {key}", value) for key, value in Card.read(card).lineage.items()]
    return rows


def settings_without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with files by their names alone."""
    from pretrain.loop.setup import recipe_without_folders as without_folders
    from pretrain.recipe.config import Recipe

    told = without_folders(Recipe.model_validate(settings))
    watched = told["watch"]["labeled"]
    told["watch"] |= {"labeled": watched and Path(watched).name}
    return told
