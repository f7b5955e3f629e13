"""Scripts work in folders with spaces, quotes, dollars and percent signs in their names, with set-up lines of sites, and in containers."""

import shlex
import subprocess
from pathlib import Path

import pytest

from encoders.runtime import slurm
from encoders.runtime.errors import InputError
from encoders.runtime.slurm_container import Container
from encoders.runtime.slurm_site import Site
from pretrain.run.slurm_job import JobShape, build_job_script

ODD = ["a b", "it's", 'say "x"', "$HOME", "a`b", "50%j", "#1", "a;b & c", "ü*?[x]"]
STAND_INS = {
    "srun": 'printf "srun:%s\\n" "$@"; while [[ $1 == --* ]]; do shift; done; "$@"',
    "pretrain": 'printf "%s\\n" "pretrain" "$@"; pwd; echo "home $ISOGRAFT_HOME"',
    "apptainer": 'printf "apptainer:%s\\n" "$@"',
    "scontrol": "echo n1",
}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a job script of a run in a folder, as SLURM would: from the folder of --chdir. Returns the lines that it prints."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/bash\n{text}\n")
        (programs / name).chmod(0o755)

    def start(folder: str, site: Site, *overrides: str) -> list[str]:
        home = tmp_path / folder
        home.mkdir(exist_ok=True)
        monkeypatch.chdir(home)
        monkeypatch.delenv("ISOGRAFT_HOME", raising=False)
        text = build_job_script("my run", "cxr_moco", overrides, site, JobShape())
        script = tmp_path / "job.sbatch"
        script.write_text(text)
        assert subprocess.run(["bash", "-n", script]).returncode == 0
        env = {
            "PATH": f"{programs}:/usr/bin:/bin",
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "n1",
            "SLURM_NNODES": "1",
            "HOME": "/nowhere",
        }
        place = slurm.read_directive(text, "chdir")
        done = subprocess.run(["bash", script], env=env, capture_output=True, text=True, cwd=place)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return start


@pytest.mark.parametrize("folder", ODD)
def test_a_working_folder_and_a_store_of_any_name_reach_the_command(run, tmp_path, folder):
    lines = run(folder, Site(gpus="0"), f"data.store={tmp_path}/{folder}/x.h5")
    at = lines.index("pretrain")
    assert lines[at + 1 : at + 7] == ["run", "cxr_moco", f"data.store={tmp_path}/{folder}/x.h5", "--name", "my run", "--continue"]
    assert lines[-2:] == [str(tmp_path / folder), f"home {tmp_path / folder}"]
    assert (tmp_path / folder / "runs" / "my run").is_dir()


@pytest.mark.parametrize("folder", ODD)
def test_directives_are_quoted_as_sbatch_reads_them(folder):
    """sbatch takes words between double or single quotes together, a backslash escapes the next character, and `#` starts a comment."""
    text = slurm.fill_template(
        "set -euo pipefail\n", {"chdir": f"/x/{folder}", "output": slurm.log_pattern(Path("/x") / folder, "%j.out")}, [], []
    )
    read = [shlex.split(line, comments=True)[1:] for line in text.replace("#SBATCH", "SBATCH").splitlines()[:2]]
    assert read == [[f"--chdir=/x/{folder}"], [f"--output=/x/{folder.replace('%', '%%')}/%j.out"]]
    assert slurm.read_directive(text, "chdir") == f"/x/{folder}"


def test_folders_that_slurm_cannot_write_to_are_refused():
    with pytest.raises(InputError, match="backslash"):
        slurm.log_pattern(Path("/x\\y"), "%j.out")
    with pytest.raises(InputError, match="line break"):
        slurm.quote_directive("/x\ny")


def test_set_up_lines_see_no_arguments_and_may_use_variables_that_are_not_set(run):
    site = Site(gpus="0", setup=['echo "words $# of $NOT_SET"', "export X='a b'", 'echo "X is $X"'])
    lines = run("plain", site, "seed=1")
    assert {"words 0 of ", "X is a b"} <= set(lines)
    assert "seed=1" in lines


def test_the_environment_of_the_site_comes_first_and_that_of_this_process_last(tmp_path, run):
    env = tmp_path / "my env" / "bin"
    env.mkdir(parents=True)
    (env / "pretrain").write_text("#!/bin/bash\necho the other\n")
    (env / "pretrain").chmod(0o755)
    assert run("plain", Site(gpus="0", python=str(env.parent)))[-1] == "the other"
    assert slurm.setup_lines(Site(python=str(env)))[-1] == f"export PATH='{env}':\"$PATH\""
    assert slurm.setup_lines(Site())[-1].startswith('export PATH="$PATH":')


def test_apptainer_sees_the_working_folder_and_the_mounts(run, tmp_path):
    container = Container(image="my image.sif", mounts=["/data sets", "/a:/b:ro"], options=["--cleanenv --env 'A=1 2'"])
    lines = run("a b$x", Site(gpus="2", container=container))
    given = [line.removeprefix("apptainer:") for line in lines if line.startswith("apptainer:")]
    home = str(tmp_path / "a b$x")
    binds = ["--bind", home, "--bind", "/data sets", "--bind", "/a:/b:ro"]
    prefix = ["exec", "--nv", *binds, "--pwd", home, "--cleanenv", "--env", "A=1 2", f"{home}/my image.sif", "pretrain", "run"]
    assert given[: len(prefix)] == prefix
    assert "--nv" not in slurm.setup_lines(Site(container=container), gpus=False)[-1]


def test_pyxis_gets_the_image_and_the_mounts_as_options_of_srun(run, tmp_path):
    container = Container(
        image="nvcr.io#nvidia/pytorch:25.01-py3", runtime="pyxis", mounts=["/data", "/a:/b"], options=["--no-container-mount-home"]
    )
    lines = run("a b", Site(container=container))
    home = tmp_path / "a b"
    options = [line.removeprefix("srun:") for line in lines if line.startswith("srun:")]
    at = options.index("--container-image=nvcr.io#nvidia/pytorch:25.01-py3")
    mounts = f"--container-mounts={home}:{home},/data:/data,/a:/b"
    assert options[at + 1 : at + 5] == [mounts, f"--container-workdir={home}", "--no-container-mount-home", "pretrain"]
    with pytest.raises(InputError, match="cannot mount .*, because of \\$"):
        run("a$b", Site(container=container))


@pytest.mark.parametrize("written", ["CONTAINER='apptainer exec \"my image.sif\"'", "export CONTAINER='apptainer exec my\\ image.sif'",
                                     "CONTAINER=(apptainer exec 'my image.sif')"])  # fmt: skip
def test_a_container_may_be_written_in_a_set_up_line(run, written):
    assert "apptainer:my image.sif" in run("plain", Site(gpus="0", setup=[written]))
