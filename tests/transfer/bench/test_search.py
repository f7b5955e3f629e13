"""Benchmarks whose settings are searched: what the record, the ledger and the tables say, and what the test part is used for."""

import csv
import io

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer.bench.test_fit_places import bench, count_steps_of, saved_states, stop_in
from tests.transfer.trained.cases import QUICK, START, toy_task
from transfer.bench import cell as cell_module
from transfer.bench.bench import plan_bench
from transfer.bench.bench_arguments import parse_bench_arguments
from transfer.bench.plan import BenchRequest
from transfer.bench.slurm_array import list_bench_cells
from transfer.bench.work import count_work
from transfer.protocols import finetune, finetune_search
from transfer.records.ledger import read_ledger, read_ledger_lines
from transfer.records.looks import gather_looks
from transfer.records.test_usage import count_split_usage
from transfer.records.validation_looks import VALIDATION_LEDGER
from transfer.strategies.names import check_settings_used
from transfer.tables.build import build_sections
from transfer.tables.render import build_captions, mixed_hash_warnings, results_to_markdown
from transfer.tables.result_csv import results_to_csv
from transfer.tables.strategy_rows import build_strategy_tables
from transfer.tables.strategy_table import describe_table, strategy_csv_line

SIX = (*QUICK, "finetune.evaluations=3", "finetune.patience=3")
SEARCH = (*SIX, "finetune.search.space=lr,head_lr", "finetune.search.trials=3")


def read_validation_ledger():
    return read_ledger_lines(records_dir() / VALIDATION_LEDGER)[0]


def test_the_record_holds_all_trials_and_the_tables_say_best_of_three(tmp_path):
    toy_task(tmp_path)
    records = [*bench(overrides=SIX).records, *bench(overrides=SEARCH).records]
    plain, searched = records
    assert (plain.identity.protocol, searched.identity.protocol) == ("finetune", "finetune~best3")
    assert plain.identity.protocol_hash != searched.identity.protocol_hash
    found = searched.meta.selection["search"]
    assert [(row["trial"], row["rung"]) for row in found["table"]] == [(0, 0), (1, 0), (2, 0), (found["chosen"], 1)]
    assert {"settings", "score", "step", "steps", "images", "looks"} <= set(found["table"][0])
    assert (found["trials"], found["factor"], found["seed"]) == (3, 3, 0)
    assert found["images_seen"] == searched.meta.cost["images_seen"] == (3 * 2 + 4) * 8
    assert found["table"][0]["score"] == max(row["score"] for row in plain.meta.selection["table"] if row["step"] <= 2)
    sections = build_sections(records)
    usage = count_split_usage(records, gather_looks(records))
    text = results_to_markdown(sections, usage, {})
    assert "| finetune, best of 3 by validation |" in text
    assert "validation patients were scored 8 times by 4 trainings, to choose weights and settings" in text
    assert "3 trials per result over head_lr=0.3..30:log,optim.lr=3e-05..0.003:log" in text
    assert "80 images seen and 5 validations in all" in text
    assert mixed_hash_warnings(sections) == []
    rows = {line["protocol"]: line for line in csv.DictReader(io.StringIO(results_to_csv(sections, usage, {}))) if line["role"]}
    assert rows["finetune~best3"]["selected"] == "best of 3 by validation"
    assert (rows["finetune~best3"]["search_trials"], rows["finetune~best3"]["search_images_seen"]) == ("3", "80")
    assert (rows["finetune"]["selected"], rows["finetune"]["validation_looks"]) == ("", "8")


def test_every_trial_has_a_line_in_the_ledger_of_validation_looks(tmp_path):
    toy_task(tmp_path)
    (record,) = bench(overrides=SEARCH).records
    lines = read_validation_ledger()
    assert [(line["trial"], line["rung"]) for line in lines] == [(0, 0), (1, 0), (2, 0), (record.meta.selection["search"]["chosen"], 1)]
    assert [line["looks"] for line in lines] == [1, 1, 1, 2]
    assert {line["split"] for line in lines} == {record.identity.split}
    (use,) = count_split_usage([record], gather_looks([record])).values()
    assert (use.validation.looks, use.validation.trainings) == (5, 3)
    (records_dir() / VALIDATION_LEDGER).unlink()
    (use,) = count_split_usage([record], gather_looks([record])).values()
    assert use.validation.looks == 5, "from the cost in the record"
    assert len(read_ledger()) == 1, "the test part was scored once"


def test_the_test_part_is_not_read_before_the_winner_is_fitted(tmp_path, monkeypatch):
    toy_task(tmp_path)
    order, real_rows, real_open = [], cell_module._build_image_set, cell_module.Seal.open
    test_rows = []

    def build(fit, cell, part, shift):
        order.append(part)
        if part == "test":
            test_rows.extend(cell.split.rows("test").tolist())
        return real_rows(fit, cell, part, shift)

    real_fit = finetune_search.fit_resumable

    def fit(place, cfg, train, val, *rest):
        rows = {*train.index.tolist(), *val.index.tolist()}
        fitted = real_fit(place, cfg, train, val, *rest)
        order.append("fitted")
        order.append(rows)
        return fitted

    monkeypatch.setitem(cell_module.ROW_BUILDERS, "images", build)
    monkeypatch.setattr(finetune_search, "fit_resumable", fit)
    monkeypatch.setattr(cell_module.Seal, "open", lambda seal, fitted: (order.append("opened"), real_open(seal, fitted))[1])
    bench(overrides=SEARCH)
    assert [step for step in order if isinstance(step, str)] == ["train", "val", "fitted", "test", "opened"]
    assert not order[3] & set(test_rows)


def test_an_interrupted_search_of_a_cell_goes_on(tmp_path, monkeypatch):
    toy_task(tmp_path)
    (whole,) = bench(overrides=SEARCH).records
    lines = len(read_validation_ledger())
    stop_in(monkeypatch, 8, overrides=SEARCH, recompute=True)
    result, taken = count_steps_of(monkeypatch, overrides=SEARCH, recompute=True)
    assert taken == 4, "three trials are finished, and the fourth part begins again from its pause"
    assert len(read_validation_ledger()) == 2 * lines, "no trial is logged twice"
    again = result.records[0]
    assert again.meta.cost == whole.meta.cost
    assert again.meta.selection["search"]["chosen"] == whole.meta.selection["search"]["chosen"]
    np.testing.assert_array_equal(again.arrays["test_scores"], whole.arrays["test_scores"])
    assert not saved_states()


def test_strategies_have_the_same_trials_and_budget_and_one_table(tmp_path):
    toy_task(tmp_path)
    records = bench(protocols=["finetune", "finetune-linear"], overrides=SEARCH).records
    tables = build_strategy_tables(build_sections(records))
    (lines,) = tables
    assert [line.strategy for line in lines] == ["full", "linear"]
    assert {(line.images_seen, line.validations) for line in lines} == {(80, 5)}
    title, note = describe_table(lines, "net")
    assert title.endswith(", best of 3 by validation")
    assert note.startswith(
        "best of 3 by validation, halving by 3; images seen and validations of all trials: full 80 and 5, linear 80 and 5;"
    )
    assert strategy_csv_line(lines[1], lines[0])["selected"] == "best of 3 by validation"
    unsearched = bench(protocols=["finetune", "finetune-linear"], overrides=SIX).records
    assert len(build_strategy_tables(build_sections([*records, *unsearched]))) == 2, "a searched strategy is compared with searched ones"


def test_a_search_is_per_cell(tmp_path):
    toy_task(tmp_path)
    records = bench(overrides=SEARCH, patients=[8], fractions=[1.0], draws=2).records
    assert len(records) == 3
    assert all(len(record.meta.selection["search"]["table"]) == 4 for record in records)
    captions = build_captions(build_sections(records)[:1], {}, {})
    assert any("chosen: " in caption for caption in captions)


def test_the_options_become_settings_that_every_cell_carries(tmp_path):
    toy_task(tmp_path)
    options = parse_bench_arguments(
        ["--encoder", START, "--protocol", "finetune", "--strategies", "full,linear", "--search", "lr,lora.rank", "--trials", "5"]
    )
    request = options.to_request()
    assert request.overrides[-2:] == ["finetune.search.space=lora.rank=2|4|8|16|32,optim.lr=3e-05..0.003:log", "finetune.search.trials=5"]
    with pytest.raises(InputError, match=r"finetune.lora.rank has no effect: no strategy of this benchmark uses it; add --strategies lora"):
        check_settings_used(request.protocols, request.overrides)
    cells, _, _ = list_bench_cells([START], ["sick"], ["finetune"], [], SEARCH)
    (cell,) = cells
    again = parse_bench_arguments(cell.arguments).to_request()
    assert list(again.overrides) == list(SEARCH)


def test_progress_knows_how_many_trainings_a_search_takes(tmp_path):
    toy_task(tmp_path)
    work = []
    for overrides in (SIX, SEARCH):
        request = BenchRequest(encoders=[START], baselines=[], protocols=["finetune"], overrides=overrides, near_duplicates=False)
        work.append(sum(count_work(plan_bench(request, lambda text: None)).values()))
    assert work[1] == pytest.approx(work[0] * (3 * 1 / 3 + 2 / 3))


def test_a_search_without_one_leaves_settings_of_trials_alone():
    """The first trial has the very settings of the benchmark without a search."""
    cfg = finetune.Config(search={"space": "lr", "trials": 3})
    assert finetune_search.list_trials(cfg, 100)[0].cfg == finetune.Config()
