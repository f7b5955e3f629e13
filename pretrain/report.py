"""One self-contained page on a run: what it was, how it went, what ailed it, and where its weights come from.

Everything that is text is escaped. Hosts, process numbers and folders are left out: the page may be passed on, but for the picture of the
views, which shows patients.
"""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from encoders.card import Card
from encoders.runtime.config import read_yaml
from encoders.runtime.files import atomic
from encoders.runtime.track import read
from pretrain.dashboard import CURVES, clock
from pretrain.meter import PARTS
from pretrain.rundir import RunDir
from pretrain.watch.diagnose import diagnose

WIDE, HIGH, LEFT, BOTTOM = 340, 150, 56, 20  # pixels of a chart, and of its margins for numbers
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; margin: 0 auto; max-width: 1080px; padding: 24px; overflow-wrap: anywhere; }
h2 { border-top: 1px solid #dfe3e8; padding-top: 12px; } table { border-collapse: collapse; } td, th { text-align: left;
padding: 3px 14px 3px 0; vertical-align: top; } figure { display: inline-block; margin: 0 10px 10px 0; }
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
        f"<h1>{escape(run.name)}</h1>",
        f"<p>{escape(str(settings['method']['name']))} on {escape(str(settings['arch']))}, {escape(str(told['status']))}, "
        f"step {int(lines[-1]['step']) if lines else 0:,} of {told['steps']:,}, {clock(told.get('seconds', 0))} of training, "
        f"{told['images']:,} images</p>",
        "<h2>Diagnoses</h2>",
        findings(lines, told),
        "<h2>Curves</h2>",
        *(chart(name, lines, key) for name, key in CURVES.items() if any(key in line for line in lines)),
        "<h2>Where the time goes</h2>",
        table(["part", "share, median over the record"], shares(lines)),
        pictures(run),
        "<h2>Sessions, rollbacks, changes</h2>",
        table(["from step", "to step", "seconds", "device", "started", "ended by"], map(session, told["sessions"])),
        table(["at step", "back to", "learning rate x", "why"], map(rollback, told.get("rollbacks", []))),
        table(["step", "setting", "from", "to"], map(change, told.get("changes", []))),
        "<h2>Lineage and environment</h2>",
        table(["what", "value"], origin(told)),
        f"<h2>Settings</h2><pre>{escape(json.dumps(portable(settings), indent=1))}</pre>",
    ]
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(run.name)}</title><style>{STYLE}</style>'
    return head + "\n".join(body) + "</html>\n"


def findings(lines: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> str:
    """What holds at the end of the record."""
    found = diagnose(lines, {k: float(v) for k, v in told.get("untrained", {}).items()}, lines[-1]["step"] / told["steps"]) if lines else []
    said = [f'<li class="{"alarm" if f.alarm else "note"}">{escape(f.name)} (step {f.step}): {escape(f.text)}</li>' for f in found]
    return f"<ul>{''.join(said)}</ul>" if said else "<p>Nothing was found amiss at the last line of the record.</p>"


def chart(name: str, lines: Sequence[Mapping[str, Any]], key: str) -> str:
    """A curve over the steps as inline SVG; what is no number is left out."""
    points = [(int(line["step"]), float(line[key])) for line in lines if key in line and math.isfinite(float(line[key]))]
    if not points:
        return f"<figure>{escape(name)}: no number</figure>"
    low, high = min(y for _, y in points), max(y for _, y in points)
    first, last = points[0][0], max(points[-1][0], points[0][0] + 1)
    across, down = (WIDE - LEFT - 8) / (last - first), (HIGH - BOTTOM - 28) / (high - low or 1.0)
    path = " ".join(f"{LEFT + (x - first) * across:.1f},{HIGH - BOTTOM - (y - low) * down:.1f}" for x, y in points)
    return (
        f'<figure><svg viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" role="img" aria-label="{escape(name)}">'
        f'<text x="{LEFT}" y="14" font-weight="600">{escape(name)}</text>'
        f'<text x="{LEFT - 4}" y="32" text-anchor="end">{high:.4g}</text>'
        f'<text x="{LEFT - 4}" y="{HIGH - BOTTOM}" text-anchor="end">{low:.4g}</text>'
        f'<text x="{LEFT}" y="{HIGH - 4}">{first}</text><text x="{WIDE - 8}" y="{HIGH - 4}" text-anchor="end">step {last}</text>'
        f'<path d="M{LEFT} 24V{HIGH - BOTTOM}H{WIDE - 8}" fill="none" stroke="#c8ced6"/>'
        f'<polyline points="{path}" fill="none" stroke="#0072b2" stroke-width="1.6"/></svg></figure>'
    )


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table, or nothing where there is no row."""
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(name)}</th>' for name in header)}</tr>{body}</table>" if body else ""


def shares(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    from statistics import median

    known = {part: [line[f"time/{part}"] for line in lines if f"time/{part}" in line] for part in PARTS}
    return [[part, f"{100 * median(values):.1f} %"] for part, values in known.items() if values]


def pictures(run: RunDir) -> str:
    """The views, where the run left them."""
    path = run.path / "views.png"
    if not path.exists():
        return ""
    return f'<h2>Views</h2><img alt="views of the first images" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


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
