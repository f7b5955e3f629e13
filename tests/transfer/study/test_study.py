"""Studies: the file, the cells, a study that is run, grows and is submitted, and verdicts that are corrected together."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest
import yaml

from encoders.runtime.errors import InputError
from encoders.runtime.slurm_site import Site
from tests.transfer import toys
from tests.transfer.bench.test_bench import add
from tests.transfer.cli.test_cli import call
from tests.transfer.report.test_report import made
from transfer.bench.bench import load_protocols
from transfer.bench.bench_arguments import parse_bench_arguments
from transfer.bench.bench_folder import bench_folder
from transfer.report.page import render_page
from transfer.stats.verdict import SIGNIFICANT
from transfer.study.cells import list_study_cells
from transfer.study.config import Study, name_study, read_study
from transfer.study.folder import write_study_folder
from transfer.tables.build import build_sections
from transfer.tables.labels_needed import count_needed
from transfer.tables.study_rows import choose_strategies, judge_study, measure_costs
from transfer.tables.study_table import build_study_tables

NET, OTHER = "random_test_resnet:size=32,channels=1", "random_test_resnet:size=32,channels=1,seed=1"
QUICK = {"finetune": {"min_steps": 2, "max_steps": 2, "evaluations": 1, "batch": 4, "augment": {"preset": "none"}}}
STUDY = {
    "tasks": ["toy"], "encoders": [NET], "baselines": [OTHER], "strategies": ["linear", "full"], "fractions": ["8p", 1], "seeds": 2,
    "settings": QUICK,
}  # fmt: skip


@pytest.fixture
def study_file(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=20), "toy")
    path = tmp_path / "how.yaml"
    path.write_text(yaml.safe_dump(STUDY))
    return path


def test_every_combination_is_a_cell_and_the_first_seeds_come_first(study_file):
    study = read_study(study_file).model_copy(update={"imbalance": ["class_weight", "focal"], "protocols": ["knn"]})
    cells = list_study_cells(study, "cpu").cells
    parsed = [parse_bench_arguments(cell.arguments) for cell in cells]
    trained = [options for options in parsed if options.protocol != "knn"]
    wanted = {(e, p, s) for e in (NET, OTHER) for s in (0, 1)
              for p in ("finetune", "finetune-linear", "finetune-full+focal", "finetune-linear+focal")}  # fmt: skip
    assert [options.seed for options in parsed] == sorted(options.seed for options in parsed)
    assert {(*options.encoder, options.protocol, options.seed) for options in trained} == wanted
    assert len(trained) == len(wanted)
    assert {(options.draw, options.fractions, options.device) for options in trained} == {(0, "8p,1", "cpu"), (1, "8p,1", "cpu")}
    # k-NN has no seed: on all labels it is computed once.
    assert {(*options.encoder, options.seed, options.fractions) for options in parsed if options.protocol == "knn"} == {
        *((e, 0, "8p,1") for e in (NET, OTHER)),
        *((e, 1, "8p") for e in (NET, OTHER)),
    }


def test_a_search_is_that_of_every_training_and_not_of_other_protocols(study_file):
    study = read_study(study_file).model_copy(update={"protocols": ["knn"], "search": "lr", "trials": 4})
    for cell in list_study_cells(study).cells:
        options = parse_bench_arguments(cell.arguments).to_request()
        (loaded,) = load_protocols(options.protocols, 0, options.overrides)
        assert loaded.endswith("~best4") == (cell.protocol != "knn")


def test_each_task_may_have_its_own_encoders(study_file, tmp_path):
    add(toys.store(tmp_path / "second.h5", patients=20, seed=3), "second")
    study = Study(encoders={"toy": [NET], "second": [OTHER]}, baselines=[], seeds=1)
    assert [(cell.task, cell.encoder) for cell in list_study_cells(study).cells] == [("toy", NET), ("second", OTHER)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"strategies": ["lats=2"]}, "no strategy called 'lats'; did you mean last?"),
        ({"imbalance": ["focl"]}, "did you mean"),
        ({"strategies": [], "protocols": []}, "nothing to run"),
        ({"encoders": []}, "encoders is empty"),
        ({"encoders": {"other": [NET]}}, "no list for the task 'toy'"),
        ({"options": ["--seed", "3"]}, "decided by the key `seeds`"),
        ({"options": ["--draws=3"]}, "decided by the key `seeds`"),
        ({"options": ["--search", "lr"]}, "decided by the key `search`"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": True}, "seeds"),
        ({"seeds": 10**8}, "seeds"),
        ({"fractions": []}, "fractions"),
        ({"imbalance": []}, "imbalance"),
        ({"stategies": ["full"]}, "strategies"),
        ({"tasks": "toy"}, "tasks"),
    ],
)
def test_what_is_wrong_with_a_study_is_named(study_file, change, expected):
    study_file.write_text(yaml.safe_dump(STUDY | change))
    with pytest.raises(InputError, match=re.escape(expected)):
        read_study(study_file)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"fractions": ["8x"]}, "--fractions"),
        ({"fractions": [0]}, "above 0 and at most 1"),
        ({"fractions": ["0p"]}, "above 0 and at most 1"),
        ({"tasks": ["tow"]}, "tow"),
        ({"encoders": ["random_resnet10tt"]}, "resnet10t"),
        ({"settings": {"finetune": {"lora": {"rank": 4}}}}, "has no effect"),
        ({"protocols": ["kn"]}, "knn"),
        ({"trials": 3}, "--trials is the number of trials of a search"),
        ({"search": "lrr"}, "lr"),
        ({"search": "lr", "strategies": [], "protocols": ["knn"]}, "is about fine-tuning"),
    ],
)
def test_what_bench_would_refuse_is_refused_before_anything_is_computed(study_file, change, expected):
    study = Study.model_validate(STUDY | change)
    with pytest.raises(InputError, match=re.escape(expected)):
        list_study_cells(study)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"settings": {"finetune": {"min_step": 4}}}, "min_steps"),
        ({"options": ["--fold", "5"]}, "--fold"),
        ({"options": ["--folds", "five"]}, "--folds"),
    ],
)
def test_a_dry_run_refuses_settings_and_options_that_bench_refuses(study_file, change, expected):
    study_file.write_text(yaml.safe_dump(STUDY | change))
    with pytest.raises(InputError, match=re.escape(expected)):
        call("study", study_file, "--dry-run")


def test_the_name_is_that_of_the_file_and_must_be_a_name(tmp_path):
    assert (name_study(tmp_path / "how.yaml", None), name_study(tmp_path / "how.yml", "mine")) == ("how", "mine")
    with pytest.raises(InputError, match="not a valid bench name"):
        name_study(tmp_path / "-x.yaml", None)


def test_a_study_is_computed_once_grows_and_has_its_tables_and_page(study_file):
    result = call("study", str(study_file), "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "16 fits in 8 cells" in result.output
    folder = bench_folder("how")
    assert all(folder.exit_status(i) == 0 for i in range(8))
    for title in ("which strategy when", "strategies by number of labels: toy", "labels needed instead: toy", "cost"):
        assert title in result.output
        assert title.capitalize() in (folder.path / "report.html").read_text()
        assert f"### {title}" in (folder.path / "study.md").read_text()
    rows = list(csv.DictReader((folder.path / "study.csv").read_text().splitlines()))
    assert len(rows) == 8  # encoders x strategies x numbers of labels
    again = call("study", str(study_file), "--device", "cpu")
    assert again.output.count(" is done") == 8
    study_file.write_text(yaml.safe_dump(STUDY | {"strategies": ["linear", "full", "bitfit"]}))
    grown = call("study", str(study_file), "--device", "cpu")
    assert grown.exit_code == 0, grown.output
    assert sum(map(int, re.findall(r"(\d+) results computed", grown.output))) == 8
    assert sum(map(int, re.findall(r"(\d+) from records", grown.output))) == 16
    assert call("study", str(study_file), "--report-only").exit_code == 0


def test_a_cell_that_fails_is_named_and_the_others_are_in_the_tables(study_file, monkeypatch):
    from transfer.protocols import finetune

    own = finetune.build_strategy

    def fail_linear(cfg):
        if cfg.strategy == "linear":
            raise RuntimeError("no linear today")
        return own(cfg)

    monkeypatch.setattr(finetune, "build_strategy", fail_linear)
    study_file.write_text(yaml.safe_dump(STUDY | {"baselines": [], "fractions": [1], "seeds": 1}))
    result = call("study", str(study_file), "--device", "cpu")
    assert result.exit_code == 1
    assert "1 cell failed; `transfer jobs how` states why" in result.output
    assert "no linear today" in (bench_folder("how").path / "status" / "0").read_text()
    monkeypatch.setattr(finetune, "build_strategy", own)
    assert call("study", str(study_file), "--device", "cpu").exit_code == 0


def test_a_device_that_is_none_is_refused_before_any_cell(study_file):
    with pytest.raises(InputError, match="'cudda' is not a device"):
        call("study", str(study_file), "--device", "cudda")
    assert not bench_folder("how").path.exists()


@pytest.mark.parametrize("options", [["--dry-run", "--submit"], ["--report-only", "--dry-run"], ["--memory", "8G"]])
def test_options_that_exclude_each_other_are_refused(study_file, options):
    with pytest.raises(InputError, match="exclude each other|add --submit"):
        call("study", str(study_file), *options)
    assert not bench_folder("how").path.exists()


def test_the_folder_is_that_of_a_submitted_benchmark(study_file):
    study, folder = read_study(study_file), bench_folder("how")
    cells = list_study_cells(study).cells
    numbers = write_study_folder(folder, study, cells, Site(), "encoder")
    assert folder.commands() == [cell.arguments for cell in cells]
    assert len(numbers) == len(cells), "each training is an array task of its own"
    assert Study.model_validate(yaml.safe_load(folder.study_file.read_text())) == study
    assert "bench-cells" in (folder.path / "bench.sbatch").read_text()


def strategy_records(labels=((50, 3.0), (None, 3.0))):
    """Records of two encoders under three strategies at several numbers of labels, three seeds each."""
    cost = {"trained_parameters": 10, "memory_bytes": 2_000_000, "memory_source": "computed", "images_seen": 64, "validations": 2}
    found = []
    for patients, strength in labels:
        for encoder, role, gain in (("mine", "encoder", 0.6), ("imagenet_net", "imagenet", 0.0)):
            for protocol, skill in (("finetune", 0.6), ("finetune-lpft", 1.5), ("finetune-linear", 0.3)):
                for seed in range(3):
                    share = {"patients": patients, "fraction": 1.0 if patients is None else 0.2, "draw": 0 if patients is None else seed}
                    counts = {"train": {"patients": patients or 200, "images": patients or 200}}
                    record = (
                        made(encoder, role, (skill + gain) * strength / 3, seed=seed, protocol=protocol, **share, counts=counts, cost=cost,
                             selection={"score": skill}, seconds={"fit": 1.0 + seed, "total": 3600.0}, protocol_config={"epochs": 1})
                    )  # fmt: skip
                    identity = record.identity.model_copy(update={"seed": seed})
                    found.append(replace(record, meta=record.meta.model_copy(update={"identity": identity})))
    return found


def test_all_verdicts_of_a_study_are_corrected_together():
    sections = build_sections(strategy_records())
    tables = judge_study(sections)
    lines = [line.difference for table in tables for line in table[1:]]
    rows = [c.difference for section in sections for row in section.rows for c in row.comparisons]
    p = np.array([d.p for d in (*rows, *lines)])
    assert len(lines) == 8
    assert {d.family for d in (*rows, *lines)} == {len(p)}
    order = np.argsort(p)
    holm = np.empty(len(p))
    holm[order] = np.minimum(np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))), 1)  # Holm 1979
    np.testing.assert_allclose([d.holm_p for d in (*rows, *lines)], holm)
    (alone,) = [t for t in build_study_tables(sections, tables) if t.title == "which strategy when"]
    assert [row[3] for row in alone.rows] == ["lpft"] * 4
    assert any(d.reported_verdict in SIGNIFICANT for d in lines)
    better = [[line.strategy for line in table[1:] if line.difference.reported_verdict == "better"] for table in tables]
    assert sorted(row[7] for row in alone.rows) == sorted(", ".join(names) or "none" for names in better)
    assert ["lpft"] in better
    few = [r for r in strategy_records() if r.identity.seed == 0 and r.identity.patients and r.identity.encoder == "mine"]
    (one_draw,) = choose_strategies(judge_study(build_sections(few)))
    assert one_draw.describe("better") == one_draw.describe("worse") == "insufficient draws"


def test_the_page_has_a_chart_for_each_encoder_and_every_strategy_is_in_it():
    sections = build_sections(strategy_records())
    page = render_page(strategy_records(), sections, {}, study=judge_study(sections))
    study = page[page.index("<h2") :].split("Encoders by number of labels")[0]
    charts = re.findall(r"<figure>.*?</figure>", study, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        assert [title for title in re.findall(r"<title>([^<]*)</title>", chart) if title in ("full", "lpft", "linear")] == [
            "full",
            "linear",
            "lpft",
        ]
    assert "Which strategy when" not in render_page(strategy_records(), build_sections(strategy_records()), {})


def test_the_strategy_is_chosen_by_validation_and_not_by_the_test_part():
    def prefer_linear(record):  # which is worst on the test part
        score = 0.9 if record.identity.protocol == "finetune-linear" else 0.1
        return replace(record, meta=record.meta.model_copy(update={"selection": {"score": score}}))

    records = [prefer_linear(r) for r in strategy_records() if r.identity.encoder == "mine"]
    choices = choose_strategies(judge_study(build_sections(records)))
    assert [choice.lines[choice.chosen].strategy for choice in choices] == ["linear", "linear"]
    assert [choice.lines[choice.best].strategy for choice in choices] == ["lpft", "lpft"]


def test_strategies_of_which_no_score_is_known_have_a_table_too():
    (tables,) = [judge_study(build_sections([r for r in strategy_records(((None, 3.0),)) if r.identity.encoder == "mine"]))]
    for line in tables[0]:
        line.row.metrics["auroc"] = replace(line.row.metrics["auroc"], value=float("nan"))  # test images of one class
        for record in line.row.records:
            record.meta.selection.clear()
    (choice,) = choose_strategies(tables)
    assert (choice.chosen, choice.best) == (0, 0)


def test_costs_count_each_record_once():
    sections = build_sections(strategy_records())
    costs = measure_costs(sections)
    assert [(cost.strategy, cost.cells) for cost in costs] == [("linear", 12), ("lpft", 12), ("full", 12)]
    assert {(cost.fit_seconds, cost.hours, cost.memory_bytes) for cost in costs} == {((1.0, 2.0, 3.0), 12.0, 2_000_000)}


def test_labels_needed_are_those_of_full_fine_tuning_of_imagenet_weights():
    sections = build_sections(strategy_records([(50, 1.5), (None, 3.0)]))
    tables = judge_study(sections)
    (saved,) = [t for t in build_study_tables(sections, tables) if t.title.startswith("labels needed")]
    full = {
        line.row.labels_order: line.row for table in tables for line in table if line.strategy == "full" and line.row.role == "imagenet"
    }
    (lpft,) = [
        line for table in tables for line in table
        if line.strategy == "lpft" and line.row.encoder == "mine" and line.row.records[0].identity.patients == 50
    ]  # fmt: skip
    needed = count_needed(lpft.row, list(full.values()), lpft.section.judged)
    row = next(row for row in saved.rows if row[:2] == ("mine", "lpft"))
    assert row[2] == f"{needed.patients} ({needed.interval})"
    assert not [row for row in saved.rows if row[:2] == ("imagenet_net", "full")]
