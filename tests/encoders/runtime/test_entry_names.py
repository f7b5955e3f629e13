"""Names that users choose: one rule for all kinds of entries, and what cannot be a name is refused wherever one is given."""

import pytest

from encoders.ingest.wsi.slide_names import name_slides
from encoders.runtime.entry_names import check_entry_name, check_label_name, find_fault
from encoders.runtime.errors import InputError
from encoders.runtime.paths import runs_dir, tasks_dir
from pretrain.run.rundir import run_dir_for
from transfer.bench.bench_folder import bench_folder
from transfer.tasks.task import Task, read_task, save_task

BAD = {
    "": "empty",
    "a/b": "'/'",
    "a\\b": "has the character",
    "../a": "'/'",
    "..": "begins",
    ".hidden": "begins",
    "-rf": "begins",
    "--name": "begins",
    " a": "begins|' '",
    "a.": "ends",
    "a\nb": r"U\+000A",
    "a\x1b[31mb": r"U\+001B",
    "a\0b": r"U\+0000",
    "a\u202eb": r"U\+202E",
    "a\u200bb": r"U\+200B",
    "a\ufeff": r"U\+FEFF",
    "a\u00a0b": r"U\+00A0",
    "a\u2028b": r"U\+2028",
    "\ud800": "Unicode",
    "a;b": "';'",
    "$(id)": r"'\$'",
    "`id`": "'`'",
    "a'b": '"\'"',
    'a"b': "'\"'",
    "a,b": "','",
    "a+b": r"'\+'",
    "a@4": "'@'",
    "a:b=c": "':'",
    "a*": r"'\*'",
    "=cmd()": "'='",
    "<b>": "'<'",
    "100%": "'%'",
    "x" * 161: "161 bytes",
    "é" * 81: "162 bytes|'é'",
    "NUL": "Windows",
    "com1.txt": "Windows",
    "e\u0301": "NFC|'\u0301'",
}
GOOD = ["a", "cxr_moco", "cxr-moco.v2", "7", "_x", "A" * 160, "run_seed0_lr0.03"]


@pytest.mark.parametrize("kind", ["encoder", "run", "sweep", "task", "bench"])
def test_one_rule_holds_for_all_kinds(kind):
    for name, why in BAD.items():
        with pytest.raises(InputError, match=rf"(?s)is not a valid {kind} name: .*({why})") as told:
            check_entry_name(kind, name)
        assert "\n" not in str(told.value)
        assert all(ord(c) >= 32 and c != "\u202e" for c in str(told.value))  # the message shows what is not seen
    assert [name for name in GOOD if find_fault(kind, name)] == []


def test_runs_and_benches_may_be_words_of_any_script():
    for name in ("my run", "Lunge ß", "肺炎"):
        assert find_fault("run", name) == find_fault("bench", name) == ""
        assert find_fault("encoder", name)
        assert find_fault("task", name)


@pytest.mark.parametrize("name", ["../x", "-x", "a\nb", "a\u202eb", "x" * 300, ""])
def test_the_rule_holds_wherever_a_name_is_given(name):
    task = Task(name="ok", store=["s.h5"], labels=["sick"], kind="binary", classes=["sick"], modality="cxr")
    for use in (run_dir_for, bench_folder, read_task, lambda name: save_task(task.model_copy(update={"name": name}))):
        with pytest.raises(InputError, match="not a valid (run|bench|task) name"):
            use(name)
    assert not tasks_dir().exists()


def test_what_is_on_disk_under_a_name_that_is_not_valid_is_named_and_not_read():
    folder = runs_dir() / "-old"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"the run '-old' has a name that is no longer valid \(it begins with '-'\); rename its folder"):
        run_dir_for("-old")
    tasks_dir().mkdir(parents=True)
    (tasks_dir() / "a,b.yaml").write_text("")
    with pytest.raises(InputError, match=r"the file of task 'a,b' has a name that is not valid .*; rename it"):
        read_task("a,b")


@pytest.mark.parametrize("label", ["Pleural Effusion", "No Finding", "a/b", "ü", "<5 mm", "=1", "肺"])
def test_a_label_is_any_text_that_can_be_seen(label):
    assert check_label_name(label) == label


@pytest.mark.parametrize("label", ["", " ", "a\nb", "a\tb", "a\u202eb", "a\u200b", "x" * 256, "a\x00"])
def test_a_label_that_cannot_be_seen_is_refused(label):
    with pytest.raises(InputError, match="cannot be a label"):
        check_label_name(label)


def test_slides_get_names_that_are_no_options_and_hide_nothing(tmp_path):
    files = [tmp_path / name for name in ("-rf.svs", "a\u202egpj.svs", "b\nc.svs", "plain é.svs", "sub/-x.svs")]
    assert sorted(name_slides(files, tmp_path, {}, [])) == ["_-rf", "a_gpj", "b_c", "plain é", "sub__-x"]
