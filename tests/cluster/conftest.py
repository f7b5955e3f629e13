"""A real SLURM cluster of two nodes for the tests marked `cluster`. They are skipped, with the reason, where SLURM is not installed."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent  # of the three commands


@pytest.fixture(scope="session")
def cluster(warm_commands):
    """Starts the cluster and returns the environment in which its commands work, with ours from `warm_commands`."""
    if not shutil.which("slurmctld", path=os.environ["PATH"] + ":/usr/sbin"):  # where Debian keeps daemons; not in every user's PATH
        if os.environ.get("CI") == "true":
            pytest.fail("SLURM is not installed: `make test-cluster` installs it")
        pytest.skip("SLURM is not installed: `make test-cluster` installs and starts it")
    if os.geteuid() != 0:
        pytest.skip("the test cluster needs root, to give each node a host name")
    root = Path(tempfile.mkdtemp(prefix="isograft-slurm-"))
    root.chmod(0o755)  # munge requires that all users can enter every folder above its socket
    try:
        subprocess.run(["bash", HERE / "start.sh", root], check=True, timeout=90)
        yield os.environ | {"SLURM_CONF": str(root / "etc" / "slurm.conf"), "PATH": f"{warm_commands}:{os.environ['PATH']}"}
    finally:
        subprocess.run(["bash", HERE / "stop.sh", root], timeout=120)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(scope="module")
def site(cluster, tmp_path_factory) -> dict[str, str]:
    """A working folder with the cluster's defaults in `slurm.yaml`, and the environment to run commands in. Jobs run the installed ones."""
    home = tmp_path_factory.mktemp("work")
    lines = [f"export PATH={BIN}:$PATH", "export WANDB_MODE=offline OMP_NUM_THREADS=1"]
    (home / "slurm.yaml").write_text(f"shared: [{home}]\ngpus: 0\ncpus: 1\nmemory: 3G\ntime: '10'\nsetup: {lines}\n")
    return cluster | {"ISOGRAFT_HOME": str(home), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
