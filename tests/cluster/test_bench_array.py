"""A benchmark as a SLURM job array: cells that fail are computed again with `--rerun`, and the last job writes the comparison."""

import json
from pathlib import Path

import pytest

from tests.cluster.test_pretrain_job import command, job_state, wait

pytestmark = pytest.mark.cluster
ONE, TWO = "random_resnet10t:size=32,channels=1", "random_resnet10t:size=32,channels=1,seed=1"
ENDED = {"COMPLETED", "FAILED", "CANCELLED"}


def submitted(printed: str) -> tuple[str, str]:
    """The ids of the array and of the comparing job, as `transfer submit` prints them."""
    return printed.split("submitted array ")[1].split()[0], printed.split(" and job ")[1].split(",")[0]


@pytest.fixture(scope="module")
def tasks(site) -> Path:
    """Two tasks on phantoms; returns the working folder."""
    for seed, name in enumerate(("first", "second")):
        command(site, "encoders", "ingest", "phantom", f"{name}.h5", "--patients", "40", "--size", "32", "--seed", str(seed))
        command(site, "transfer", "tasks", "add", name, f"{name}.h5", "--label", "opacity")
    return Path(site["ISOGRAFT_HOME"])


def test_only_failed_cells_are_computed_again_and_the_last_job_compares(site, tasks):
    words = ["--encoder", ONE, "--encoder", TWO, "--task", "first,second", "--protocol", "knn,linear", "--baseline", "none", "--name", "b"]
    blocked = tasks / "records" / "second"
    blocked.parent.mkdir(exist_ok=True)
    blocked.write_text("")  # a file where the folder of the second task belongs: its cells cannot write
    _, last = submitted(command(site, "transfer", "submit", *words))
    wait(lambda: job_state(site, last) in ENDED, 400, "the last job")
    folder = tasks / "benches" / "b"
    logs = "\n".join(p.read_text() for p in [*folder.glob("*.out")])
    codes = [int((folder / "status" / str(i)).read_text().splitlines()[0]) for i in range(8)]
    assert [c == 0 for c in codes] == [True, True, False, False] * 2, logs
    assert job_state(site, last) == "FAILED", logs
    assert "first" in (folder / "table.md").read_text()
    assert "second" not in (folder / "table.md").read_text()
    jobs = command(site, "transfer", "jobs", "b", check=False)
    assert jobs.count("failed (") == 4
    blocked.unlink()
    again, last = submitted(command(site, "transfer", "submit", "--rerun", "--name", "b"))
    wait(lambda: job_state(site, last) in ENDED, 400, "the last job, again")
    assert job_state(site, last) == "COMPLETED", "\n".join(p.read_text() for p in folder.glob("compare-*.out"))
    ran = {p.stem.rpartition("_")[2] for p in folder.glob(f"slurm-{again}_*.out")}
    assert ran == {"0", "1"}  # one array task per encoder
    again_logs = "".join(p.read_text() for p in folder.glob(f"slurm-{again}_*.out"))
    assert [f"cell {i} is done" in again_logs for i in range(8)] == [True, True, False, False] * 2  # only what had failed was computed
    records = [json.loads(p.read_text())["identity"] for p in (tasks / "records").glob("*/*.json")]
    assert {(r["encoder"], r["task"], r["protocol"]) for r in records} == {
        (e, t, p) for e in (ONE, TWO) for t in ("first", "second") for p in ("knn", "linear")
    }
    assert "second" in (folder / "table.md").read_text()
    assert (folder / "report.html").stat().st_size > 10_000


def test_a_study_is_an_array_and_its_last_job_writes_its_tables(site, tasks):
    (tasks / "how.yaml").write_text(
        f"tasks: [first]\nencoders: ['{ONE}']\nbaselines: []\nstrategies: [linear, full]\nfractions: [10p, 1]\nseeds: 1\n"
        "settings: {finetune: {min_steps: 2, max_steps: 2, evaluations: 1, batch: 4, augment: {preset: none}}}\n"
    )
    _, last = submitted(command(site, "transfer", "study", "how.yaml", "--submit"))
    wait(lambda: job_state(site, last) in ENDED, 400, "the last job of the study")
    folder = tasks / "benches" / "how"
    assert job_state(site, last) == "COMPLETED", "\n".join(p.read_text() for p in folder.glob("*.out"))
    assert "### which strategy when" in (folder / "study.md").read_text()
    assert "Which strategy when" in (folder / "report.html").read_text()
    assert len((folder / "study.csv").read_text().splitlines()) == 5  # two strategies at two numbers of labels
    here = command(site, "transfer", "study", "how.yaml")
    assert "results computed" not in here, "the jobs computed everything"
