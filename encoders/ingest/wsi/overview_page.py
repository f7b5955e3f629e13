"""The overview page of a cohort: kept and rejected tiles of every slide. It opens from disk.

The name of a slide may be that of a patient, so the page calls a slide by its row in slides.csv, which stays here."""

import base64
from collections.abc import Sequence
from pathlib import PurePath

from encoders.ingest.wsi.cohort import Cohort, describe_doubt, describe_problem
from encoders.ingest.wsi.records import SlideRecord
from encoders.ingest.wsi.region_classes import describe_region_classes
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.thumbnail import KEPT, OUTCOME_COLOURS
from encoders.runtime.html import Html, html_table, join_html, tag
from encoders.runtime.page import render_bare_document
from encoders.runtime.redact import could_be_count, redact_names, redact_text

NAMES_FILE = "slides.csv"
MAX_SLIDE_CARDS = (
    200  # slides with a thumbnail in the page, about 100 kB each; slides with problems first, then those with the fewest kept tiles
)

NOT_DETECTED = "Not detected: faint ink over tissue, folds, air bubbles and dust. Look for them in the thumbnails."

PAGE_STYLE = """
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
thead th { white-space: nowrap }
tbody th { font-weight: 400; min-width: 13em }
.numbers thead th:not(:first-child) { text-align: right }
td.n { text-align: right; font-variant-numeric: tabular-nums }
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


def render_page(cohort: Cohort, records: Sequence[SlideRecord]) -> str:
    """A self-contained HTML file."""
    bad = [record for record in records if describe_problem(record)]
    order = sorted(
        records, key=lambda record: (not describe_problem(record), not describe_doubt(record), share_kept(record), record["name"])
    )
    shown = [record for record in order if cohort.thumbnail_path(record["name"]).exists()][:MAX_SLIDE_CARDS]
    title = f"{cohort.dataset}: tiles"
    failed = [tag("h2", "Slides that failed or are damaged"), render_failures(bad, records)] if bad else []
    doubtful = [(number_slide(record, records), hide_slides(doubt, records)) for record in records if (doubt := describe_doubt(record))]
    inspect = (
        [tag("h2", "Slides to inspect"), html_table(["slide", "why"], [[n, tag("td", why)] for n, why in doubtful])] if doubtful else []
    )
    body = [
        tag("h1", title),
        tag("p", describe_settings(cohort), class_="sub"),
        render_headline(records),
        tag("h2", "Outcome of the tiles"),
        render_tally(records),
        tag("p", NOT_DETECTED, class_="sub"),
        *([tag("p", classes, class_="sub")] if (classes := describe_drawn_classes(cohort, records)) else []),
        *failed,
        *inspect,
        tag("h2", "Slides"),
        tag("p", describe_order(shown, records), class_="sub"),
        tag("p", *(tag("span", render_swatch(name), name, class_="chip") for name in count_tiles_by_outcome(records))),
        tag("div", *(render_slide_card(cohort, record, records) for record in shown), class_="grid"),
    ]
    return render_bare_document(title, tag("body", *body), PAGE_STYLE)


def describe_drawn_classes(cohort: Cohort, records: Sequence[SlideRecord]) -> str:
    """The classes of the regions, and what became of them; "" without regions."""
    return describe_region_classes(records, cohort.settings.include, cohort.settings.exclude)


def describe_settings(cohort: Cohort) -> str:
    """The settings in words."""
    s = cohort.settings
    parts = [
        f"{s.tile} × {s.tile} px at {s.mpp:g} µm per pixel ({s.tile * s.mpp:g} µm wide), overlap {s.overlap} px",
        f"slides at most {s.max_upscale:g} times coarser",
        describe_tissue_rule(s),
        f"sharpness at least {s.min_sharpness:g} gray levels² at 2 µm per pixel",
        f"pen at most {s.max_pen:.0%}, white {s.max_white:.0%}, black {s.max_black:.0%}",
        f"colour profile {'applied' if s.icc else 'not applied'}",
        *([f"stains normalised to the {s.normalise} reference (thumbnails show the original colours)"] if s.normalise else []),
        *([f"regions of {regions} slides"] if (regions := sum(item.regions is not None for item in cohort.items)) else []),
        *(f"{word} {', '.join(names)}" for word, names in (("only in", s.include), ("none in", s.exclude)) if names),
        s.codec,
    ]
    return "; ".join([*parts, *([f"at most {s.max_tiles} tiles per slide, seed {s.seed}"] if s.max_tiles else [])])


def describe_tissue_rule(settings: TilingSettings) -> str:
    """How tiles of slides without a mask were chosen."""
    if settings.coords:
        return "tiles at the coordinates of files, whatever the tissue"
    above = "" if settings.tissue_threshold is None else f" by {settings.tissue_threshold} of 255"
    rule = f"the model {settings.tissue_model.path.name}" if settings.tissue_model else f"saturation above that of the glass{above}"
    return f"tissue at least {settings.min_tissue:.0%} of a tile, by {rule} at {settings.tissue_mpp:g} µm per pixel"


def render_headline(records: Sequence[SlideRecord]) -> Html:
    """The most important numbers."""
    good = [record for record in records if "tiles" in record]
    seconds, read = sum(r["seconds"] for r in good), sum(r["read"] for r in good)
    numbers = {
        "slides tiled": f"{len(good)} of {len(records)}",
        "tiles kept": f"{sum(r['tiles'] for r in good):,}",
        "tiles per second and process": f"{read / seconds:.0f}" if seconds else "-",
        "failed or damaged": str(sum(bool(describe_problem(r)) for r in records)),
    }
    return tag("div", *(tag("div", tag("b", value), name) for name, value in numbers.items()), class_="big")


def count_tiles_by_outcome(records: Sequence[SlideRecord]) -> dict[str, int]:
    """Outcome to number of tiles, in the order of the colours."""
    counts = {KEPT: sum(record.get("tiles", 0) for record in records)}
    for record in records:
        for reason, n in record.get("rejected", {}).items():
            counts[reason] = counts.get(reason, 0) + n
    return {name: counts[name] for name in OUTCOME_COLOURS if counts.get(name)}


def css_colour(name: str) -> str:
    """The colour of an outcome in CSS."""
    return "rgb({},{},{})".format(*OUTCOME_COLOURS[name])


def render_tally(records: Sequence[SlideRecord]) -> Html:
    """The table and the bar of all tiles by outcome."""
    counts = count_tiles_by_outcome(records)
    every = sum(counts.values())
    if not every:
        return tag("p", "No tile was read.")
    lines: list[tuple[str, int, str]] = [(join_html([render_swatch(name), name]), n, f"{n / every:.1%}") for name, n in counts.items()]
    lines.append(("all tiles of the grid", every, ""))
    return join_html(
        [
            render_bar(counts),
            html_table(
                ["tile", "number", "share"], [[name, number_cell(f"{n:,}"), number_cell(part)] for name, n, part in lines], "numbers"
            ),
        ]
    )


def number_cell(text: str) -> Html:
    """A table cell with a number."""
    return tag("td", text, class_="n")


def render_swatch(name: str) -> Html:
    """A square in the colour of an outcome."""
    return tag("span", class_="key", style=f"background:{css_colour(name)}")


def render_bar(counts: dict[str, int]) -> Html:
    """A stacked bar of the tiles by outcome."""
    parts = (tag("span", style=f"flex:{n};background:{css_colour(name)}", title=f"{name}: {n}") for name, n in counts.items())
    return tag("div", *parts, class_="bar")


def render_failures(bad: Sequence[SlideRecord], records: Sequence[SlideRecord]) -> Html:
    """The table of slides with problems."""
    reasons = [(number_slide(r, records), hide_slides(describe_problem(r), records)) for r in bad]
    return html_table(["slide", "reason"], [[name, tag("td", reason, class_="bad")] for name, reason in reasons])


def describe_order(shown: Sequence[SlideRecord], records: Sequence[SlideRecord]) -> str:
    """What the thumbnails show, and their order."""
    more = (
        f" The first {len(shown)} of {len(records)}; the other thumbnails are in slides/."
        if len(shown) == MAX_SLIDE_CARDS < len(records)
        else ""
    )
    named = f"A slide is called by its row in {NAMES_FILE}."
    halves = "Left: outline of the tissue mask. Right: tiles coloured by outcome."
    order = "Slides with problems come first, then those to inspect, then those with the smallest share of kept tiles."
    return f"{named} {halves} {order}{more}"


def number_slide(record: SlideRecord, records: Sequence[SlideRecord]) -> str:
    """`slide 3`: the third row of slides.csv."""
    return f"slide {next(i for i, each in enumerate(records) if each is record) + 1}"


def hide_slides(text: str, records: Sequence[SlideRecord]) -> str:
    """A text without the names and files of slides."""
    names = {name for record in records for name in (record["name"], record["source"], PurePath(record["source"]).name)}
    return redact_text(redact_names(text, {name for name in names if not could_be_count(name)}, "(slide)"))


def share_kept(record: SlideRecord) -> float:
    """Share of the tiles of a slide that were kept."""
    every = record.get("tiles", 0) + sum(record.get("rejected", {}).values())
    return record.get("tiles", 0) / every if every else 0.0


def render_slide_card(cohort: Cohort, record: SlideRecord, records: Sequence[SlideRecord]) -> Html:
    """One slide: its facts, the outcome of its tiles, and its thumbnail."""
    picture = base64.b64encode(cohort.thumbnail_path(record["name"]).read_bytes()).decode()
    tiled = "facts" in record
    facts = hide_slides(" · ".join(describe_slide(record) if tiled else [record["reason"]]), records)
    return tag(
        "div",
        tag("h3", number_slide(record, records), class_="bad" if describe_problem(record) else None),
        tag("div", facts, class_="facts"),
        render_bar(count_tiles_by_outcome([record])) if tiled else None,
        tag("img", alt="", src=f"data:image/jpeg;base64,{picture}"),
        class_="slide",
    )


def describe_slide(record: SlideRecord) -> list[str]:
    """The facts of a slide in words."""
    facts = record["facts"]
    width, height = facts["dimensions"]
    return [
        f"{width:,} × {height:,} px, {facts['mpp'][0]:.4g} µm per pixel ({facts['mpp_source']})",
        f"read from level {facts['level']} (downsample {facts['downsample']:.5g})",
        *([doubt] if (doubt := describe_doubt(record)) else []),
        f"{record['tiles']:,} kept",
        *(f"{n:,} {why}" for why, n in sorted(record["rejected"].items(), key=lambda pair: -pair[1])),
    ]
