"""The summary of a cohort: printed, as a table, and as a page with every slide."""

from collections import Counter
from collections.abc import Sequence

from encoders.ingest.damage import DAMAGE_ACCEPTED
from encoders.ingest.notes import describe_damages
from encoders.ingest.wsi.cohort import Cohort, describe_doubt, describe_problem
from encoders.ingest.wsi.coordinate_summary import describe_coordinates
from encoders.ingest.wsi.overview_page import render_page
from encoders.ingest.wsi.records import SlideRecord
from encoders.ingest.wsi.region_classes import describe_region_classes
from encoders.runtime.escape import format_csv
from encoders.runtime.files import atomic_write


def write_summary(cohort: Cohort, records: Sequence[SlideRecord]) -> None:
    """Writes OUT_DIR/slides.csv and OUT_DIR/overview.html."""
    reasons = sorted(count_rejections(records))
    head = ["slide", "source", "tiles", *reasons, "mpp", "mpp_source", "level", "upscale", "tiles_per_s", "trouble", "check"]
    with atomic_write(cohort.out / "slides.csv", private=True) as part:  # names of slides, which may be those of patients
        part.write_text(format_csv([head, *(summary_row(record, reasons) for record in records)]), encoding="utf-8")
    with atomic_write(cohort.out / "overview.html") as part:
        part.write_text(render_page(cohort, records), encoding="utf-8")


def summary_row(record: SlideRecord, reasons: Sequence[str]) -> list[object]:
    """The row of a slide in slides.csv."""
    rejected = record.get("rejected", {})
    counts = [rejected.get(reason, 0) for reason in reasons]
    measures: list[object] = ["", "", "", "", ""]
    if "facts" in record:
        facts = record["facts"]
        measures = [
            facts["mpp"][0],
            facts["mpp_source"],
            facts["level"],
            round(facts.get("upscale", 1.0), 4),
            round(tiles_per_second(record), 1),
        ]
    return [record["name"], record["source"], record.get("tiles", 0), *counts, *measures, describe_problem(record), describe_doubt(record)]


def count_rejections(records: Sequence[SlideRecord]) -> Counter[str]:
    """Number of tiles of the whole cohort that were not kept, by reason."""
    return sum((Counter(record.get("rejected", {})) for record in records), Counter())


def tiles_per_second(record: SlideRecord) -> float:
    """Tiles per second and process while the slide was read, kept or not."""
    return float(record["read"] / record["seconds"]) if record.get("seconds") else 0.0


def find_identical_slides(good: Sequence[SlideRecord]) -> list[list[str]]:
    """Names of slides whose files have the same hash by OpenSlide."""
    by_hash: dict[str, list[str]] = {}
    for record in good:
        by_hash.setdefault(record["facts"]["quickhash"] or record["name"], []).append(record["name"])
    return [names for names in by_hash.values() if len(names) > 1]


def print_summary(cohort: Cohort, records: Sequence[SlideRecord]) -> None:
    """Prints the summary."""
    import typer

    from encoders.ingest.quarantine import print_quarantine, quarantine_path

    good = [record for record in records if "tiles" in record]
    s = cohort.settings
    kind = f"{s.tile} x {s.tile} px at {s.mpp:g} um per pixel, {s.codec}"
    typer.echo(f"{cohort.out}: {sum(r['tiles'] for r in good)} tiles of {len(good)} of {len(records)} slides, {kind}")
    if rejected := count_rejections(records):
        typer.echo("rejected: " + ", ".join(f"{n} {why}" for why, n in rejected.most_common()))
    if classes := describe_region_classes(good, s.include, s.exclude):
        typer.echo(classes)
    if accepted := [(r["name"], words) for r in good for words in r.get("accepted_damage", ())]:
        typer.echo(f"warning: {len(accepted):,} tiles: {DAMAGE_ACCEPTED}{describe_damages(accepted)}")
    undrawn = [r["name"] for r in good if not r["facts"].get("regions", True)]
    if undrawn:
        typer.echo(f"warning: the regions of {len(undrawn)} slides hold no drawn object, so nothing is excluded (first: {undrawn[0]})")
    estimated = [r["name"] for r in good if "estimated" in r["facts"]["mpp_source"]]
    if estimated:
        typer.echo(
            f"warning: the resolution of {len(estimated)} slides is estimated from the power of the objective (first: {estimated[0]})"
        )
    oblong = [r["name"] for r in good if r["facts"]["oblong"]]
    if oblong:
        typer.echo(f"warning: {len(oblong)} slides have pixels that are not square (first: {oblong[0]}); their tiles have square pixels")
    upscaled = [(r["facts"]["upscale"], r["name"]) for r in good if "upscale" in r["facts"]]
    if upscaled:
        most, name = max(upscaled)
        by = f"up to {most:.4g} times (--max-upscale {s.max_upscale:g}; most: {name})"
        typer.echo(f"{len(upscaled)} slides are coarser than --mpp {s.mpp:g}, and their tiles are interpolated: {by}")
    for line in describe_coordinates(records):
        typer.echo(line)
    for same in find_identical_slides(good):
        typer.echo(f"warning: {' and '.join(same)} are the same slide; its tiles are duplicated, as tiles of {len(same)} slides")
    conflicts = [(r["name"], r["facts"]["mpp_said"]) for r in good if "mpp_said" in r["facts"]]
    if conflicts:
        name, mpp = conflicts[0]
        first = f"(first: {name}, {mpp:g} um per pixel)"
        typer.echo(f"warning: the metadata of {len(conflicts)} slides have another resolution than the given one {first}")
    doubtful = [(r["name"], doubt) for r in good if (doubt := describe_doubt(r))]
    if doubtful:
        name, doubt = doubtful[0]
        typer.echo(f"warning: inspect {len(doubtful)} slides (first: {name}: {doubt}); see --tissue-threshold, --masks and the overview")
    bad = [(record["source"], reason) for record in records if (reason := describe_problem(record))]
    if bad:
        print_quarantine(bad, quarantine_path(cohort.out / "slides"))
    typer.echo(f"overview of all slides: {cohort.out / 'overview.html'}")
