"""What became of the coordinates of a cohort."""

from collections.abc import Sequence

from encoders.ingest.wsi.coordinate_grid import DUPLICATE, OUTSIDE_SLIDE
from encoders.ingest.wsi.records import SlideRecord


def describe_coordinates(records: Sequence[SlideRecord]) -> list[str]:
    """Sentences about coordinates taken, outside and duplicate, and about the sizes of tiles; [] without --coords."""
    placed = [(record, facts) for record in records if (facts := record.get("facts", {}).get("coords")) is not None]
    if not placed:
        return []
    given = sum(facts["given"] for _, facts in placed)
    counts = {reason: sum(record.get("rejected", {}).get(reason, 0) for record, _ in placed) for reason in (OUTSIDE_SLIDE, DUPLICATE)}
    taken = given - sum(counts.values())
    dropped = "".join(f", {n:,} {reason}{first_with(placed, reason)}" for reason, n in counts.items())
    lines = [f"coordinates: {given:,} of {len(placed)} slides: {taken:,} taken{dropped}"]
    if over := [record["name"] for record, facts in placed if facts["over_edge"]]:
        tiles = sum(facts["over_edge"] for _, facts in placed)
        lines.append(f"{tiles:,} tiles of {len(over)} slides reach over the edge, where they have the background colour (first: {over[0]})")
    if unsaid := [record["name"] for record, facts in placed if "side" not in facts]:
        lines.append(f"the coordinates of {len(unsaid)} slides state no size of tiles: it is that of --tile and --mpp (first: {unsaid[0]})")
    sizes = [(record["facts"]["tile_mpp"], record["name"]) for record, _ in placed if "tile_mpp" in record["facts"]]
    if sizes and max(sizes)[0] > 1.001 * min(sizes)[0]:
        (low, fine), (high, coarse) = min(sizes), max(sizes)
        lines.append(f"tiles have {low:.4g} ({fine}) to {high:.4g} um per pixel ({coarse}), as the files state their size in pixels")
    return lines


def first_with(placed: Sequence[tuple[SlideRecord, object]], reason: str) -> str:
    """The first slide that lost a coordinate for this reason, in brackets."""
    names = [record["name"] for record, _ in placed if record.get("rejected", {}).get(reason)]
    return f" (first: {names[0]})" if names else ""
