"""The results table: encoder names that differ only in their options are shortened and numbered."""

import io

from rich.console import Console

from transfer.stats import Interval
from transfer.tables import render
from transfer.tables.rows import TABLE_METRICS, Row, Section

LONG = "size=96,interpolation=bilinear,std=0.5/0.5/0.5,model.pad_type=same"
TWINS = [f"random_mobilenetv2_100:mean=0.4794,{LONG}", f"random_mobilenetv2_100:{LONG}"]


def section() -> Section:
    rows = [
        Row(name, "random", "knn", 1.0, {m: Interval(0.9, 0.85, 0.95, "delong") for m in TABLE_METRICS}, [])
        for name in [*TWINS, "cxr_moco"]
    ]
    counts = {part: {"patients": 10, "images": 20} for part in ("train", "val", "test")}
    return Section("view", "l" * 16, "p" * 16, "knn", "h" * 16, rows, [], dict.fromkeys(TABLE_METRICS, 0.5), counts, ("s" * 16,))


def test_names_without_options_are_used_where_they_suffice_and_twins_are_numbered():
    shown = render.shorten_names([section()])
    assert shown["cxr_moco"] == "cxr_moco"
    assert sorted(shown[name] for name in TWINS) == ["random_mobilenetv2_100 #1", "random_mobilenetv2_100 #2"]


def test_the_table_keeps_its_numbers_and_says_below_what_the_twins_are():
    out = io.StringIO()
    render.print_results(Console(file=out, width=120), [section()], {}, {})
    text = out.getvalue()
    assert text.count("0.900 [0.850, 0.950]") == 9  # three encoders, three metrics
    flat = " ".join(text.split())
    assert all(name.split(":")[1][:30] in flat for name in TWINS)
    assert "#1 is" in render.results_to_markdown([section()], {}, {})
