"""The first losses of every method on phantoms, as `pretrain run` trains them.

`make losses` (`python -m tests.golden.losses`) rewrites `losses.json`; `tests/golden/test_losses.py` compares against it. A change that is
meant to keep numbers leaves the file as it is.
"""

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from pretrain.methods import METHODS

FILE = Path(__file__).with_name("losses.json")
STEPS = 10
SETTINGS = [
    "batch=16",
    "size=32",
    f"steps={STEPS}",
    "epochs=null",
    "warmup_steps=2",
    "warmup_epochs=0",
    "log_every=1",
    f"save_every={STEPS}",
    "threads=1",
    "precision=fp32",
    "pictures=none",
    "watch.images=0",
    "data.workers=0",
]


def environment() -> dict[str, str]:
    """What the last bits of a loss depend on besides the code: torch's version, the processor and the instructions torch uses of it."""
    return {
        "torch": torch.__version__.split("+")[0],
        "processor": " ".join([platform.machine(), *_processor_model()]),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def _processor_model() -> list[str]:
    """Vendor, family and model, by which oneDNN and MKL choose their kernels; empty where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
    return [facts[name] for name in ("vendor_id", "cpu family", "model") if name in facts]


def make_store(folder: Path) -> Path:
    """A store of phantoms of 64 px, about 100 images; returns its path."""
    from encoders.cli.main import app

    store = folder / "phantoms.h5"
    _invoke(app, "ingest", "phantom", store, "--patients", 40, "--size", 64, "--seed", 1, "--workers", 1)
    return store


def first_losses(method: str, store: Path, folder: Path) -> list[float]:
    """The losses of the first steps of the recipe `cxr_<method>_tiny` with a batch of 16 at 32 px, on one thread in float32."""
    from pretrain.cli.main import app

    os.environ["ISOGRAFT_HOME"] = str(folder)
    _invoke(app, "run", f"cxr_{method}_tiny", f"data.store={store}", *SETTINGS, "--name", f"golden_{method}", "--device", "cpu")
    lines = (folder / "runs" / f"golden_{method}" / "metrics.jsonl").read_text().splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def _invoke(app: Any, *words: object) -> None:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output


def main() -> None:
    """Writes `losses.json` for every method."""
    torch.set_num_threads(1)
    os.environ["WANDB_MODE"] = "disabled"
    with tempfile.TemporaryDirectory() as folder:
        store = make_store(Path(folder))
        losses = {name: first_losses(name, store, Path(folder)) for name in METHODS}
    FILE.write_text(json.dumps({"environment": environment(), "losses": losses}, indent=1) + "\n")


if __name__ == "__main__":
    main()
