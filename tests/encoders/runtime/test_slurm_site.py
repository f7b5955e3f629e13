"""`slurm.yaml`: every value is what was written, every field is checked, and a message names file, field and an example."""

import re

import pytest

from encoders.runtime import paths
from encoders.runtime.errors import InputError
from encoders.runtime.slurm import fill_template as fill
from encoders.runtime.slurm import gpus_per_node, light_site, read_directive, read_template, sbatch_directives
from encoders.runtime.slurm_site import FIELD_OF_OPTION, PLAIN_OPTIONS, Site, find_commands, load_site, site_with_options
from encoders.runtime.slurm_values import OWN_OPTIONS, parse_time_limit


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Reads the text of a `slurm.yaml`, with options of the command line."""
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))

    def read(text: str, **options: object) -> Site:
        (tmp_path / "slurm.yaml").write_text(text)
        return site_with_options(options)

    return read


def script(chosen: Site, template: str = "pretrain.sbatch") -> str:
    return fill(read_template(template), sbatch_directives(chosen), ["a"], [])


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("12:00:00", 43200), ("1-06:00:00", 108000), ("90", 5400), ("1:30", 90), ("08:30:00", 30600), ("0:30:00", 1800), ("2-12", 216000),
     ("59:59", 3599), ("UNLIMITED", None), ("190:20:30", 685230)],
)  # fmt: skip
@pytest.mark.parametrize("quotes", ["{}", "'{}'", '"{}"'])
def test_a_time_is_what_was_written_with_quotes_or_without(site, written, seconds, quotes):
    chosen = site(f"time: {quotes.format(written)}\n")
    assert read_directive(script(chosen), "time") == written
    assert parse_time_limit(written) == seconds


@pytest.mark.parametrize(
    ("text", "option", "value"),
    [
        ("account: 007", "account", "007"),
        ("qos: no", "qos", "no"),
        ("partition: 1e3", "partition", "1e3"),
        ("mem: 64G", "mem", "64G"),
        ("memory: 64 GB", "mem", "64G"),
        ("memory: 512gib", "mem", "512G"),
        ("memory: 0", "mem", "0"),
        ("cpus: 16", "cpus-per-task", "16"),
        ("signal_s: 60", "signal", "USR1@60"),
        ("constraint: 'a100&(nvlink|sxm)'", "constraint", "a100&(nvlink|sxm)"),
        ("gpus: a100:4", "gpus-per-node", "a100:4"),
        ("gpus: a100:4,v100:2", "gpus-per-node", "a100:4,v100:2"),
        ("gres: gpu:a100:4", "gres", "gpu:a100:4"),
        ("gres: [gpu:2, nvme:1]", "gres", "gpu:2,nvme:1"),
        ("sbatch: [--exclude=n1]", "exclude", "n1"),
        ("sbatch: -x n1", "exclude", "n1"),
        ("sbatch: ['#SBATCH --reservation lab']", "reservation", "lab"),
        ("sbatch: [--partition=gpu]", "partition", "gpu"),
        ("sbatch: [--signal=USR1@90]", "signal", "USR1@90"),
        ("sbatch: |\n  --comment=\"two 'words' # $HOME\"\n  --exclusive\n", "comment", "two 'words' # $HOME"),
    ],
)
def test_a_value_reaches_the_script_once(site, text, option, value):
    for template in ("pretrain.sbatch", "bench.sbatch"):
        filled = script(site(text), template)
        assert read_directive(filled, option) == value
        names = re.findall(r"^#SBATCH --([\w-]+)", filled, re.M)
        assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "gpus", "absent"),
    [("gpus: a100:4", 4, "gres"), ("gpus: a100:4,v100:2", 6, "gres"), ("gpus: 0", 0, "gpus-per-node"),
     ("gres: gpu:a100:4", 4, "gpus-per-node"),
     ("gres: gpu", 1, "gpus-per-node"), ("gres: nvme:1", 1, "qos"), ("gres: gpu:2\nsbatch: [--no-requeue]", 2, "requeue"),
     ("sbatch: [--mem-per-cpu=4G]", 1, "mem")],
)  # fmt: skip
def test_gpus_are_counted_and_what_excludes_an_option_removes_it(site, text, gpus, absent):
    filled = script(site(text))
    assert gpus_per_node(filled) == gpus
    assert not re.search(rf"^#SBATCH --{absent}\b(?!-)", filled, re.M)


WRONG = [
    ("time: 12h", "time: expected a time limit"), ("time: 1-", "time: expected a time limit"), ("time: [1]", "time: expected text"),
    ("memory: 64", "memory: a number without a unit means megabytes in SLURM; write 64G or 64M"), ("mem: 1.5G", "memory: expected a whole"),
    ("mem: 4G\nmemory: 4G", "memory and mem are the same option"), ("gpus: a100", "write|expected a number of GPUs per node.*a100:4"),
    ("gpus: -1", "gpus: expected a number of GPUs"), ("gpus: 4:a100", "gpus: expected a number"),
    ("gres: gpu:a100", "gres: expected a number"),
    ("gres: gpu a100", "gres: expected resources per node"), ("gpus: 2\ngres: gpu:2", "GPUs are requested twice"), ("cpus: 0", "cpus: "),
    ("cpus: many", "cpus: "), ("signal_s: 5", "signal_s: "), ("at_once: 0", "at_once: "), ("max_restarts: -1", "max_restarts: "),
    ("mail: a b", "mail: expected an e-mail address"), ("constraint: [a|b]", "constraint: expected text; put quotes"),
    ("partition: 'a\n\n  b'", "partition: expected text in one line"), ("partiton: gpu", "did you mean partition"),
    ("cpu: 4", "did you mean cpus"),
    ("exclude: n1", r"sbatch: \[--exclude=...\]"), ("cpus_per_task: 4", "write cpus: 16"), ("nodes: 2", "--nodes N"),
    ("ntasks: 2", "--procs N"),
    ("sbatch: [exclude=n1]", "--exclude=VALUE"), ("sbatch: [--exclude=n1, -x n2]", "SLURM takes one of them"),
    ("sbatch: [-p a]\npartition: b", "-p a of sbatch and partition: b set the same option"),
    ("sbatch: [--mem-per-cpu=1G]\nmem: 4G", "takes one"),
    ("sbatch: [--nodes=2]", "--nodes N"), ("sbatch: [-J x]", "--name"), ("sbatch: [--gpus-per-task=1]", "gpus: a100:4"),
    ("sbatch: [--comment=a b c]", "quote a value with spaces"), ("sbatch: [--signal=TERM@60]", "write signal_s: 180"),
    ("sbatch: [--partition]", "needs a value"), ("sbatch: [-Z]", "long name"), ("sbatch: ['--comment=\"a']", "no closing quotation"),
    ("container: {img: x}", "did you mean image"), ("container: {image: a#b}", "runtime: pyxis"),
    ("container: $HOME/x.sif", "not expanded"),
    ("container: {image: x, mounts: ['a:b:c:d']}", "SOURCE:TARGET"), ("container: {image: x, runtime: docker}", "container.runtime"),
    ("time: 1\ntime: 2", "the key 'time' is given twice"), ("- a", "expected `key: value` lines"), ("a: [", "is not YAML"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_wrong_value_is_refused_naming_the_file_and_what_to_write(site, text, message):
    with pytest.raises(InputError, match=message) as error:
        site(text)
    assert str(paths.home_dir() / "slurm.yaml") in str(error.value)
    field = text.partition(":")[0]
    if f"slurm.yaml: {field}: " in str(error.value) and "unknown key" not in str(error.value):
        assert f"For example {field}: " in str(error.value)


def test_every_field_has_a_description_and_an_example_that_is_valid(site):
    for name, field in Site.model_fields.items():
        assert field.description
        assert getattr(site(f"{name}: {field.examples[0]}\n"), name) not in (None, [])
    assert not OWN_OPTIONS.keys() & (PLAIN_OPTIONS | FIELD_OF_OPTION.keys())


def test_an_empty_value_is_none_and_the_file_of_the_user_is_read_where_the_folder_has_none(tmp_path, site, monkeypatch):
    assert site("partition:\nqos: ~\ntime: null\n") == Site()
    (tmp_path / "slurm.yaml").unlink()
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    own = tmp_path / "me" / ".config" / "isograft" / "slurm.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("partition: mine\n")
    assert load_site().partition == "mine"


def test_an_option_of_the_command_line_replaces_the_file_also_where_it_is_written_otherwise(site):
    text = "partition: a\nmem: 4G\ngres: gpu:4,nvme:1\nsbatch: [--exclude=n1, --reservation=lab]\nsetup: module load a\n"
    chosen = site(text, partition="b", gpus="2", sbatch=["--mem-per-cpu=1G", "--exclude=n2"], setup=["module load b"])
    assert (chosen.partition, chosen.memory, chosen.gpus, chosen.gres) == ("b", None, "2", "nvme:1")
    assert chosen.sbatch == ["--reservation=lab", "--mem-per-cpu=1G", "--exclude=n2"]
    assert chosen.setup == ["module load b"]
    assert site("gpus: 4", sbatch=["--gres=gpu:a100:2"]).gpus is None
    with pytest.raises(InputError, match="the command line: time"):
        site(text, time="never")


def test_the_job_that_compares_asks_for_no_gpu_and_no_node_of_its_own(site):
    chosen = site("partition: a\ngres: gpu:4,nvme:1\ntime: 10:00\ncpus: 9\nsbatch: [--exclusive, --exclude=n1, --mem-per-cpu=4G]\n")
    filled = script(light_site(chosen), "compare.sbatch")
    assert gpus_per_node(filled) == 0
    assert [read_directive(filled, name) for name in ("partition", "gres", "exclude", "time")] == ["a", "nvme:1", "n1", "01:00:00"]
    assert "exclusive" not in filled
    assert "mem-per-cpu" not in filled


def test_an_environment_is_named_by_its_folder_or_its_interpreter(tmp_path):
    folder = tmp_path / "my env" / "bin"
    folder.mkdir(parents=True)
    for name in ("python3", "pretrain"):
        (folder / name).write_text("")
    assert {find_commands(str(p)) for p in (folder, folder.parent, folder / "python3")} == {folder}
    with pytest.raises(InputError, match="no command `pretrain`"):
        find_commands(str(tmp_path))
