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
from encoders.runtime.track import read
from pretrain.dashboard import CURVES, clock
from pretrain.meter import PARTS
from pretrain.rundir import RunDir
from pretrain.watch.diagnose import diagnose

WIDE, HIGH, LEFT, BOTTOM = 340, 150, 56, 20  # pixels of a chart, and of its margins for numbers
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; margin: 0 auto; max-width: 1080px; padding: 24px; overflow-wrap: anywhere; }
h2 { border-top: 1px solid #dfe3e8; padding-top: 12px; } table { border-collapse: collapse; } tbody th { font-weight: 400; }
td, th { text-align: left; padding: 3px 14px 3px 0; vertical-align: top; } figure { display: inline-block; margin: 0 10px 10px 0; }
svg { font: 11px system-ui, sans-serif; } img { max-width: 100%; }
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
        *(chart(name, lines, key) for name, key in CURVES.items() if any(key in line for line in lines)),
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


def chart(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> Html:
    """A curve over the steps as inline SVG; what is no number is left out."""
    points = [(int(line["step"]), float(line[key])) for line in lines if key in line and math.isfinite(float(line[key]))]
    if not points:
        return tag("figure", f"{name}: no number")
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    across, down = (WIDE - LEFT - 8) / (last - first), (HIGH - BOTTOM - 28) / (high - low or 1.0)
    path = " ".join(f"{LEFT + (x - first) * across:.1f},{HIGH - BOTTOM - (y - low) * down:.1f}" for x, y in points)
    marks = [
        tag("text", name, x=LEFT, y=14, font_weight=600),
        tag("text", f"{high:.4g}", x=LEFT - 4, y=32, text_anchor="end"),
        tag("text", f"{low:.4g}", x=LEFT - 4, y=HIGH - BOTTOM, text_anchor="end"),
        tag("text", first, x=LEFT, y=HIGH - 4),
        tag("text", f"step {last}", x=WIDE - 8, y=HIGH - 4, text_anchor="end"),
        tag("path", d=f"M{LEFT} 24V{HIGH - BOTTOM}H{WIDE - 8}", fill="none", stroke="#c8ced6"),
        tag("polyline", points=path, fill="none", stroke="#0072b2", stroke_width=1.6),
    ]
    return tag("figure", tag("svg", *marks, viewBox=f"0 0 {WIDE} {HIGH}", width=WIDE, height=HIGH, role="img", aria_label=name))


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
