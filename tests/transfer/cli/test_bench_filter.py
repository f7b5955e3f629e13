"""`--bench`: the records of a submitted benchmark, and what its page says of the others."""

import re

import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.files import write_json
from encoders.runtime.paths import home_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.bench.bench_cells import compute_cells
from transfer.bench.bench_folder import bench_folder, write_record_names
from transfer.cli.options import find_chosen_records
from transfer.tasks.task import Task, save_task

MINE, OTHER = "random_resnet10t:size=32,channels=1", "random_test_resnet:size=32,channels=1"


@pytest.fixture
def submitted(tmp_path):
    """The folder of a bench whose cells were computed, and records of another encoder on the same task."""
    path = toys.store(tmp_path / "one.h5", patients=20)
    save_task(Task(name="one", store=[str(path)], labels=["sick"], classes=["sick"], kind="binary", modality="cxr"))
    folder = bench_folder("mine")
    lines = [f"--encoder {name} --task one --protocol knn --baseline none --no-floor --device cpu" for name in (MINE, OTHER)]
    assert compute_cells(lines, folder.status_dir, [0]) == 0
    assert compute_cells(lines, home_dir() / "elsewhere", [1]) == 0
    write_json(folder.info_file, {"tasks": ["one"], "cells": 1})
    return folder


def test_table_and_page_hold_the_cells_of_the_bench_and_the_page_links_the_rest(submitted):
    assert "test_resnet" in call("compare", "--task", "one").stdout
    table = submitted.path / "table.md"
    assert call("compare", "--bench", "mine", "--markdown", table).exit_code == 0
    assert "resnet10t" in table.read_text()
    assert "test_resnet" not in table.read_text()
    page = submitted.path / "report.html"
    assert call("report", "--bench", "mine", "--out", page).exit_code == 0
    of_the_test_set = 'data-label="not on this page">1 encoder: random_test_resnet'  # the uses of the test images count every encoder
    assert page.read_text().count("test_resnet") == page.read_text().count(of_the_test_set) == 1
    (sentence,) = re.findall(r"<p[^>]*>1 other record of this task is not on this page: .*?</p>", page.read_text())
    (link,) = re.findall('href="([^"]*)"', sentence)
    assert (page.parent / link).resolve() == (home_dir() / "index.html").resolve()
    assert (page.parent / link).is_file()


def test_a_page_with_all_records_mentions_no_others_and_one_elsewhere_has_no_link(submitted, tmp_path_factory):
    whole = home_dir() / "report.html"
    call("report", "--out", whole)
    assert "of this task is not on this page" not in whole.read_text()
    away = tmp_path_factory.mktemp("away") / "r.html"
    call("report", "--bench", "mine", "--out", away)
    assert "1 other record of this task is not on this page: see the working folder." in away.read_text()


def test_a_bench_without_records_an_unknown_one_and_records_beside_it_are_errors(submitted):
    with pytest.raises(InputError, match="leave out records, or --bench"):
        find_chosen_records(["records"], "mine")
    with pytest.raises(InputError, match="mine"):
        find_chosen_records(None, "mien")
    write_record_names(submitted.status_dir, 0, ["one/gone.json"])
    with pytest.raises(InputError, match="bench 'mine' has no record"):
        find_chosen_records(None, "mine")
