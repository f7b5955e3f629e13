"""Cost of `transfer bench` relative to the plain embedding of its images, and cost of a repeat: CPU and wall seconds, without imports.

    OMP_NUM_THREADS=1 python -m tests.perf.bench_cost kermany.h5 [--encoder imagenet_mobilenetv2_100] [--every 8]

k-NN and linear probe, fractions 1, 10, 50 and 100 %, 5 draws, intervals and table, in an empty working folder without caches.
Targets: at most 1.3 times the plain embedding, and a repeat in under 15 s, both from records and from cached features.
--every k uses every k-th image. The label column is `label`; --label names another.
"""

import argparse
import io
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np


def time_call(name: str, work):
    """The result of `work()`, and its CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    spent = time.process_time() - cpu, time.perf_counter() - wall
    print(f"{name:34} {spent[0]:7.1f} s CPU {spent[1]:7.1f} s wall", flush=True)
    return result, spent


def embed_by_hand(encoder, store, rows: np.ndarray, batch: int = 64) -> np.ndarray:
    """The plain embedding: read, prepare, forward."""
    import torch

    from encoders.zoo.preprocess import prepare_input

    out = []
    with torch.inference_mode():
        for i in range(0, len(rows), batch):
            x = prepare_input(store.unit_images(rows[i : i + batch]), encoder.card.preprocess).contiguous(memory_format=torch.channels_last)
            out.append(encoder.model(x).numpy())  # the network has no head: pooled features
    return np.concatenate(out)


def save_subset(path: Path, every: int, folder: Path, label: str) -> Path:
    """A store with every `every`-th image."""
    from encoders.store.store import Store
    from encoders.store.write import save_store

    if every == 1:
        return path
    store = Store.open(path)
    rows = np.arange(0, len(store), every)
    names = np.asarray(store.classes(label), dtype=object)[store.labels(label)[rows].astype(int)]
    return save_store(
        folder / "subset.h5", store.images(rows), patient=store.column("patient")[rows].tolist(), labels={label: names.tolist()}
    )


def bench_and_print(request, plan):
    """Runs the bench and renders its table."""
    from rich.console import Console

    from transfer.bench.bench import run_bench
    from transfer.tables import render
    from transfer.tables.build import build_sections

    result = run_bench(request, plan, lambda text: None)
    render.print_results(Console(file=io.StringIO()), build_sections(result.records), {}, {})
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--encoder", default="random_mobilenetv2_100:size=224")
    parser.add_argument("--label", default="label")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--bare-every", type=int, default=1, help="time the plain embedding on every k-th image only and multiply by k")
    args = parser.parse_args()
    path, zoo_home = args.store.resolve(), Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ISOGRAFT_HOME"], os.environ["ISOGRAFT_CACHE"] = folder, f"{folder}/cache"
        if (zoo_home / "zoo").is_dir():
            os.symlink(zoo_home / "zoo", f"{folder}/zoo")
        import scipy.sparse  # noqa: F401  imports are not timed
        import sklearn.metrics  # noqa: F401

        from encoders.runtime.allocator import keep_freed_memory
        from encoders.store.store import Store
        from encoders.zoo import zoo
        from transfer.bench.bench import BenchRequest, plan_bench
        from transfer.protocols import PROTOCOLS  # noqa: F401
        from transfer.tasks import task

        keep_freed_memory()  # as every command does
        where = save_subset(path, args.every, Path(folder), args.label)
        store, encoder = Store.open(where), zoo.load_encoder(args.encoder, "cpu")
        print(f"{len(store)} images, {args.encoder}", flush=True)
        rows = np.arange(0, len(store), args.bare_every)
        embed_by_hand(encoder, store, rows[:64])  # the first batch includes one-time set-up
        _, spent = time_call(f"plain embedding of {len(rows)}", lambda: embed_by_hand(encoder, store, rows))
        plain = [seconds * len(store) / len(rows) for seconds in spent]
        classes = store.classes(args.label)
        spec = task.Task(
            name="t", store=[str(where)], labels=[args.label], kind="binary", classes=[f"{args.label}={classes[-1]}"], positive=classes[-1]
        )
        task.save_task(spec)
        request = BenchRequest([args.encoder], ["t"], ("knn", "linear"), [], fractions=(0.01, 0.1, 0.5, 1.0), draws=5)
        plan, plan_cost = time_call("plan", lambda: plan_bench(request, lambda text: None))
        result, cost = time_call("bench and table", lambda: bench_and_print(request, plan))
        assert not result.failed, result.failed[0].meta.error
        total = [a + b for a, b in zip(plan_cost, cost, strict=True)]
        print(f"relative to the plain embedding: {total[0] / plain[0]:.2f} in CPU time, {total[1] / plain[1]:.2f} in wall time", flush=True)
        time_call("repeat from records", lambda: bench_and_print(request, plan_bench(request, lambda text: None)))
        again = replace(request, recompute=True)
        time_call("repeat from cached features", lambda: bench_and_print(again, plan_bench(again, lambda text: None)))


if __name__ == "__main__":
    main()
