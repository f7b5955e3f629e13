"""What `pretrain submit` checks before a job waits in the queue, and the nodes and processes in the job script."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from encoders.runtime import slurm
from encoders.runtime.errors import InputError
from encoders.runtime.slurm_site import Site
from encoders.runtime.slurm_values import parse_time_limit
from encoders.store import staging
from encoders.store.store import Store
from pretrain.loop.corpus import open_corpus
from pretrain.run import job_checks
from pretrain.run.slurm_job import JobShape, build_job_script
from tests.pretrain.runs import METHODS, recipe, store


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


@pytest.mark.parametrize(
    ("text", "want"), [("90", 5400), ("1:30", 90), ("24:00:00", 86400), ("2-12", 216000), ("1-2:03", 93780), ("1-0:0:5", 86405)]
)
def test_time_limits_are_read_as_slurm_reads_them(text, want):
    assert parse_time_limit(text) == want


def test_a_start_too_short_for_its_first_checkpoint_at_the_speed_of_this_machine_is_a_note(images, monkeypatch):
    assert job_checks.describe_time_to_checkpoint(1.0, 500, limit_s=1000, notice_s=400) == ""
    note = job_checks.describe_time_to_checkpoint(2.0, 500, limit_s=1000, notice_s=400)
    assert "save_every=500 steps take about 16:40, and a start has 10:00" in note
    assert "lower save_every, or raise --time" in note
    site = Site(gpus=0, shared=["/"], time="10")
    script = build_job_script("r", "cxr_moco_tiny", [], site, JobShape(1, 1))

    def is_slow(recipe, device):
        return SimpleNamespace(median=1000.0)

    def does_not_fit(recipe, device):
        raise InputError("a step does not fit into the memory of this machine")

    monkeypatch.setattr(job_checks, "measure_step_cost", is_slow)
    chosen = recipe(images, METHODS["moco"])
    assert any(line.startswith("note: at the speed of this machine") for line in job_checks.check_job(chosen, script, 1, False, site))
    unlimited = build_job_script("r", "cxr_moco_tiny", [], site.model_copy(update={"time": "UNLIMITED"}), JobShape(1, 1))
    assert "start(s)" not in "\n".join(job_checks.check_job(chosen, unlimited, 1, False, site))
    monkeypatch.setattr(job_checks, "measure_step_cost", does_not_fit)
    assert "note: the time was not estimated: a step does not fit" in job_checks.check_job(chosen, script, 1, False, site)[-1]


def test_a_signal_that_would_come_before_the_job_starts_is_an_error():
    job_checks.require_time_to_save(120, 60)
    job_checks.require_time_to_save(None, 180)
    with pytest.raises(InputError, match="raise --time or lower --signal-s"):
        job_checks.require_time_to_save(120, 180)


def test_node_local_files_are_an_error_unless_declared_as_shared():
    job_checks.require_shared_paths([Path("/home/x/cxr.h5")], [])
    with pytest.raises(InputError, match=r"/tmp/x/cxr.h5 is below /tmp, .* shared: \[/tmp/x\]"):
        job_checks.require_shared_paths([Path("/tmp/x/cxr.h5")], [])
    job_checks.require_shared_paths([Path("/tmp/x/cxr.h5")], ["/tmp/x"])
    with pytest.raises(InputError) as error:
        job_checks.require_shared_paths([Path("/tmp/a b, 'c'/$x \"y\"/cxr.h5")], [])
    assert yaml.safe_load(str(error.value).partition("slurm.yaml: ")[2]) == {"shared": ["/tmp/a b, 'c'/$x \"y\""]}


def test_a_batch_that_does_not_divide_is_an_error_that_names_the_nearest_one_that_does(images):
    job_checks.require_even_batch(recipe(images, METHODS["moco"]), 8)
    with pytest.raises(InputError, match=r"batch=16 cannot be divided among 6 processes x accumulate=1: use batch=18"):
        job_checks.require_even_batch(recipe(images, METHODS["moco"]), 6)


def test_the_check_prints_the_plan_and_an_estimate_of_the_time(images):
    site = Site(gpus=0, shared=["/tmp", "/"])
    chosen = recipe(images, METHODS["moco"])
    script = build_job_script("r", "cxr_moco_tiny", [], site, JobShape(2, 2))
    printed = "\n".join(job_checks.check_job(chosen, script, 4, False, site))
    assert "images" in printed
    assert "with 4 processes like this one" in printed


def test_nodes_and_processes_reach_the_script_and_each_process_needs_a_gpu():
    lines = build_job_script("r", "cxr_moco", [], Site(gpus=4), JobShape(3)).splitlines()
    assert {"#SBATCH --nodes=3", "#SBATCH --ntasks-per-node=4", "#SBATCH --gpus-per-node=4"} <= set(lines)
    lines = build_job_script("r", "cxr_moco", [], Site(gpus=0), JobShape(2, 2)).splitlines()
    assert "#SBATCH --ntasks-per-node=2" in lines
    assert [line for line in lines if line.startswith("set -- r")] == ["set -- r cxr_moco"]
    with pytest.raises(InputError, match="--procs 4 with 2 GPU"):
        build_job_script("r", "cxr_moco", [], Site(gpus=2), JobShape(1, 4))
    with pytest.raises(InputError, match="--stage"):
        build_job_script("r", "cxr_moco", [], Site(stage='/x"; rm'), JobShape())


@pytest.mark.parametrize("gpus", [None, 0, 4])
@pytest.mark.parametrize("template", ["pretrain.sbatch", "bench.sbatch"])
def test_processes_have_cores_of_their_own_near_the_gpus_if_the_job_has_some(template, gpus):
    text = slurm.fill_template(slurm.read_template(template), slurm.sbatch_directives(Site(gpus=gpus)), ["a", "b"], [])
    directives = [line for line in text.splitlines() if line.startswith("#SBATCH --gres-flags=enforce-binding")]
    assert len(directives) == (0 if gpus == 0 else 1)
    work = next(
        line for line in text.splitlines() if "srun" in line and ("pretrain run" in line or "transfer bench" in line.split("srun")[-1])
    )
    assert "srun --cpu-bind=cores" in work
    if template == "pretrain.sbatch":
        assert "--distribution=block:block" in work  # process i is near GPU i


def test_a_staged_store_is_copied_once_verified_and_read_instead_of_the_shared_one(images, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    (copy,) = staging.stage_stores(str(images), disk)
    assert copy.read_bytes() == Path(images).read_bytes()
    copied_at = copy.stat().st_mtime_ns
    assert staging.stage_stores(str(images), disk) == [copy]
    assert copy.stat().st_mtime_ns == copied_at  # an earlier start's copy is kept
    monkeypatch.setenv("ISOGRAFT_STAGE", str(disk))
    found = open_corpus(recipe(images, METHODS["moco"])).store
    assert found.paths == [copy]
    assert found.fingerprint == Store.open(images).fingerprint
    copy.write_bytes(copy.read_bytes()[:-5])
    with pytest.raises(InputError, match="no complete copy"):
        staging.resolve_staged(str(images))
    assert staging.stage_stores(str(images), disk) == [copy]  # a truncated copy is replaced
    assert staging.resolve_staged(str(images)) == [copy]
