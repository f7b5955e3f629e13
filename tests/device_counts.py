"""What a device is asked to do, counted without one: operations and copies that the host waits for, under fake CUDA tensors.

    with fake_device() as device, OperationCount() as count:
        make_views(images.to(device), ...)
    count.launches, count.blocking

`FakeTensorMode` gives tensors of a CUDA device without values, so that code takes the path of a GPU on any machine.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# The result, or its shape, is needed on the host.
READ_BY_HOST = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim", "unique_consecutive"}
FREE = {"detach", "lift_fresh", "alias", "_unsafe_view", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class OperationCount(TorchDispatchMode):
    """Counts operations that compute something (`launches`: neither views nor memory alone) and those that the host waits for."""

    def __init__(self, reads: float | None = None) -> None:
        """reads: the value that every read of a fake tensor gives; None: such a read is an error."""
        super().__init__()
        self.reads = reads
        self.by_name: Counter[str] = Counter()  # operations that compute
        self.views: Counter[str] = Counter()
        self.blocking: Counter[str] = Counter()
        self.uploads = 0  # copies from the host that it does not wait for

    @property
    def launches(self) -> int:
        return self.by_name.total()

    @property
    def waits(self) -> int:
        """How often the host waits for the device."""
        return self.blocking.total()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function.overloadpacket.__name__
        if name == "_local_scalar_dense" and self.reads is not None:
            self.blocking[name] += args[0].device.type == "cuda"
            return self.reads
        out = function(*args, **kwargs)
        if function.namespace != "aten":
            return out  # `prim.device` is a question of FakeTensorMode's
        if function.is_view or name in FREE:
            self.views[name] += 1
            return out
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        places = [leaf.device.type for leaf in tensors]
        target = out.device.type if isinstance(out, torch.Tensor) else None
        if name in ("_to_copy", "copy_") and {"cpu", "cuda"} == {*places, target}:
            down = (places[0] if name == "copy_" else target) == "cpu"
            late = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            if down or not late:
                self.blocking[f"{name} {'to' if down else 'from'} the host"] += 1
            else:
                self.uploads += 1
        elif "cuda" in places and (name in READ_BY_HOST or (name in ("index", "index_put_") and _has_mask(args[1]))):
            self.blocking[name] += 1
        self.by_name[name] += 1
        return out


def _has_mask(indices: object) -> bool:
    return any(isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in tree_leaves(indices))


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """Inside the block tensors have no values, and `.to(device)` gives tensors of a CUDA device, which need not exist."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield torch.device("cuda:0")
