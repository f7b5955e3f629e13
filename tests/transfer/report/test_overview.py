"""The sentence and the matrix of a report: on the page, on a terminal and as a picture, for any number of encoders and any verdicts."""

import io
import re
from itertools import cycle, product

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from encoders.runtime.errors import InputError
from tests.transfer.report.large_bench import ENCODERS, MadeEncoder, make_records
from tests.transfer.report.test_report import EVIL, Tags, drawn
from transfer.report import card, notes, overview, panels
from transfer.stats import Difference, Interval
from transfer.tables import matrix, matrix_text, render
from transfer.tables.matrix_sentence import summarize_matrix
from transfer.tables.rows import Comparison, Row, Section
from transfer.tasks.plain_classes import negative_class, plain_class

VERDICTS = ("better", "worse", "not distinguishable", "insufficient patients", "equivalent", "not inferior", "does not transfer")
NAMES = [f"encoder_number_{i}_with_a_rather_long_name:size=224" for i in range(11)] + [EVIL]


def judged(word):
    """A difference whose reported verdict is `word`."""
    if word in ("equivalent", "not inferior"):
        p = {"holm_equivalence_p" if word == "equivalent" else "holm_inferiority_p": 0.01}
        return Difference(0.0, -0.01, 0.01, 0.9, "not distinguishable", "m", margin=0.05, holm_p=0.9, family=3, **p)
    if word in ("insufficient patients", "does not transfer"):
        return Difference(0.04, 0.01, 0.07, 0.01, "better", "m", withheld=word)
    ends = {"better": (0.01, 0.07), "worse": (-0.07, -0.01), "not distinguishable": (-0.03, 0.05)}[word]
    return Difference(float(np.mean(ends)), *ends, 0.01, word, "m", holm_p=0.02 if word != "not distinguishable" else 0.6, family=3)


def make_sections(verdicts, tasks=("pneumonia",), protocols=("knn",), reference="imagenet_net", role="imagenet", others=()):
    """Sections without records. verdicts: encoder -> its verdicts, one per (task, protocol), repeated as needed; None: not compared."""
    supply = {name: cycle(words) for name, words in verdicts.items()}
    sections = []
    for task, protocol in product(tasks, protocols):
        rows = []
        for name, words in supply.items():
            word = next(words)
            compared = [] if word is None else [Comparison(reference, "same architecture", judged(word), primary=True)]
            rows.append(Row(name, "encoder", protocol, 1.0, {"auroc": Interval(0.9, 0.85, 0.95, "m")}, [], comparisons=compared))
        if reference:
            rows.append(Row(reference, role, protocol, 1.0, {"auroc": Interval(0.86, 0.8, 0.9, "m")}, []))
        rows += [Row(name, kind, protocol, 1.0, {"auroc": Interval(0.5, 0.4, 0.6, "m")}, []) for name, kind in others]
        sections.append(Section(task, "l", "p", protocol, "h", rows))
    return sections


def large(encoders=12, tasks=4, protocols=("knn", "fewshot", "linear")):
    """A bench of as many encoders and tasks, with every verdict."""
    names = (NAMES + [f"more_{i}" for i in range(encoders)])[:encoders]
    verdicts = {name: VERDICTS[i % 7 :] + VERDICTS[: i % 7] for i, name in enumerate(names)}
    return make_sections(verdicts, [f"task{i}" for i in range(tasks)], protocols)


def names_of(sections):
    return {row.encoder: row.encoder for s in sections for row in s.rows}


def say(sections):
    return summarize_matrix(matrix.build_matrix(sections), names_of(sections))


def test_every_encoder_task_and_protocol_has_a_cell_with_score_interval_symbol_and_colour():
    sections = large()
    found = matrix.build_matrix(sections)
    text = overview.render_matrix(found, names_of(sections))
    rows = re.findall(r'<tr class="role-(\w+)"><th[^>]*>(.*?)</th>(.*?)</tr>', text)
    assert [name.replace("<wbr>", "") for _, name, _ in rows] == ["imagenet_net", *NAMES[:11], "&lt;script&gt;alert(1)&lt;/script&gt;"]
    assert text.index('class="role-imagenet"') < text.index("</thead>") < text.index('class="role-encoder"')
    symbols = {"better": "▲", "worse": "▼", "not distinguishable": "○", "insufficient patients": "?"}
    symbols |= {"equivalent": "=", "not inferior": "≥", "does not transfer": "×"}
    styles = {"better": "better", "worse": "worse", "insufficient patients": "none", "does not transfer": "none"}
    for (role, _, cells), row in zip(rows, found.rows, strict=True):
        parts = re.findall(r"<td.*?</td>", cells)
        assert len(parts) == 12
        for part, cell in zip(parts, row.cells, strict=True):
            assert "<b>.900</b>" in part or role == "imagenet"
            assert ".850–.950" in part or role == "imagenet"
            if role == "encoder":
                assert f'aria-label="{cell.verdict}">{symbols[cell.verdict]}<' in part
                assert re.search(rf'class="{styles.get(cell.verdict, "same")}( first)?"', part)
    assert len(set(symbols.values())) == 7, "a symbol stands for one verdict, whatever its colour"
    assert all(word in text for word in symbols)


@pytest.mark.parametrize(("tasks", "protocols"), [(1, 1), (7, 3), (3, 5), (1, 14)])
def test_no_table_of_the_page_has_more_columns_than_fit_and_none_is_lost(tasks, protocols):
    sections = large(3, tasks, [f"protocol{i}" for i in range(protocols)])
    text = overview.render_matrix(matrix.build_matrix(sections), names_of(sections))
    tables = text.split("<table")[1:]
    counts = [table.count("<td", table.index('class="role-imagenet"')) // 4 for table in tables]  # four rows each
    assert sum(counts) == tasks * protocols
    assert max(counts) <= overview.MOST_COLUMNS
    assert all("imagenet_<wbr>net" in table for table in tables)


def test_cells_without_a_result_say_why():
    sections = make_sections({"a": ("better",), "b": ("worse",)}, ("t1", "t2"))
    sections[0].rows = [row for row in sections[0].rows if row.encoder != "b"]
    few = sections[1].rows[1]
    sections[1].rows[1] = Row("b", "encoder", "knn", 0.1, few.metrics, [])
    found = matrix.build_matrix(sections)
    assert [cell.state for row in found.rows if row.encoder == "b" for cell in row.cells] == ["not run", "fewer labels"]
    assert "1 cell fewer labels; 1 cell not run." in Tags(overview.render_matrix(found, names_of(sections))).text


def test_a_verdict_against_another_baseline_than_imagenet_is_marked():
    sections = make_sections({"a": ("better",)}, reference="random_net", role="random")
    assert matrix.build_matrix(sections).rows[0].cells[0].symbol() == "▲†"
    assert "† the strongest baseline is not ImageNet weights" in matrix.describe_symbols(matrix.build_matrix(sections))
    assert "†" not in str(matrix.describe_symbols(matrix.build_matrix(make_sections({"a": ("better",)}))))


@pytest.mark.parametrize(
    ("verdicts", "more", "said"),
    [
        ({"a": ("better",)}, {}, "a is better than imagenet_net by 0.040 AUROC."),
        ({"a": ("worse",)}, {}, "a is worse than imagenet_net by 0.040 AUROC."),
        ({"a": ("not distinguishable",)}, {}, "a is not distinguishable from imagenet_net: difference +0.010 AUROC."),
        ({"a": ("equivalent",)}, {}, "a is equivalent to imagenet_net at a margin of 0.05 AUROC: difference +0.000 AUROC."),
        ({"a": ("insufficient patients",)}, {}, "a cannot be compared with imagenet_net: insufficient patients."),
        ({"a": ("does not transfer",)}, {}, "a cannot be compared with imagenet_net: neither is above chance."),
        ({"a": ("better",)}, {"tasks": "xyz"}, "a is better than imagenet_net in all 3 comparisons."),
        (
            {"a": ("better", "not distinguishable")},
            {"tasks": "xyz"},
            "Compared with imagenet_net, a is better in 2, not distinguishable in 1 of 3 comparisons.",
        ),
        (
            {"a": ("better",), "b": ("worse",), "c": ("not distinguishable",)},
            {},
            "Of 3 encoders, 1 is better than imagenet_net in at least one comparison and worse in none (a in 1 of 1), 1 is worse in at "
            "least one and better in none and 1 is without a significant difference.",
        ),
        ({"a": ("not distinguishable",), "b": ("equivalent",)}, {}, "None of the 2 encoders differs significantly from imagenet_net."),
        (
            {"a": ("not distinguishable",), "b": ("worse",)},
            {},
            "None of the 2 encoders is better than imagenet_net: 1 is worse in at least one and better in none and 1 is without a "
            "significant difference.",
        ),
        (
            {"a": ("better", "worse"), "b": ("worse",)},
            {"tasks": "xy"},
            "Of 2 encoders, 1 is worse in at least one and better in none (compared with imagenet_net) and 1 is better in some and "
            "worse in others.",
        ),
        (
            {"a": ("insufficient patients",), "b": ("insufficient patients",)},
            {"tasks": "xy"},
            "None of the 2 encoders can be compared with imagenet_net: insufficient patients in 4 of 4 comparisons.",
        ),
        (
            {"a": ("better",)},
            {"reference": "random_net", "role": "random"},
            "a is better than random_net by 0.040 AUROC (no ImageNet weights were benchmarked).",
        ),
        ({"a": (None,)}, {"reference": ""}, "There is nothing to compare, as a was benchmarked alone: benchmark ImageNet or random"),
        ({"a": (None,), "b": (None,)}, {"reference": ""}, "There is nothing to compare, as 2 encoders were benchmarked without a baseline"),
        ({"a": ("better",), "b": (None,)}, {}, "a is better than imagenet_net by 0.040 AUROC (1 more is compared with nothing)."),
    ],
)
def test_the_first_sentence_is_true_in_every_case(verdicts, more, said):
    assert say(make_sections(verdicts, **more)).startswith(said)


def test_the_sentence_counts_every_encoder_once_and_seeds_in_their_recipe():
    for n in (2, 5, 12):
        for tasks in (1, 2, 3):
            numbers = list(map(int, re.findall(r"(?:, |: |and )(\d+) (?:is|are) ", sentence := say(large(n, tasks, ("knn",))))))
            assert sum(numbers) == n, sentence
    sections = make_sections({"a and 1 more seed": ("better",), "a": ("worse",), "b": ("worse",)})
    sections[0].rows[0].seeds = ["a", "b"]
    assert say(sections) == "a and 1 more seed is better than imagenet_net by 0.040 AUROC."
    assert say([Section("t", "l", "p", "knn", "h")]) == "There is no result: every cell of the benchmark failed."


def printed(sections, width, encoding="utf-8"):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    matrix_text.print_matrix(Console(file=file, width=width, highlight=False), sections, names_of(sections))
    return file.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_terminal_shows_the_same_matrix_at_any_width_and_cuts_nothing(width):
    sections = large()
    text = printed(sections, width)
    assert max(map(len, text.splitlines())) <= width
    columns = 0
    for part in text.split("encoder  ")[1:]:
        columns += part.split("\n─")[0].count("k-NN") + part.split("\n─")[0].count("few-shot") + part.split("\n─")[0].count("linear")
    assert columns == 12
    assert text.count(".850–.950") == 12 * 12
    for word in VERDICTS:
        symbol = matrix.VERDICT_SYMBOLS[word][0]
        wanted = sum(cell.verdict == word for row in matrix.build_matrix(sections).rows for cell in row.cells)
        assert text.count(f".900 {symbol}") == wanted
    left = "".join(line[: max(12, min(52, 34, width // 3))].strip() for line in text.splitlines())
    assert all(name in left for name in NAMES)
    assert "…" not in text


def test_a_terminal_without_unicode_gets_other_symbols():
    text = printed(large(), 120, "ascii")
    assert ".900 +" in text
    assert ".850-.950" in text
    assert "Of 12 encoders" in " ".join(text.split())


def test_one_column_needs_no_matrix_on_a_terminal():
    assert printed(make_sections({"a": ("better",)}), 80).strip() == "a is better than imagenet_net by 0.040 AUROC."


@pytest.mark.parametrize(("encoders", "tasks", "count"), [(1, 1, 1), (12, 4, 1), (40, 1, 3)])
def test_cards_have_the_size_of_a_preview_and_hold_every_encoder_inside(tmp_path, encoders, tasks, count):
    sections = large(encoders, tasks)
    figures = card.draw_cards(sections, names_of(sections))
    assert len(figures) == count
    texts = [[t.get_text() for t in figure.texts] for figure in figures]
    joined = ["".join(words) for words in texts]
    for name in names_of(sections):
        assert sum(name in words for words in joined) >= (count if name == "imagenet_net" else max(1, count * (tasks > 4)))
    cells = sum(words.count(".900") for words in texts)
    assert cells == encoders * tasks * 3
    for figure in figures:
        for text in figure.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= card.WIDTH
            assert box.y1 <= card.HEIGHT
    if encoders == 40:
        paths = card.write_cards(tmp_path / "report.html", sections, names_of(sections))
        assert [path.name for path in paths] == ["report.png", "report-2.png", "report-3.png"]
        for path in paths:
            with Image.open(path) as picture:
                assert picture.size == (1200, 630)


def test_notes_are_ten_lines_at_most_the_rest_folds_and_nothing_is_lost():
    lines = [f"note {i} " + "x" * (i % 3 * 120) for i in range(20)] + ["warning: w", "LEAKAGE ALLOWED: l"]
    html = notes.render_notes(lines)
    top, _, folded = html.partition("<details>")
    shown, hidden = re.findall(r"<li[^>]*>(.*?)</li>", top), re.findall(r"<li[^>]*>(.*?)</li>", folded)
    assert shown[:2] == ["LEAKAGE ALLOWED: l", "warning: w"]
    assert sum(-(-len(line) // notes.LETTERS_A_LINE) for line in shown) < notes.MOST_LINES
    assert sorted(shown + hidden) == sorted(lines)
    assert f"{len(hidden)} more notes" in folded
    assert "<details>" not in notes.render_notes(lines[:5])
    leaks = [f"LEAKAGE ALLOWED: {i}" for i in range(15)]
    assert len(re.findall("<li", notes.render_notes(leaks).partition("<details>")[0])) == 15, "leaks never fold"


@pytest.mark.parametrize(
    ("name", "plain", "other"),
    [
        ("view=PA", "PA", "not PA"),
        ("pneumonia=yes", "pneumonia", "not pneumonia"),
        ("malignant=1", "malignant", "not malignant"),
        ("grade=3", "grade 3", "not grade 3"),
        ("pneumonia", "pneumonia", "not pneumonia"),
        ("=odd", "=odd", "not =odd"),
    ],
)
def test_classes_are_named_in_plain_words(name, plain, other):
    assert (plain_class(name), negative_class(name)) == (plain, other)


@pytest.mark.parametrize("count", [1, 2, 6, 7, 12, 13, 40])
def test_every_encoder_is_in_a_panel_and_no_two_of_a_panel_look_alike(count):
    sections = large(count - 1 if count > 1 else 1, 1, ("knn",))
    pens = panels.assign_pens(sections)
    found = panels.split_panels(pens, pens)
    assert {name for panel in found for name in panel} == set(pens)
    assert all(len({pens[name] for name in panel}) == len(panel) <= panels.MAX_CURVES for panel in found)
    if len(pens) > panels.MAX_CURVES:
        assert all(panel[0] == "imagenet_net" for panel in found)
        assert sum(map(len, found)) == len(pens) + len(found) - 1
    some = list(pens)[1::2]
    assert {name for panel in panels.split_panels(some, pens) for name in panel} == set(some)


def test_a_page_of_eight_encoders_draws_all_of_them_and_keeps_the_rows_of_one_together():
    encoders = [*ENCODERS[:5], MadeEncoder(EVIL, "encoder", "resnet50", 0.9), *ENCODERS[-3:-1]]
    text = drawn(make_records(["view"], ["fewshot", "knn"], encoders))
    names = [EVIL.replace("<", "&lt;").replace(">", "&gt;") if e.name == EVIL else e.name for e in encoders]
    for kind in (
        "ROC, k-NN",
        "precision-recall, k-NN",
        "risk and coverage, k-NN",
        "decision curve, k-NN",
        "single episodes, few-shot probe",
    ):
        charts = [c for c in re.findall(r"<svg.*?</svg>", text) if f"<title>{kind} (" in c]
        assert len(charts) == 2
        assert {name for c in charts for name in re.findall(r'class="curve"><title>(.*?)</title>', c)} == set(names), kind
    table = re.search(r'<table class="results">.*?</table>', text)[0]
    titles = re.findall(r'<tr class="name"><th[^>]*>(.*?)</th>', table)
    assert titles[:2] == ["imagenet_resnet50", "imagenet_vit_small_patch16_224"]
    assert sorted(titles) == sorted([*names, render.MAJORITY_NAME])
    assert "view=PA" not in re.search(r'<div class="grid">(<figure><figcaption>.*)', text)[1].split("</section>")[0]
    assert "not PA" in text
    assert "AUROC of single episodes" not in text
    assert "<script" not in text
    assert text.index('class="headline"') < text.index('class="pane"') < text.index("comparisons in words</summary>")
    assert text.count('class="headline"', 0, text.index('class="pane"')) == 1


def test_large_bench_refuses_nothing_of_its_own_records():
    """The made-up bench is read as any record is, so that the page that is looked at is a real one."""
    from transfer.records import record

    one = make_records(["pneumonia"], ["fewshot"], ENCODERS[:1])[0]
    assert record.read_record(record.write_record(one)).identity == one.identity
    with pytest.raises(InputError):
        record.read_record("nowhere.json")
