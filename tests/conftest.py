"""Where the tests find real images, and a home of their own so that no test touches the user's zoo."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Two test processes share the cores, so each takes one thread. Some sums depend on the number of threads in their last bit: what promises
# equal bits (batches, resumed runs) pins it to one itself, and the tests of the parts it is made of run under the same condition.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

from tests.warm_commands import serve_commands

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ISOGRAFT_DATA") or ROOT.parent / "shared" / "data")


def pytest_collection_modifyitems(config, items):
    """Tests on real images say why they are skipped; in CI they must not be."""
    if DATA.is_dir() or os.environ.get("CI") == "true":
        return
    for item in items:
        if "real" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"no real images at {DATA}: set ISOGRAFT_DATA"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    return DATA


@pytest.fixture(scope="session")
def warm_commands() -> Iterator[Path]:
    """A folder of `encoders`, `pretrain`, `transfer` and `python` for the front of PATH, which start in milliseconds."""
    with serve_commands() as folder:
        yield folder


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("ISOGRAFT_HOME", str(home))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.delenv("ISOGRAFT_CACHE", raising=False)
    yield
    shutil.rmtree(home, ignore_errors=True)  # checkpoints of all tests together would take some 20 GB
