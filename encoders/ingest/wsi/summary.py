"""What became of a cohort, told three times: on the terminal, as a table, and as a page with every slide."""

import csv
from collections import Counter
from collections.abc import Sequence

from encoders.ingest.wsi.cohort import Cohort, SlideRecord, describe_problem
from encoders.ingest.wsi.overview_page import render_page
from encoders.runtime.files import atomic_write


def write_summary(cohort: Cohort, records: Sequence[SlideRecord]) -> None:
    """OUT_DIR/slides.csv and OUT_DIR/overview.html."""
    reasons = sorted(count_rejections(records))
    head = ["slide", "source", "tiles", *reasons, "mpp", "mpp_source", "level", "tiles_per_s", "trouble"]
    with atomic_write(cohort.out / "slides.csv") as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head, *(summary_row(record, reasons) for record in records)])
    with atomic_write(cohort.out / "overview.html") as part:
        part.write_text(render_page(cohort, records), encoding="utf-8")


def summary_row(record: SlideRecord, reasons: Sequence[str]) -> list[object]:
    facts, rejected = record.get("facts", {}), record.get("rejected", {})
    seen = [rejected.get(reason, 0) for reason in reasons]
    told = [facts["mpp"][0], facts["mpp_source"], facts["level"], round(tiles_per_second(record), 1)] if facts else ["", "", "", ""]
    return [record["name"], record["source"], record.get("tiles", 0), *seen, *told, describe_problem(record)]


def count_rejections(records: Sequence[SlideRecord]) -> Counter[str]:
    """Tiles of the whole cohort that were not kept, by reason."""
    return sum((Counter(record.get("rejected", {})) for record in records), Counter())


def tiles_per_second(record: SlideRecord) -> float:
    """Tiles a second of one process, kept or not, while the slide was read."""
    return float(record["read"] / record["seconds"]) if record.get("seconds") else 0.0


def find_identical_slides(good: Sequence[SlideRecord]) -> list[list[str]]:
    """Names of slides whose files are the same by OpenSlide's hash."""
    by_hash: dict[str, list[str]] = {}
    for record in good:
        by_hash.setdefault(record["facts"]["quickhash"] or record["name"], []).append(record["name"])
    return [names for names in by_hash.values() if len(names) > 1]


def print_summary(cohort: Cohort, records: Sequence[SlideRecord]) -> int:
    """Prints the summary; returns the exit status: 1 when a slide failed or is damaged."""
    import typer

    from encoders.ingest.merge_shards import quarantine_path
    from encoders.ingest.quarantine import print_quarantine

    good = [record for record in records if "tiles" in record]
    s = cohort.settings
    kind = f"{s.tile} x {s.tile} px at {s.mpp:g} um a pixel, {s.codec}"
    typer.echo(f"{cohort.out}: {sum(r['tiles'] for r in good)} tiles of {len(good)} of {len(records)} slides, {kind}")
    if rejected := count_rejections(records):
        typer.echo("rejected: " + ", ".join(f"{n} {why}" for why, n in rejected.most_common()))
    estimated = [r["name"] for r in good if "estimated" in r["facts"]["mpp_source"]]
    if estimated:
        typer.echo(f"warning: the resolution of {len(estimated)} slides is estimated from the objective's power (first: {estimated[0]})")
    oblong = [r["name"] for r in good if r["facts"]["oblong"]]
    if oblong:
        typer.echo(f"warning: {len(oblong)} slides have pixels that are not square (first: {oblong[0]}); tiles are")
    for same in find_identical_slides(good):
        typer.echo(f"warning: {' and '.join(same)} are the same slide: its tiles count twice, and as those of {len(same)} slides")
    apart = [(r["name"], r["facts"]["mpp_said"]) for r in good if "mpp_said" in r["facts"]]
    if apart:
        name, mpp = apart[0]
        typer.echo(f"warning: {len(apart)} slides themselves say another resolution than the one given (first: {name}, {mpp:g} um a pixel)")
    bad = [(record["source"], why) for record in records if (why := describe_problem(record))]
    if bad:
        print_quarantine(bad, quarantine_path(cohort.out / "slides"))
    typer.echo(f"every slide at a glance: {cohort.out / 'overview.html'}")
    return int(bool(bad))
