"""Files that isograft writes and reads again: metrics.jsonl, jobs.txt, shards of an interrupted ingest, the cache of verified images."""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from encoders.ingest import shards
from encoders.ingest.folder import FolderSource
from encoders.ingest.options import Codec
from encoders.runtime.metrics_log import MetricsLog, read_metrics, truncate_metrics
from encoders.runtime.slurm_jobs import list_jobs, record_job
from encoders.store.store import Store
from encoders.store.verified import read_verified, require_intact
from encoders.store.write import save_store
from tests.fuzz.harness import FuzzClass, Refused, SilentlyWrong, require_equal
from tests.fuzz.ingested import ingest_all, require_stored
from tests.fuzz.mutators import mutate_file, mutate_text_file

STEPS = (10, 20, 30, 40)


class Metrics(FuzzClass):
    """metrics.jsonl with changed lines or bytes: whole lines are read, whatever stands between them, and none is lost by a resume."""

    name = "metrics.jsonl"

    def prepare(self, folder: Path) -> None:
        with MetricsLog(folder) as log:
            for step in STEPS:
                log.log(step, loss=1 / step, grad_norm=float("nan") if step == 20 else 2.0)

    def mutate(self, folder: Path, rng: Random) -> str:
        path = folder / "metrics.jsonl"
        if rng.random() < 0.5:
            return mutate_file(path, rng)
        return mutate_text_file(path, rng)

    def check(self, folder: Path) -> None:
        path = folder / "metrics.jsonl"
        before = list_whole_lines(path.read_bytes())
        found = read_metrics(folder)
        require_equal([line["step"] for line in found], [line["step"] for line in before], "steps")
        for line in found:
            float(line.get("loss", 0)), float(line.get("time", 0))
        truncate_metrics(path, 20)
        late = next((i for i, line in enumerate(before) if line["step"] > 20), len(before))
        require_equal(list_whole_lines(path.read_bytes()), before[:late], "lines after a resume")
        if len(found) < len(STEPS):
            raise Refused("damaged lines are left out")


def list_whole_lines(data: bytes) -> list[dict[str, object]]:
    """The lines that are JSON objects of numbers with a step."""
    whole = []
    for raw in data.split(b"\n")[:-1]:
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        numbers = isinstance(line, dict) and all(map(is_number, line.values()))
        if numbers and type(line.get("step")) is int and line["step"] >= 0:
            whole.append({name: str(value) for name, value in line.items()} | {"step": line["step"]})
    return whole


def is_number(value: object) -> bool:
    if isinstance(value, str):
        return value in ("nan", "inf", "-inf")
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


class Jobs(FuzzClass):
    """jobs.txt: what is read is a number of a job, never an option of scancel."""

    name = "jobs.txt"

    def prepare(self, folder: Path) -> None:
        for job in ("17", "123_4", "99"):
            record_job(folder, job)

    def mutate(self, folder: Path, rng: Random) -> str:
        path = folder / "jobs.txt"
        if rng.random() < 0.5:
            return mutate_file(path, rng)
        return mutate_text_file(path, rng)

    def check(self, folder: Path) -> None:
        found = list_jobs(folder)
        first = [line.split()[0] if line.split() else b"" for line in (folder / "jobs.txt").read_bytes().splitlines()]
        for job in found:
            if not job.replace("_", "", 1).isascii() or not job.replace("_", "", 1).isdigit() or job.encode() not in first:
                raise SilentlyWrong(f"{job!r} is no job of the file")
        if len(found) < 3:
            raise Refused("a damaged line names no job")


class Shards(FuzzClass):
    """An ingest that was interrupted after its shards were written, and continues with damaged ones: the store has no damage."""

    name = "shards of an ingest"

    def prepare(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        (folder / "images").mkdir()
        for i in range(5):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "images" / f"{i}.png")
        self.truth = {codec: ingest_all(self.source(folder, codec), folder / f"whole.{codec}") for codec in ("raw", "jpeg")}
        merge, shards.join_shards = shards.join_shards, stop_before_merging
        for codec in self.truth:
            with suppress(InterruptedError):
                shards.ingest(self.source(folder, codec), folder / f"out.{codec}")
        shards.join_shards = merge

    def source(self, folder: Path, codec: Codec) -> FolderSource:
        return FolderSource(folder / "images", size=8, codec=codec, dataset="a")

    def mutate(self, folder: Path, rng: Random) -> str:
        for path in (folder / "images").iterdir():
            shutil.copystat(folder.parent.parent / "valid" / "images" / path.name, path)
        codec = rng.choice(["raw", "jpeg"])
        shutil.rmtree(folder / f"out.{'jpeg' if codec == 'raw' else 'raw'}.shards")
        path = rng.choice(sorted(path for path in (folder / f"out.{codec}.shards").iterdir() if path.name != "lock"))
        return f"{codec} {path.name}: {mutate_file(path, rng)}"

    def check(self, folder: Path) -> None:
        for codec in self.truth:
            if (folder / f"out.{codec}.shards").exists():
                require_stored(ingest_all(self.source(folder, codec), folder / f"out.{codec}"), self.truth[codec], 5)


def stop_before_merging(*_: object) -> None:
    raise InterruptedError


class VerifiedCache(FuzzClass):
    """The cache of verified images: damage may only cost time."""

    name = "cache of verified images"

    def prepare(self, folder: Path) -> None:
        images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), dtype=np.uint8)
        save_store(folder / "a.h5", images)
        self.path = folder / "a.h5"  # its inode is part of the cache's name, so it is not copied
        os.environ["ISOGRAFT_CACHE"] = str(folder / "cache")
        store = Store.open(self.path)
        require_intact(store)
        self.part = store.parts[0]

    def mutate(self, folder: Path, rng: Random) -> str:
        return mutate_file(next((folder / "cache" / "verified").iterdir()), rng)

    def check(self, folder: Path) -> None:
        os.environ["ISOGRAFT_CACHE"] = str(folder / "cache")
        known = read_verified(self.part)
        if known.shape != (20,) or known.any() != known.all():
            raise SilentlyWrong(f"verified are {known}")
        if not known.any():
            raise Refused("verified again")


CLASSES = [Metrics(), Jobs(), Shards(), VerifiedCache()]
