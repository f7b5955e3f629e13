"""What was computed from records is kept beside them: never stale, never in the way, and safe with several processes."""

import multiprocessing
import shutil

import numpy as np
import pytest

from tests.transfer.records.test_record import made
from transfer.records import statistics_file
from transfer.records.cached_results import cached_result, derived_digest
from transfer.records.record import Record, read_record, store_record, write_record
from transfer.records.statistics_file import FOLDER, StatisticsFile, save_results


class Counter:
    """A computation that counts how often it runs."""

    def __init__(self, value=0.1):
        self.calls, self.value = 0, value

    def __call__(self):
        self.calls += 1
        return self.value


def stored(**fields):
    return write_record(made(**fields))


def file_of(path):
    return path.parent / FOLDER / path.name


def keep(path, key="k", value=1.0):
    file = read_record(path).statistics
    file.put(key, value)
    save_results()


def kept(path, key="k"):
    return read_record(path).statistics.get(key)


def test_a_result_is_computed_once_and_read_by_the_next_command():
    path, count = stored(), Counter()
    for _ in range(3):
        assert cached_result("area", [read_record(path)], (1, "a"), float, count) == 0.1
        save_results()
    assert count.calls == 1
    assert file_of(path).is_file()


def test_results_differ_by_name_settings_and_records_in_their_order():
    one, other = read_record(stored()), read_record(stored(encoder="other"))
    calls = [
        ("area", [one], ()), ("precision", [one], ()), ("area", [one], (1,)), ("area", [one], ([1],)), ("area", [one], (1.5,)),
        ("area", [one], (None,)), ("area", [one], (np.array([1.0]),)), ("area", [one], (np.array([2.0]),)), ("area", [other], ()),
        ("area", [one, other], ()), ("area", [other, one], ()),
    ]  # fmt: skip
    counts = [Counter(float(i)) for i in range(len(calls))]
    for _ in range(2):
        for i, ((name, records, settings), count) in enumerate(zip(calls, counts, strict=True)):
            assert cached_result(name, records, settings, float, count) == float(i)
    assert [count.calls for count in counts] == [1] * len(calls)


def test_results_of_records_in_memory_are_always_computed():
    count, memory, stored_one = Counter(), made(), read_record(stored())
    for _ in range(2):
        cached_result("area", [memory], (), float, count)
        cached_result("area", [stored_one, memory], (), float, count)
        cached_result("area", [], (), float, count)
    assert count.calls == 6
    assert derived_digest(memory, 1) == ""
    assert derived_digest(stored_one, 1) != derived_digest(stored_one, 2) != stored_one.digest


def test_a_record_that_was_written_again_has_no_results():
    path = stored()
    keep(path)
    assert kept(path) == (True, 1.0)
    again = made()
    write_record(Record(again.meta, {**again.arrays, "test_scores": again.arrays["test_scores"] / 2}))
    assert kept(path) == (False, None)
    write_record(Record(again.meta.model_copy(update={"warnings": ["w"]}), again.arrays))
    assert kept(path) == (False, None)


def test_a_written_record_has_the_digest_that_it_is_read_with():
    path, written = store_record(made())
    assert written.digest == read_record(path).digest != ""
    keep(path, "seen", 2.0)
    assert written.statistics.get("seen") == (True, 2.0)


def test_other_code_does_not_use_the_results(monkeypatch):
    path = stored()
    keep(path)
    monkeypatch.setattr(statistics_file, "code_digest", lambda: "another")
    assert kept(path) == (False, None)


def test_the_code_digest_changes_with_any_file_that_results_depend_on(tmp_path, monkeypatch):
    root = tmp_path / "copy"
    package = statistics_file.Path(statistics_file.__file__).parents[2]
    for folder in statistics_file.SOURCES:
        assert list((package / folder).rglob("*.py")), folder
        shutil.copytree(package / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(statistics_file, "__file__", str(root / "transfer/records/statistics_file.py"))
    digest = statistics_file.code_digest.__wrapped__
    before = digest()
    assert digest() == before
    for name in ("transfer/stats/delong.py", "transfer/metrics/ranking.py", "transfer/report/curves.py", "encoders/runtime/random.py"):
        with open(root / name, "a") as file:
            file.write("# changed\n")
        before, last = digest(), before
        assert before != last, name


@pytest.mark.parametrize("damage", [lambda t: t[:-5], lambda t: t.replace("1.0", "2.0"), lambda t: "", lambda t: "no\n{}", lambda t: "[]"])
def test_a_damaged_file_is_ignored_and_replaced(damage):
    path = stored()
    keep(path)
    file_of(path).write_text(damage(file_of(path).read_text()))
    assert kept(path) == (False, None)
    keep(path, "k", 3.0)
    assert kept(path) == (True, 3.0)


def test_a_file_that_was_copied_from_another_record_is_ignored():
    one, other = stored(), stored(encoder="other")
    keep(one)
    file_of(other).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file_of(one), file_of(other))
    assert kept(other) == (False, None)


def test_a_result_of_another_form_is_computed_again():
    path = stored()
    record, count = read_record(path), Counter()
    cached_result("area", [record], (), str, lambda: "text")
    assert cached_result("area", [record], (), float, count) == 0.1
    assert count.calls == 1


def test_all_files_can_be_deleted():
    path = stored()
    keep(path)
    shutil.rmtree(file_of(path).parent)
    assert kept(path) == (False, None)


def test_a_record_that_was_deleted_gets_no_file():
    path = stored()
    read_record(path).statistics.put("k", 1.0)
    shutil.rmtree(path.parent)
    save_results()
    assert not path.parent.exists()


def test_a_folder_that_cannot_be_written_uses_the_cache_of_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_CACHE", str(tmp_path / "cache"))
    path = stored()
    file_of(path).parent.write_text("a file where the folder should be")
    keep(path)
    assert len(list((tmp_path / "cache" / "statistics").iterdir())) == 1
    assert kept(path) == (True, 1.0)


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("ISOGRAFT_CACHE", str(tmp_path / "cache"))
    path = stored()
    file_of(path).parent.write_text("a file where the folder should be")
    keep(path)
    assert kept(path) == (False, None)


def test_results_that_another_process_wrote_meanwhile_are_kept():
    path = stored()
    one, other = read_record(path).statistics, read_record(path).statistics
    one.get("a"), other.get("b")  # both have read the file
    one.put("a", 1.0)
    other.put("b", 2.0)
    save_results()
    assert kept(path, "a") == (True, 1.0)
    assert kept(path, "b") == (True, 2.0)


def write_many(path, name):
    for i in range(10):
        file = StatisticsFile(path, read_record(path).digest)
        file.put(f"{name}{i}", [float(i)] * 500)
        save_results()


def test_several_processes_leave_an_intact_file():
    path = stored()
    workers = [multiprocessing.get_context("fork").Process(target=write_many, args=(path, name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert any(kept(path, f"{name}9") == (True, [9.0] * 500) for name in "abc")  # the last writer's
    assert [p.name for p in file_of(path).parent.iterdir()] == [path.name]


def test_a_large_file_keeps_only_what_was_used(monkeypatch):
    path = stored()
    keep(path, "old", "x" * 500)
    keep(path, "used", 1.0)
    monkeypatch.setattr(statistics_file, "MOST_BYTES", 1000)
    file = read_record(path).statistics
    assert file.get("used") == (True, 1.0)
    file.put("new", "y" * 400)
    save_results()
    assert kept(path, "old") == (False, None)
    assert kept(path, "used") == (True, 1.0)
    assert kept(path, "new") == (True, "y" * 400)
