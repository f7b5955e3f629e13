"""One self-contained HTML page on a run: diagnoses, curves, sessions, provenance of the weights, and settings.

All text is escaped. Hosts, process ids and folders are left out. The page can be shared, except for the picture of the views, which shows
images of patients.
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from encoders.runtime.config import read_yaml
from encoders.runtime.files import atomic_write
from encoders.runtime.html import Html, html_table, join_html, tag
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.svg import Frame, draw_chart, draw_line, line_style
from encoders.zoo.card import Card
from pretrain.display.dashboard import find_curves, format_duration
from pretrain.loop.initial_card import recipe_without_folders
from pretrain.loop.timing import STEP_PARTS
from pretrain.recipe.config import Recipe
from pretrain.run.run_info import ChangeInfo, RunInfo, SessionInfo, read_baseline
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


Row: TypeAlias = Sequence[object]


def write_report(run: RunDir, out: Path) -> Path:
    """Writes the page and returns its path."""
    with atomic_write(out) as part:
        part.write_text(render_page(run))
    return out


def render_page(run: RunDir) -> str:
    """The page of a run in its present state."""
    info, lines, settings = run.read(), read_metrics(run.path), read_yaml(run.config)
    body = [
        tag("h1", run.name),
        tag(
            "p",
            f"{settings['method']['name']} on {settings['arch']}, {info['status']}, step {int(lines[-1]['step']) if lines else 0:,} of "
            f"{info['steps']:,}, {format_duration(info.get('seconds', 0))} of training, {info['images']:,} images",
        ),
        tag("h2", "Diagnoses"),
        render_findings(lines, info),
        tag("h2", "Curves"),
        *(render_curve(name, lines, key) for name, key in find_curves(lines).items()),
        tag("h2", "Time per part of a step"),
        render_rows(["part", "median share of the time"], median_time_shares(lines)),
        render_views(run),
        tag("h2", "Sessions, rollbacks, changes"),
        render_rows(["from step", "to step", "seconds", "device", "started", "ended by"], map(session_row, info["sessions"])),
        render_rows(["at step", "back to", "learning rate x", "why"], map(rollback_row, info.get("rollbacks", []))),
        render_rows(["step", "setting", "from", "to"], map(change_row, info.get("changes", []))),
        tag("h2", "Lineage and environment"),
        render_rows(["what", "value"], provenance_rows(info)),
        tag("h2", "Settings"),
        tag("pre", json.dumps(settings_without_folders(settings), indent=1)),
    ]
    head = tag("head", tag("meta", charset="utf-8"), tag("title", run.name), tag("style", Html(PAGE_STYLE)))
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def render_findings(lines: Sequence[Mapping[str, Any]], info: RunInfo) -> Html:
    """The diagnoses that hold at the last logged line."""
    findings = diagnose(lines, read_baseline(info), lines[-1]["step"] / info["steps"]) if lines else []
    items = [tag("li", f"{f.name} (step {f.step}): {f.text}", class_="alarm" if f.alarm else "note") for f in findings]
    return tag("ul", *items) if items else tag("p", "No problem was detected at the last logged step.")


def render_curve(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Html:
    """A chart of a metric over the steps; NaN and inf are left out."""
    points = [(int(line["step"]), float(line[key])) for line in lines if key in line and math.isfinite(float(line[key]))]
    if not points:
        return tag("figure", f"{name}: no finite value")
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    frame = Frame((steps[0], max(steps[-1], steps[0] + 1)), (low - room, high + room), width=CHART_WIDTH, height=CHART_HEIGHT)
    return tag(
        "figure",
        draw_chart(frame, [draw_line(frame, steps, values, line_style(0))], f"{name}, last {values[-1]:.4g}", "step", ""),
        style=f"width:{CHART_WIDTH}px",
    )


def render_rows(header: Sequence[str], rows: Iterable[Row]) -> Html:
    """A table, or nothing without rows."""
    body = list(rows)
    return html_table(header, body) if body else Html()


def median_time_shares(lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """(part, median share over all lines) of each part of a step."""
    from statistics import median

    shares = {part: [line[f"time/{part}"] for line in lines if f"time/{part}" in line] for part in STEP_PARTS}
    return [[part, f"{100 * median(values):.1f} %"] for part, values in shares.items() if values]


def render_views(run: RunDir) -> Html:
    """The picture of the views, if the run wrote one."""
    path = run.path / "views.png"
    if not path.exists():
        return Html()
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return join_html([tag("h2", "Views"), tag("img", alt="views of the first images", src=source)])


def session_row(entry: SessionInfo) -> Row:
    return [entry.get(key, "") for key in ("from_step", "to_step", "seconds", "device", "started", "ended_by")]


def rollback_row(entry: Mapping[str, object]) -> Row:
    return [entry["at_step"], entry["to_step"], entry["lr_factor"], entry["why"]]


def change_row(entry: ChangeInfo) -> Row:
    """Paths are shortened to file names."""
    return [entry["step"], entry["key"], *(Path(v).name if isinstance(v, str) else v for v in (entry["from"], entry["to"]))]


def provenance_rows(info: RunInfo) -> list[Row]:
    """Identity of the run and its store, versions, and the lineage on the encoder's card."""
    rows: list[Row] = [("run id", info["id"]), ("store fingerprint", info["fingerprint"]), ("commit", info.get("commit"))]
    rows += sorted(info["versions"].items())
    card = Path(info.get("encoder", "")) / "card.yaml"
    if info.get("encoder") and card.is_file():
        rows += [(f"lineage: {key}", value) for key, value in Card.read(card).lineage.items()]
    return rows


def settings_without_folders(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with paths shortened to file names."""
    shortened = recipe_without_folders(Recipe.model_validate(settings))
    labeled = shortened["watch"]["labeled"]
    shortened["watch"] |= {"labeled": labeled and Path(labeled).name}
    return shortened
