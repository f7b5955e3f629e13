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

from encoders.card import Card
from encoders.runtime.config import read_yaml
from encoders.runtime.files import atomic
from encoders.runtime.html import Html, join, table, tag
from encoders.runtime.svg import Frame, chart, line, pen
from encoders.runtime.track import read
from pretrain.dashboard import CURVES, clock
from pretrain.meter import PARTS
from pretrain.rundir import RunDir
from pretrain.watch.diagnose import diagnose

WIDE, HIGH = 340, 200  # pixels of a chart
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; margin: 0 auto; max-width: 1080px; padding: 24px; overflow-wrap: anywhere; }
h2 { border-top: 1px solid #dfe3e8; padding-top: 12px; } table { border-collapse: collapse; } tbody th { font-weight: 400; }
td, th { text-align: left; padding: 3px 14px 3px 0; vertical-align: top; } figure { display: inline-block; margin: 0 10px 10px 0; }
svg text { font-size: 11px; fill: #5a626b; } .rule { stroke: #e3e6ea; } img { max-width: 100%; }
.alarm { color: #b34700; font-weight: 600; } pre { white-space: pre-wrap; background: #f6f7f9; padding: 12px; }
"""


def write(run: RunDir, out: Path) -> Path:
    """Writes the page and returns its path."""
    with atomic(out) as part:
        part.write_text(page(run))
    return out


def page(run: RunDir) -> str:
    """The page of a run as it stands."""
    told, lines, settings = run.read(), read(run.path), read_yaml(run.config)
    body = [
        tag("h1", run.name),
        tag(
            "p",
            f"{settings['method']['name']} on {settings['arch']}, {told['status']}, step {int(lines[-1]['step']) if lines else 0:,} of "
            f"{told['steps']:,}, {clock(told.get('seconds', 0))} of training, {told['images']:,} images",
        ),
        tag("h2", "Diagnoses"),
        findings(lines, told),
        tag("h2", "Curves"),
        *(curve(name, lines, key) for name, key in CURVES.items() if any(key in line for line in lines)),
        tag("h2", "Where the time goes"),
        rows_of(["part", "share, median over the record"], shares(lines)),
        pictures(run),
        tag("h2", "Sessions, rollbacks, changes"),
        rows_of(["from step", "to step", "seconds", "device", "started", "ended by"], map(session, told["sessions"])),
        rows_of(["at step", "back to", "learning rate x", "why"], map(rollback, told.get("rollbacks", []))),
        rows_of(["step", "setting", "from", "to"], map(change, told.get("changes", []))),
        tag("h2", "Lineage and environment"),
        rows_of(["what", "value"], origin(told)),
        tag("h2", "Settings"),
        tag("pre", json.dumps(portable(settings), indent=1)),
    ]
    head = tag("head", tag("meta", charset="utf-8"), tag("title", run.name), tag("style", Html(STYLE)))
    return "<!doctype html>\n" + tag("html", head, tag("body", *body), lang="en") + "\n"


def findings(lines: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Html:
    """What holds at the end of the record."""
    found = diagnose(lines, {k: float(v) for k, v in told.get("untrained", {}).items()}, lines[-1]["step"] / told["steps"]) if lines else []
    said = [tag("li", f"{f.name} (step {f.step}): {f.text}", class_="alarm" if f.alarm else "note") for f in found]
    return tag("ul", *said) if said else tag("p", "Nothing was found amiss at the last line of the record.")


def curve(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Html:
    """A value over the steps; what is no number is left out."""
    points = [(int(line["step"]), float(line[key])) for line in lines if key in line and math.isfinite(float(line[key]))]
    if not points:
        return tag("figure", f"{name}: no number")
    steps, values = zip(*points, strict=True)
    low, high = min(values), max(values)
    room = 0.05 * (high - low) or max(abs(high), 1.0) * 0.05
    frame = Frame((steps[0], max(steps[-1], steps[0] + 1)), (low - room, high + room), width=WIDE, height=HIGH)
    return tag(
        "figure", chart(frame, [line(frame, steps, values, pen(0))], f"{name}, last {values[-1]:.4g}", "step", ""), style=f"width:{WIDE}px"
    )


def rows_of(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Html:
    """A table, or nothing where there is no row."""
    body = list(rows)
    return table(header, body) if body else Html()


def shares(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    from statistics import median

    known = {part: [line[f"time/{part}"] for line in lines if f"time/{part}" in line] for part in PARTS}
    return [[part, f"{100 * median(values):.1f} %"] for part, values in known.items() if values]


def pictures(run: RunDir) -> Html:
    """The views, where the run left them."""
    path = run.path / "views.png"
    if not path.exists():
        return Html()
    source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return join([tag("h2", "Views"), tag("img", alt="views of the first images", src=source)])


def session(one: Mapping[str, Any]) -> list[Any]:
    return [one.get(key, "") for key in ("from_step", "to_step", "seconds", "device", "started", "ended_by")]


def rollback(one: Mapping[str, Any]) -> list[Any]:
    return [one["at_step"], one["to_step"], one["lr_factor"], one["why"]]


def change(one: Mapping[str, Any]) -> list[Any]:
    """Files by their names alone."""
    return [one["step"], one["key"], *(Path(v).name if isinstance(v, str) else v for v in (one["from"], one["to"]))]


def origin(told: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Where the weights come from and what they were made with."""
    rows: list[tuple[str, Any]] = [("run id", told["id"]), ("store fingerprint", told["fingerprint"]), ("commit", told.get("commit"))]
    rows += sorted(told["versions"].items())
    card = Path(told.get("encoder", "")) / "card.yaml"
    if told.get("encoder") and card.is_file():
        rows += [(f"lineage: {key}", value) for key, value in Card.read(card).lineage.items()]
    return rows


def portable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with files by their names alone."""
    from pretrain.config import Recipe
    from pretrain.setup import portable as without_folders

    told = without_folders(Recipe.model_validate(settings))
    watched = told["watch"]["labeled"]
    told["watch"] |= {"labeled": watched and Path(watched).name}
    return told
