"""The tables of README and docs that list registered parts. `make tables` (`python -m tests.doc_tables`) rewrites them from the registries.

A table stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->`; `tests/test_docs.py` compares it with the registry.
"""

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from encoders.augment.config import AUGMENTATIONS
from encoders.augment.randaugment_settings import RANDAUGMENT_LISTS
from encoders.ingest.sources import SOURCES
from encoders.zoo.tta_settings import TtaSettings
from pretrain.methods import METHODS
from pretrain.recipe.listing import LISTING, build_listing, format_listing
from pretrain.recipe.recipes import RECIPES as PRETRAINING_RECIPES
from transfer.bench.shifts import SHIFTS
from transfer.protocols import PROTOCOLS
from transfer.protocols.mixing_settings import MixingSettings
from transfer.search.parameters import list_search_ranges
from transfer.strategies.names import STRATEGIES, list_settings, strategy_usage
from transfer.study.config import Study
from transfer.tasks.recipes import RECIPES as DATA_SETS

ROOT = Path(__file__).resolve().parent.parent
REGION = re.compile(r"(<!-- table: ([\w-]+) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


def render_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table. A pipe in a cell is escaped."""
    lines = [list(head), *([str(cell).replace("|", "\\|") for cell in row] for row in rows)]
    written = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(lines[0]), *written[1:]]) + "\n"


def methods() -> str:
    rows = [
        (f"`{name}`", method.traits.networks, method.traits.cost, method.traits.needs, method.traits.when_to_choose)
        for name, method in METHODS.items()
    ]
    return render_table(("method", "networks", "encoder passes per image and step", "requirements", "choose it for"), rows)


def protocols() -> str:
    return render_table(
        ("protocol", "title", "what it does"), [(f"`{name}`", entry.title, entry.help) for name, entry in PROTOCOLS.items()]
    )


def strategies() -> str:
    rows = [(f"`{strategy_usage(name)}`", entry.help, entry.source or "-") for name, entry in STRATEGIES.items()]
    return render_table(("strategy", "what is trained", "source"), rows)


def strategy_settings() -> str:
    return render_table(("setting", "default", "meaning"), [(f"`{name}`", value, text) for name, value, text in list_settings()])


def searched() -> str:
    rows = [(f"`{name}`", f"`{values.replace('|', ' ')}`", text) for name, values, text in list_search_ranges()]
    return render_table(("name", "range, or values", "what it is"), rows)


def randaugment() -> str:
    rows = [(f"`{name}`", ", ".join(entry.names), entry.left_out) for name, entry in RANDAUGMENT_LISTS.items()]
    return render_table(("`randaugment_list`", "operations", "left out, and why"), rows)


def mixing_and_views() -> str:
    groups = {**{name: getattr(MixingSettings(), name) for name in MixingSettings.model_fields}, "tta": TtaSettings()}
    rows = [
        (f"`finetune.{group}.{name}`", f"`{json.dumps(field.default)}`", field.description)
        for group, settings in groups.items()
        for name, field in type(settings).model_fields.items()
    ]
    return render_table(("setting", "default", "meaning"), rows)


def study_keys() -> str:
    rows = [
        (f"`{name}`", "-" if field.is_required() else f"`{json.dumps(field.default)}`", field.description)
        for name, field in Study.model_fields.items()
    ]
    return render_table(("key", "default", "meaning"), rows)


def shifts() -> str:
    rows = [(f"`{name}`", shift.title, shift.unit, ", ".join(f"{value:g}" for value in shift.values)) for name, shift in SHIFTS.items()]
    return render_table(("shift", "what it does", "unit", "strengths 1 to 5"), rows)


def sources() -> str:
    return render_table(("command", "result"), [(f"`encoders ingest {name}`", entry.summary) for name, entry in SOURCES.items()])


def supported() -> str:
    """The parts by name, for README."""
    lists = {
        "**Sources**": [f"`{name}`" for name in SOURCES],
        "**Known data sets**": [f"`{name}`" for name in DATA_SETS],
        "**Pretraining methods**": [method.summary.partition(":")[0] for method in METHODS.values()],
        "**Pretraining recipes**": [f"`{name}`" for name in PRETRAINING_RECIPES if not name.endswith("_tiny")],
        "**Augmentations**": [name.replace("_", " ") for name in AUGMENTATIONS],
        "**Protocols**": [f"{entry.title} (`{name}`)" for name, entry in PROTOCOLS.items()],
        "**Acquisition shifts**": [f"`{name}`" for name in SHIFTS],
    }
    return render_table(("parts", ""), [(title, ", ".join(names)) for title, names in lists.items()])


def data_sets() -> str:
    """The known data sets with the command that prints how to use each, by modality."""
    recipes = sorted(DATA_SETS.items(), key=lambda item: (item[1].modality, item[0]))
    rows = [(r.title, f"`transfer tasks recipes {name}`", r.describe_split(), r.describe_labels()) for name, r in recipes]
    return render_table(("data set", "command", "split", "labels"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "supported": supported,
    "methods": methods,
    "protocols": protocols,
    "strategies": strategies,
    "strategy-settings": strategy_settings,
    "searched": searched,
    "randaugment": randaugment,
    "mixing-and-views": mixing_and_views,
    "study-keys": study_keys,
    "shifts": shifts,
    "sources": sources,
    "data-sets": data_sets,
}


def pages() -> list[Path]:
    """README and every page of the documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def with_tables(text: str) -> str:
    """The text with every marked table made anew."""
    return REGION.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


def main() -> None:
    """Rewrites the marked tables of all pages, and what `pretrain methods` and `pretrain settings` print."""
    LISTING.write_text(format_listing(build_listing()), encoding="utf-8")
    for page in pages():
        page.write_text(with_tables(page.read_text()))


if __name__ == "__main__":
    main()
