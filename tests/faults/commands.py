"""The commands that write: what each needs beforehand, what the user types, and what must be as before when it fails.

A case works in a folder of its own (`ISOGRAFT_HOME` and working folder); its inputs are prepared once, without faults.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"


class Case(NamedTuple):
    """prepare: writes the inputs into the folder.  words: program and arguments.  writer: the writer that the case is about."""

    writer: str
    prepare: Callable[[Path], None]
    words: tuple[str, ...]


def no_inputs(folder: Path) -> None:
    """Nothing is needed."""


def a_store(folder: Path) -> None:
    from tests.pretrain import runs

    runs.store(folder, n=40, size=32)


def some_pictures(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    (folder / "pictures").mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{i}.png")
    (folder / "pictures" / "damaged.png").write_bytes(b"not an image")


def an_entry(folder: Path) -> None:
    a_store(folder)
    from tests.pretrain import starts

    starts.publish("start")


def a_finished_run(folder: Path) -> None:
    a_store(folder)
    call("pretrain", *PRETRAIN)


def a_task(folder: Path) -> None:
    a_store(folder)
    call("transfer", "tasks", "add", "finding", "images.h5", "--label", "finding")


def results(folder: Path) -> None:
    a_task(folder)
    call(*BENCH)


def two_entries(folder: Path) -> None:
    an_entry(folder)
    from tests.pretrain import starts

    starts.publish("second", seed=4)


SHORT = ("steps=3", "epochs=null", "warmup_steps=1", "log_every=1", "save_every=1", "batch=8", "size=32", "threads=1", "watch.images=16")
SMALL = ("arch=test_resnet", "method.hidden=16", "method.dim=8", "pictures=none")
PRETRAIN = ("run", "cxr_moco_tiny", *SMALL, *SHORT, "data.store=images.h5", "--name", "small", "--device", "cpu")
BENCH = (
    "transfer",
    "bench",
    "--encoder",
    NET,
    "--baseline",
    "none",
    "--no-floor",
    "--protocol",
    "knn",
    "--device",
    "cpu",
    "--workers",
    "0",
)
CASES = {
    "ingest": Case("store", no_inputs, ("encoders", "ingest", "phantom", "out.h5", "--patients", "4", "--size", "32", "--workers", "1")),
    "ingest-jpeg": Case(
        "store",
        no_inputs,
        ("encoders", "ingest", "phantom", "out.h5", "--kind", "histology", "--patients", "4", "--size", "32", "--workers", "1"),
    ),
    "ingest-folder": Case(
        "shards",
        some_pictures,
        ("encoders", "ingest", "folder", "pictures", "out.h5", "--modality", "cxr", "--size", "32", "--workers", "2"),
    ),
    "pretrain": Case("checkpoint", a_store, ("pretrain", *PRETRAIN)),
    "pretrain-resume": Case("run.json", a_finished_run, ("pretrain", "resume", "small", "--device", "cpu")),
    "pretrain-export": Case("zoo", a_finished_run, ("pretrain", "export", "small", "--name", "again")),
    "pretrain-report": Case("pages", a_finished_run, ("pretrain", "report", "small")),
    "import": Case(
        "zoo", an_entry, ("encoders", "import", "zoo/start/model.safetensors", "--card", "zoo/start/card.yaml", "--name", "other")
    ),
    "import-replace": Case(
        "zoo",
        two_entries,
        ("encoders", "import", "zoo/second/model.safetensors", "--card", "zoo/second/card.yaml", "--name", "start", "--replace"),
    ),
    "export": Case("zoo", an_entry, ("encoders", "export", "start", "exported")),
    "export-onnx": Case("zoo", an_entry, ("encoders", "export", "start", "start.onnx")),
    "combine": Case("zoo", two_entries, ("encoders", "combine", "start", "second", "--name", "both")),
    "remove": Case("zoo", an_entry, ("encoders", "remove", "start")),
    "embed": Case("features", a_store, ("encoders", "embed", NET, "images.h5", "features.h5", "--device", "cpu")),
    "tasks-add": Case("tasks", a_store, ("transfer", "tasks", "add", "finding", "images.h5", "--label", "finding")),
    "bench": Case("records", a_task, (*BENCH, "--csv", "table.csv", "--markdown", "table.md")),
    "report": Case("pages", results, ("transfer", "report", "--latex", "t.tex", "--csv", "t.csv", "--checklist", "check.html")),
    "compare": Case("tables", results, ("transfer", "compare", "--by", "view", "--csv", "t.csv")),
}


def call(program: str, *words: str) -> None:
    """Runs a command in this process, through the boundary that prints its errors. Raises SystemExit with its exit status."""
    import sys

    sys.argv = [program, *words]
    if program == "encoders":
        from encoders.cli.main import main
    elif program == "pretrain":
        from pretrain.cli.main import main
    else:
        from transfer.cli.main import main
    try:
        main()
    except SystemExit as left:
        if left.code not in (0, None):
            raise
