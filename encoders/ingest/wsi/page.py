"""The page of a cohort: what was kept and what was not, slide by slide; opens from disk, names no patient."""

import base64
from collections.abc import Sequence
from html import escape

from encoders.ingest.wsi.cohort import Cohort, Record, trouble
from encoders.ingest.wsi.picture import COLOURS, KEPT

MOST = 200  # slides with their picture in the page: about 100 kB each; those in trouble first, then those that lost most

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1240px; padding: 24px; color: #1c1c22; background: #fff }
h1 { font-size: 24px; margin: 0 0 2px }
h2 { font-size: 18px; margin: 34px 0 8px }
p { margin: 4px 0 10px; max-width: 80em }
.sub, .facts { color: #5a5a66 }
.facts { font-size: 13px; margin: 2px 0 6px }
.big { display: flex; flex-wrap: wrap; gap: 28px; margin: 18px 0 }
.big div { font-size: 13px; color: #5a5a66 }
.big b { display: block; font-size: 26px; color: #1c1c22 }
table { border-collapse: collapse; font-size: 14px }
td, th { padding: 4px 12px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e6e6ec; overflow-wrap: anywhere }
th { white-space: nowrap }
td:first-child { min-width: 13em }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
.grid { display: grid; align-items: start; grid-template-columns: repeat(auto-fill, minmax(560px, 1fr)); gap: 26px }
.slide { border: 1px solid #e2e2ea; border-radius: 8px; padding: 12px 14px }
.slide img { width: 100%; height: auto; background: #fafafc }
.slide h3 { font-size: 15px; margin: 0; overflow-wrap: anywhere }
.bar { display: flex; height: 10px; border-radius: 3px; overflow: hidden; margin: 6px 0 }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 5px; vertical-align: -1px }
.chip { margin-right: 14px; white-space: nowrap; font-size: 13px }
.bad { color: #b0122f }
@media (max-width: 640px) { .grid { grid-template-columns: 1fr } body { padding: 12px } }
"""


def page(cohort: Cohort, records: Sequence[Record]) -> str:
    """One HTML file with everything in it."""
    bad = [record for record in records if trouble(record)]
    order = sorted(records, key=lambda record: (not trouble(record), share_kept(record), record["name"]))
    shown = [record for record in order if cohort.picture(record["name"]).exists()][:MOST]
    parts = [
        f"<h1>{escape(cohort.dataset)}: tiles</h1>",
        f'<p class="sub">{settings_line(cohort)}</p>',
        headline(records),
        f"<h2>What became of the tiles</h2>{tally(records)}",
        f"<h2>Slides that failed or are damaged</h2>{failures(bad)}" if bad else "",
        f'<h2>Slides</h2><p class="sub">{order_line(shown, records)}</p>',
        f"<p>{legend(records)}</p>",
        '<div class="grid">' + "".join(card(cohort, record) for record in shown) + "</div>",
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(cohort.dataset)}: tiles</title>'
    return f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def settings_line(cohort: Cohort) -> str:
    s = cohort.settings
    told = [
        f"{s.tile} &times; {s.tile} px at {s.mpp:g} &micro;m a pixel ({s.tile * s.mpp:g} &micro;m wide), overlap {s.overlap} px",
        f"tissue at least {s.min_tissue:.0%} of a tile, mask at {s.tissue_mpp:g} &micro;m a pixel",
        f"sharpness at least {s.min_sharpness:g} gray levels&sup2; at 2 &micro;m a pixel",
        f"pen at most {s.max_pen:.0%}, white {s.max_white:.0%}, black {s.max_black:.0%}",
        f"colour profile {'applied' if s.icc else 'not applied'}",
        f"{escape(s.codec)}",
    ]
    return "; ".join([*told, *([f"at most {s.max_tiles} tiles a slide, seed {s.seed}"] if s.max_tiles else [])])


def headline(records: Sequence[Record]) -> str:
    good = [record for record in records if "tiles" in record]
    seconds, read = sum(r["seconds"] for r in good), sum(r["read"] for r in good)
    numbers = {
        "slides tiled": f"{len(good)} of {len(records)}",
        "tiles kept": f"{sum(r['tiles'] for r in good):,}",
        "tiles a second and process": f"{read / seconds:.0f}" if seconds else "-",
        "failed or damaged": str(sum(bool(trouble(r)) for r in records)),
    }
    return '<div class="big">' + "".join(f"<div><b>{value}</b>{name}</div>" for name, value in numbers.items()) + "</div>"


def totals(records: Sequence[Record]) -> dict[str, int]:
    """What became of tiles to their number, in the order of the colours."""
    found = {KEPT: sum(record.get("tiles", 0) for record in records)}
    for record in records:
        for reason, n in record.get("rejected", {}).items():
            found[reason] = found.get(reason, 0) + n
    return {name: found[name] for name in COLOURS if found.get(name)}


def colour(name: str) -> str:
    return "rgb({},{},{})".format(*COLOURS[name])


def tally(records: Sequence[Record]) -> str:
    found = totals(records)
    every = sum(found.values())
    if not every:
        return "<p>No tile was looked at.</p>"
    lines = [(f"{swatch(name)}{escape(name)}", n, f"{n / every:.1%}") for name, n in found.items()]
    lines.append(("all of the grid", every, ""))
    rows = "".join(f'<tr><td>{name}</td><td class="n">{n:,}</td><td class="n">{part}</td></tr>' for name, n, part in lines)
    return f'{bar(found)}<table><tr><th>tile</th><th class="n">number</th><th class="n">share</th></tr>{rows}</table>'


def swatch(name: str) -> str:
    return f'<span class="key" style="background:{colour(name)}"></span>'


def bar(found: dict[str, int]) -> str:
    pieces = "".join(f'<span style="flex:{n};background:{colour(name)}" title="{escape(name)}: {n}"></span>' for name, n in found.items())
    return f'<div class="bar">{pieces}</div>'


def failures(bad: Sequence[Record]) -> str:
    rows = "".join(f'<tr><td>{escape(r["source"])}</td><td class="bad">{escape(trouble(r))}</td></tr>' for r in bad)
    return f"<table><tr><th>slide</th><th>reason</th></tr>{rows}</table>"


def legend(records: Sequence[Record]) -> str:
    return "".join(f'<span class="chip">{swatch(name)}{escape(name)}</span>' for name in totals(records))


def order_line(shown: Sequence[Record], records: Sequence[Record]) -> str:
    more = (
        f" The first {len(shown)} of {len(records)}; the pictures of the others are in slides/."
        if len(shown) == MOST < len(records)
        else ""
    )
    halves = "Left: the outline of what was taken for tissue. Right: every tile by what became of it."
    return f"{halves} Slides in trouble first, then those that kept the least.{more}"


def share_kept(record: Record) -> float:
    every = record.get("tiles", 0) + sum(record.get("rejected", {}).values())
    return record.get("tiles", 0) / every if every else 0.0


def card(cohort: Cohort, record: Record) -> str:
    """One slide: what it is, how many of its tiles were kept, and its picture."""
    picture = base64.b64encode(cohort.picture(record["name"]).read_bytes()).decode()
    name = f"<h3{' class=bad' if trouble(record) else ''}>{escape(record['name'])}</h3>"
    told = about(record) if "facts" in record else [escape(record["reason"])]
    strip = bar(totals([record])) if "facts" in record else ""
    facts = f'<div class="facts">{" &middot; ".join(told)}</div>'
    return f'<div class="slide">{name}{facts}{strip}<img alt="" src="data:image/jpeg;base64,{picture}"></div>'


def about(record: Record) -> list[str]:
    facts = record["facts"]
    width, height = facts["dimensions"]
    return [
        f"{width:,} &times; {height:,} px, {facts['mpp'][0]:.4g} &micro;m a pixel ({escape(facts['mpp_source'])})",
        f"read from level {facts['level']} (downsample {facts['downsample']:.5g})",
        f"{record['tiles']:,} kept",
        *(f"{n:,} {escape(why)}" for why, n in sorted(record["rejected"].items(), key=lambda of: -of[1])),
    ]
