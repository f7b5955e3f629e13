"""A job script is the template with the user's options filled in, and nothing else changed."""

import subprocess

import pytest

from encoders.runtime import slurm, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.slurm_site import Site, load_site

TEXT = slurm.read_template("pretrain.sbatch")


def script(setup=(), arguments=("cxr", "cxr_moco", "data.store=my images.h5"), **wants):
    return slurm.fill_template(TEXT, slurm.sbatch_directives(Site(**wants)), arguments, setup)


def test_options_are_replaced_added_and_taken_away():
    text = script(partition="gpu", account="lab", cpus=4, memory="16G", time="02:00:00", gpus=0)
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    for option in ("partition=gpu", "account=lab", "cpus-per-task=4", "mem=16G", "time=02:00:00"):
        assert f"#SBATCH --{option}" in lines
    assert not any("gpus" in line for line in lines)
    assert len({line.split("=")[0] for line in lines}) == len(lines)


def test_options_that_are_not_given_stay_as_in_the_template():
    assert script(arguments=["a"]).replace("set -- a\n", "") == TEXT


def test_arguments_survive_the_shell_and_the_script_parses(tmp_path):
    path = tmp_path / "job.sbatch"
    path.write_text(script(setup=["module load cuda", 'export X="a b"']))
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    text = path.read_text()
    assert text.index("set -euo pipefail") < text.index("set -- cxr cxr_moco 'data.store=my images.h5'") < text.index("RUN=")
    assert text.index("module load cuda") < text.index('export X="a b"') < text.index("srun")


def test_the_site_file_gives_defaults_and_a_typo_in_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    (tmp_path / "slurm.yaml").write_text("partition: gpu\nsetup: [module load cuda]\n")
    assert load_site().partition == "gpu"
    (tmp_path / "slurm.yaml").write_text("partitoin: gpu\n")
    with pytest.raises(InputError, match="did you mean partition"):
        load_site()


def test_without_slurm_the_error_names_dry_run(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="--dry-run"):
        slurm.submit_script(tmp_path / "job")
    assert slurm_jobs.job_state("1").state == ""
