"""Files of runs and benchmarks: checkpoints, run.json, locks, settings, records, the ledger, cached arrays and manifests."""

import json
import os
import socket
from pathlib import Path
from random import Random

import numpy as np
import torch
import yaml

from encoders.runtime import checkpoint
from encoders.runtime.cached_array import read_cached_array, write_cached_array
from encoders.runtime.config import load_config, parse_override
from encoders.runtime.npz_file import load_npz
from encoders.runtime.optim_config import Optim
from pretrain.run.lock import lock_run
from pretrain.run.restore import FORMAT, VERSION, iter_resume_checkpoints
from pretrain.run.rundir import RunDir
from pretrain.run.status import describe_run
from tests.fuzz.harness import FuzzClass, Refused, SilentlyWrong, require_equal
from tests.fuzz.mutators import mutate_file, mutate_text, mutate_tree
from transfer.records.ledger import append_to_ledger, read_ledger_lines
from transfer.records.record import Identity, Meta, Record, read_record, write_record

INFO = {
    "id": "abc", "asked": "r", "status": "stopped", "steps": 100, "fingerprint": "f" * 64, "images": 40, "sessions": [{"from_step": 0}],
    "untrained": {"watch/cosine": 0.9}, "best": 40, "seconds": 1.5, "wandb": None, "step": 40,
}  # fmt: skip


def contents(step: int) -> dict[str, object]:
    """A checkpoint as a run writes it, of a network of two tensors."""
    weights = {"a": torch.arange(6.0) + step, "b": torch.ones(2, 3) * step}
    return {
        "format": FORMAT, "version": VERSION, "run": "abc", "step": step, "skipped": 0, "skipped_total": 1, "lr_factor": 1.0,
        "rollbacks": [],
        "method": weights, "optimizer": {"state": {0: {"step": step, "exp_avg": torch.zeros(6)}}, "param_groups": [{"lr": 1e-3}]},
        "scaler": {}, "rng": torch.arange(16, dtype=torch.uint8), "environment": {"threads": 1}, "config": "r", "versions": {},
        "encoder": {"a": weights["a"]}, "average": {}, "auxiliary": {}, "card": {"name": "x"},
    }  # fmt: skip


def as_arrays(value: object) -> object:
    """Tensors as arrays, in nested dicts and lists."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: as_arrays(inner) for key, inner in value.items()}
    return [as_arrays(inner) for inner in value] if isinstance(value, list) else value


class Checkpoints(FuzzClass):
    """A run whose newest checkpoint, or both, are changed: the one before is used, and the newest is reported."""

    name = "checkpoints of a run"

    def prepare(self, folder: Path) -> None:
        RunDir(folder).update(**INFO)
        for step in (20, 40):
            checkpoint.save_checkpoint(checkpoint.checkpoint_path(folder / "checkpoints", step), contents(step))

    def mutate(self, folder: Path, rng: Random) -> str:
        steps = rng.choice([[40], [40], [20, 40]])
        return "; ".join(f"{step}: {mutate_file(checkpoint.checkpoint_path(folder / 'checkpoints', step), rng)}" for step in steps)

    def check(self, folder: Path) -> None:
        skipped: list[checkpoint.DamagedCheckpoint] = []
        state = next(iter_resume_checkpoints(RunDir(folder), skipped))  # raises InputError when none is good
        require_equal(as_arrays(dict(state)), as_arrays(contents(state["step"])), f"the checkpoint of step {state['step']}")
        if state["step"] != 40:
            if [error.step for error in skipped] != [40] or "step-00000040.pt" not in str(skipped[0]):
                raise SilentlyWrong("the step that is lost is not reported")
            raise Refused(str(skipped[0]))


class RunJson(FuzzClass):
    """run.json and the lock: `pretrain status` and the start of a run."""

    def __init__(self, title: str, file: str):
        self.name, self.file = f"run, {title}", file

    def prepare(self, folder: Path) -> None:
        run = RunDir(folder)
        run.update(**INFO)
        run.config.write_text("method: {name: moco}\n")
        lock = {"host": socket.gethostname(), "pid": 1, "born": None, "job": None}
        (folder / "lock").write_text(json.dumps(lock))
        os.utime(folder / "lock", (0, 0))
        self.lock = lock

    def mutate(self, folder: Path, rng: Random) -> str:
        path = folder / self.file
        if rng.random() < 0.5:
            change = mutate_file(path, rng)
        else:
            tree, change = mutate_tree(json.loads(path.read_text()), rng)
            path.write_text(json.dumps(tree))
        os.utime(path, (0, 0))
        return change

    def check(self, folder: Path) -> None:
        run = RunDir(folder)
        require_equal(dict(run.read()), INFO, "run.json")
        describe_run(run)
        try:
            with lock_run(run, lambda line: None):
                held = True
        except ValueError as error:
            if self.file == "lock" and "locked by process 1 " not in str(error):
                raise
            held = False
        if held and self.file != "lock":
            raise SilentlyWrong("the lock of a process that is alive was taken over")


class Settings(FuzzClass):
    """A setting of the command line: key=value."""

    name = "settings key=value"
    names_input = False
    lines = ("lr=0.001", "betas=[0.9, 0.95]", "kind=sgd", "weight_decay=1e-4", "momentum=0.9")

    def prepare(self, folder: Path) -> None:
        (folder / "line").write_text(self.lines[0])

    def mutate(self, folder: Path, rng: Random) -> str:
        line, change = mutate_text(rng.choice(self.lines), rng)
        (folder / "line").write_bytes(line.encode("utf-8", "surrogatepass"))
        return f"{line[:60]!r}: {change}"

    def check(self, folder: Path) -> None:
        line = (folder / "line").read_bytes().decode("utf-8", "surrogatepass")
        parse_override(line)
        found = load_config(Optim, None, [line]).model_dump(mode="json")
        key, _, value = line.partition("=")
        got, want = found[key.strip()], yaml.safe_load(value)
        if isinstance(got, float | list):  # a number that YAML takes for a text, such as 1e-4
            got, want = np.ravel(got), np.ravel([float(number) for number in (want if isinstance(want, list) else [want])])
        require_equal(got, want, key)


def build_record() -> Record:
    draw, arrays = np.random.default_rng(0), {}
    for part, n in (("val", 5), ("test", 7)):
        arrays[f"{part}_key"] = np.array([f"{part}{i}" for i in range(n)])
        arrays[f"{part}_patient"] = np.array([f"p{i // 2}" for i in range(n)])
        arrays[f"{part}_y"] = np.array([[0.0, np.nan], [1.0, 1.0]] * n, dtype=np.float32)[:n]
        arrays[f"{part}_scores"] = draw.random((n, 2))
    identity = {name: name[:4] for name, field in Identity.model_fields.items() if field.is_required()}
    meta = Meta(identity=Identity(**identity), kind="multilabel", classes=["a", "b"], selection={"k": 3}, seconds={"fit": 1.5})
    return Record(meta, arrays)


class Records(FuzzClass):
    """The record of a benchmark, and its scores."""

    def __init__(self, title: str, suffix: str, in_values: bool = False):
        self.name, self.suffix, self.in_values = f"record, {title}", suffix, in_values

    def prepare(self, folder: Path) -> None:
        os.environ["ISOGRAFT_HOME"] = str(folder)
        write_record(build_record())
        self.meta = self.read(folder).meta.model_dump(mode="json")

    def read(self, folder: Path) -> Record:
        (path,) = (path for path in (folder / "records").rglob("*.json") if not path.parent.name.startswith("."))
        return read_record(path)

    def mutate(self, folder: Path, rng: Random) -> str:
        (path,) = (folder / "records").rglob(f"*{self.suffix}")
        if not self.in_values:
            return mutate_file(path, rng)
        tree, change = mutate_tree(json.loads(path.read_text()), rng)
        path.write_text(json.dumps(tree))
        return change

    def check(self, folder: Path) -> None:
        os.environ["ISOGRAFT_HOME"] = os.environ["ISOGRAFT_CACHE"] = str(folder)
        found, want = self.read(folder), build_record().arrays
        require_equal(found.meta.model_dump(mode="json"), self.meta, "the record")
        require_equal({name: found.arrays[name] for name in found.arrays}, dict(want), "its arrays")


class Ledger(FuzzClass):
    """The ledger of the uses of test images: a changed line is counted as unreadable, and the others are kept."""

    name = "ledger"

    def prepare(self, folder: Path) -> None:
        self.entries = [{"task": "t", "encoder": f"e{i}", "time": 1.5 + i, "fold": i} for i in range(4)]
        for entry in self.entries:
            append_to_ledger(entry, folder / "ledger.jsonl")

    def check(self, folder: Path) -> None:
        entries, unreadable = read_ledger_lines(folder / "ledger.jsonl")
        if strange := [entry for entry in entries if entry not in self.entries]:
            raise SilentlyWrong(f"the line {strange[0]} was never written")
        if unreadable:
            raise Refused(f"{unreadable} lines cannot be read")


class CachedArray(FuzzClass):
    """An array in the cache: computed again unless it is what was written."""

    name = "cached features"

    def prepare(self, folder: Path) -> None:
        self.x = np.arange(24, dtype=np.float32).reshape(6, 4)
        with write_cached_array(folder / "features" / "x.npy") as part, part.open("wb") as file:
            np.save(file, self.x)

    def check(self, folder: Path) -> None:
        found = read_cached_array(folder / "features" / "x.npy")
        if found is None:
            raise Refused("x.npy is computed again")
        require_equal(found, self.x, "the features")


class Manifest(FuzzClass):
    """The manifest of the images that an encoder was trained on."""

    name = "manifest"

    def prepare(self, folder: Path) -> None:
        self.arrays = {"sha256": np.arange(64, dtype=np.uint8).reshape(2, 32), "datasets": np.array(["a", "bé"]), "n": np.array(3)}
        with (folder / "manifest.npz").open("wb") as file:
            np.savez(file, **self.arrays)

    def check(self, folder: Path) -> None:
        require_equal(load_npz(folder / "manifest.npz", "copy it again"), self.arrays, "the manifest")


CLASSES = [
    Checkpoints(),
    RunJson("run.json", "run.json"),
    RunJson("lock", "lock"),
    Settings(),
    Records("bytes", ".json"),
    Records("values", ".json", in_values=True),
    Records("bytes of the scores", ".npz"),
    Ledger(),
    CachedArray(),
    Manifest(),
]
