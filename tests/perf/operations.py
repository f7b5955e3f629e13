"""Prints the operations of a step of MoCo on ResNet-50 and of LARS, before and after they worked on lists and whole batches. Takes minutes.

    python -m tests.perf.operations [--arch resnet50] [--batch 256] [--size 32]

Operations are those that torch dispatches without views; on a GPU each is one or a few kernels. Their number does not depend on the size of
the images. "waits" are reads of a value by the host. The CPU time is that of passes of ResNet-18 on 64 images of 32 px.
"""

import argparse
import time
from collections import Counter
from collections.abc import Callable

import timm
import torch
from lightly.utils.lars import LARS as LightlyLARS
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.runtime.lars import LARS
from pretrain.methods import DataShape
from pretrain.methods.moco import MoCo, MoCoConfig

VIEWS = {"view", "permute", "expand", "select", "slice", "detach", "alias", "unsqueeze", "t", "transpose", "_unsafe_view", "split"}


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name not in VIEWS:
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def build_moco(arch: str, batch: int, size: int, together: bool) -> MoCo:
    method = MoCo(MoCoConfig(), timm.create_model(arch, num_classes=0), DataShape(10**6, size, 3, batch, False)).train()
    method.to(memory_format=torch.channels_last)
    method.one_pass_devices = frozenset({"cpu"} if together else ())
    return method


def images(batch: int, size: int) -> torch.Tensor:
    return torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)


def describe(seen: Operations) -> str:
    waits = seen.names["_local_scalar_dense"]
    return f"{sum(seen.names.values()):6,} operations, {waits} waits, {seen.names['convolution']} convolutions forward"


def count_moco(arch: str, batch: int, size: int) -> None:
    for name, together in {"group by group": False, "together": True}.items():
        method, views = build_moco(arch, batch, size, together), [images(batch, size) for _ in range(2)]
        with Operations() as forward:
            loss = method(views, None, 0.0)["loss"]
        with Operations() as backward:
            loss.backward()
        print(f"MoCo {arch}, batch {batch}, {name}: forward {describe(forward)}; backward {sum(backward.names.values()):,}", flush=True)


def time_moco() -> None:
    for name, together in {"group by group": False, "together": True}.items():
        method, views = build_moco("resnet18", 64, 32, together), [images(64, 32) for _ in range(2)]
        seconds = []
        for _ in range(4):
            start = time.process_time()
            method(views, None, 0.0)["loss"].backward()
            method.step_keys.close()
            seconds.append(time.process_time() - start)
        print(f"MoCo resnet18, 64 images of 32 px, {name}: {min(seconds):.3f} s CPU", flush=True)


def count_lars(arch: str) -> None:
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {"lightly": LightlyLARS, "lists": LARS}
    for name, kind in kinds.items():
        torch.manual_seed(0)
        params = list(timm.create_model(arch, num_classes=0).parameters())
        groups = [{"params": [p for p in params if p.ndim > 1], "weight_decay": 1e-6}, {"params": [p for p in params if p.ndim == 1]}]
        optimizer = kind(groups, lr=0.1, momentum=0.9)
        for _ in range(2):  # the first makes the momentum buffers
            for p in params:
                p.grad = torch.ones_like(p)
            with Operations() as seen:
                optimizer.step()
        print(f"LARS {arch}, {name}: {sum(seen.names.values()):,} operations, {seen.names['_local_scalar_dense']} waits", flush=True)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--arch", default="resnet50")
    for name, default in {"batch": 256, "size": 32}.items():
        ask.add_argument(f"--{name}", type=int, default=default)
    args = ask.parse_args()
    torch.set_num_threads(1)
    count_lars(args.arch)
    time_moco()
    count_moco(args.arch, args.batch, args.size)


if __name__ == "__main__":
    main()
