"""What tables say about rows whose settings were searched: how many trials, which settings, and what the search cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from transfer.records.record import Record
from transfer.search.space import describe_settings
from transfer.strategies.names import describe_search, name_in_tables
from transfer.tables.rows import Row, Section

SHOWN_SETTINGS = 3  # distinct choices of the cells of a row that are printed


def find_search(record: Record) -> Mapping[str, Any]:
    """The search of a record; {} without one."""
    found = record.meta.selection.get("search", {})
    return found if isinstance(found, Mapping) else {}


def describe_searches(block: Sequence[Section]) -> list[str]:
    """A caption for every searched protocol, with its cost, and one for each row with the settings that were chosen."""
    lines = []
    for section in block:
        rows = [(row, searches) for row in section.rows if (searches := [found for r in row.records if (found := find_search(r))])]
        if not rows:
            continue
        first = rows[0][1][0]
        images, looks = (sum(int(found[name]) for _, searches in rows for found in searches) for name in ("images_seen", "validations"))
        cells = sum(len(searches) for _, searches in rows)
        lines.append(
            f"{name_in_tables(section.protocol)}: {first['trials']} trials per result over {first['space']}, halving by {first['factor']}, "
            f"seed {first['seed']}; {images:,} images seen and {looks:,} validations in all{'' if cells == 1 else f' {cells} results'}"
        )
        lines += [f"{row.encoder}{row.labels_title}, chosen: {describe_choices(searches)}" for row, searches in rows]
    return lines


def describe_choices(searches: Sequence[Mapping[str, Any]]) -> str:
    """The settings that were chosen, of several cells each distinct choice once."""
    choices = list(dict.fromkeys(describe_settings(list(found["settings"].items())) for found in searches))
    more = f"; and {len(choices) - SHOWN_SETTINGS} more" if len(choices) > SHOWN_SETTINGS else ""
    return "; ".join(choices[:SHOWN_SETTINGS]) + more


def search_columns(row: Row) -> dict[str, object]:
    """The columns of a CSV; {} for settings that were given."""
    searches = [found for r in row.records if (found := find_search(r))]
    if not searches:
        return {}
    return {
        "selected": describe_search(row.protocol),
        "search_trials": searches[0]["trials"],
        "search_space": searches[0]["space"],
        "search_images_seen": sum(int(found["images_seen"]) for found in searches),
        "search_validations": sum(int(found["validations"]) for found in searches),
        "search_chosen": describe_choices(searches),
    }
