"""Batches of augmented views from a store, in an order that is a function of the step alone.

What a step sees depends on (seed, step) only: not on rank or world size, micro-batching, loader workers, or where a run was resumed.
Sample j of step s has the position s * batch + j in the global order; a rank takes a contiguous slice of the batch, its micro-batches
slice that.

Shapes: B images of a global batch, b of a micro-batch of a rank, V views, N rows in use, C channels, H, W pixels.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from encoders.augment.config import Augment
from encoders.augment.masks import Masks, MaskSpec
from encoders.loading.pairing import Partners
from encoders.loading.prefetch import DevicePrefetcher
from encoders.loading.sampler import BatchOrder
from encoders.loading.views import RawBatch, make_views, read_raw_batch
from encoders.runtime.errors import InputError
from encoders.runtime.threads import ThreadTeam, single_torch_thread
from encoders.zoo.card import Preprocess

__all__ = ["Batches", "MaskSpec", "Masks", "MicroBatch"]


class MicroBatch(NamedTuple):
    """One micro-batch of one rank, on the device."""

    views: list[Tensor]  # V x (b, C, H, W), normalised
    masks: list[Masks] | None  # one a view
    index: Tensor  # type: ignore[assignment]  # (b,) int64 rows of the store; hides tuple.index
    positions: Tensor  # (b,) int64 places in the global order
    patients: Tensor | None = None  # (b,) int64 whose images these are, for a method that asks

    def named(self) -> dict[str, Tensor]:
        """What a method is told by name, beside views and masks."""
        return {} if self.patients is None else {"patients": self.patients}


class Batches:
    """The batches of a run: `of(step)` gives the micro-batches of one step of this rank.

    workers = 0 makes them where they are asked for, on as many threads as torch has; more workers make them ahead, in processes, and
    give the same bits. On a CPU the workers augment; a CUDA device gets the stored values and the drawn parameters, and augments: the
    values are copied while it computes the micro-batch before."""

    def __init__(
        self,
        store: Any,
        specs: Sequence[Augment],
        preprocess: Preprocess,
        *,
        seed: int,
        batch: int,
        index: ArrayLike | None = None,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        workers: int = 0,
        device: str | torch.device = "cpu",
        mask: MaskSpec | None = None,
        context: Literal["fork", "spawn"] = "fork",
        weights: ArrayLike | None = None,
        partners: Partners | None = None,
        patients: ArrayLike | None = None,
    ):
        """batch: images of a step over all ranks.  index: rows to use (all by default).  weights: (N,) how often each of them is
        drawn, in proportion and with replacement; without, each row comes once an epoch.  seconds blocked for data: `waited`.
        partners: rows of which every other view is made.  patients: (rows of the store,) a number for each person.

        Raises InputError when there are fewer rows than a batch holds, or the batch does not divide by world x accumulate."""
        rows = np.arange(len(store)) if index is None else np.asarray(index, dtype=np.int64)
        self.order = BatchOrder(rows, batch, seed, rank, world, accumulate, weights)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.device = torch.device(device)
        self.waited = 0.0
        self.lap: Callable[[str], None] = lambda part: None  # told when reading ("wait") and augmenting ("augment") is done
        self.partners = partners
        self.patients = None if patients is None else torch.as_tensor(np.asarray(patients, dtype=np.int64)).to(self.device)
        self._work = _MicroBatchDataset(store, list(specs), preprocess, self.order, mask, seed, self.device.type == "cpu", partners)
        self._workers, self._context = workers, context
        self._team, self._copies = ThreadTeam(), DevicePrefetcher(self.device)
        self._early = self.device.type == "cuda"  # the next micro-batch is sent on its way while the device works on this one
        self._sent: tuple[int, Any] | None = None  # which, and on its way
        self._next = -1  # the micro-batch, counted from the start of the run, that the iterator gives next
        self._iterator: Iterator[Any] | None = None

    def of(self, step: int) -> Iterator[MicroBatch]:
        """The micro-batches of `step`. Steps in sequence are made ahead; a jump starts the workers anew."""
        for turn in range(step * self.order.accumulate, (step + 1) * self.order.accumulate):
            sent = self._sent[1] if self._sent and self._sent[0] == turn else self._send(turn)
            self._sent = None
            made = self._copies.arrived(sent)
            if isinstance(made, RawBatch):
                made = self._on_device(made)
                self.lap("augment")
            yield made if self.patients is None else made._replace(patients=self.patients[made.index])
            if self._early:  # here the device has been given the work of this micro-batch, and nobody has waited for it yet
                with suppress(
                    Exception
                ):  # a run may end before it needs the next one: what is wrong with that is said when it is asked for
                    self._sent = turn + 1, self._send(turn + 1)

    def _send(self, turn: int) -> "MicroBatch | RawBatch":
        """Micro-batch `turn`, on its way to the device."""
        begun = time.perf_counter()
        made = self._made(turn) if self._workers else self._inline(turn)
        self.waited += time.perf_counter() - begun
        self.lap("augment" if isinstance(made, MicroBatch) and not self._workers else "wait")
        return self._copies.started(made)

    def _inline(self, turn: int) -> "MicroBatch | RawBatch":
        with single_torch_thread() as threads:  # as in a worker: some sums depend on the number of threads in their last bit
            raw = self._work.raw(turn)
            self.lap("wait")
            return self._work.finished(raw, turn, self._team, threads)

    def _made(self, turn: int) -> "MicroBatch | RawBatch":
        if self._iterator is None or self._next != turn:
            self.close()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than cores is the user's choice
                self._iterator = iter(self._loader(turn))
        self._next = turn + 1
        try:
            return next(self._iterator)
        except BaseException:
            self.close()  # an interrupted or failed loader leaves no process behind
            raise

    def _loader(self, turn: int) -> DataLoader:
        return DataLoader(
            self._work,
            batch_size=None,
            sampler=_CountingSampler(turn),
            num_workers=self._workers,
            multiprocessing_context=self._context,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own: the loader draws a seed, and must not disturb the model's random numbers
        )

    def _on_device(self, raw: RawBatch) -> MicroBatch:
        return MicroBatch(make_views(raw.images, raw, self._work.specs, self._work.preprocess), raw.masks, raw.index, raw.positions)

    def close(self) -> None:
        """Ends the worker processes and threads; a later `of` starts new ones."""
        self._sent = None
        self._team.close()
        iterator, self._iterator, self._next = self._iterator, None, -1
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()  # what its destructor calls, whenever that would be

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _MicroBatchDataset(Dataset):
    """Makes micro-batch number `turn` of the run; travels to the workers."""

    def __init__(
        self,
        store: Any,
        specs: list[Augment],
        preprocess: Preprocess,
        order: BatchOrder,
        mask: MaskSpec | None,
        seed: int,
        finish: bool,
        partners: Partners | None = None,
    ):
        self.partners = partners
        self.store, self.specs, self.preprocess = store, specs, preprocess
        self.order, self.mask, self.seed, self.finish = order, mask, seed, finish

    def __getitem__(self, turn: int) -> "MicroBatch | RawBatch":
        return self.finished(self.raw(turn), turn)

    def raw(self, turn: int) -> RawBatch:
        """The stored images and all that is drawn for them."""
        rows, positions = self.order.of(turn)
        with self._told(turn, rows):
            return read_raw_batch(self.store, rows, positions, self.specs, self.mask, self.seed, self.partners, self.order.rows)

    def finished(self, raw: RawBatch, turn: int, team: ThreadTeam | None = None, threads: int = 1) -> "MicroBatch | RawBatch":
        """Augmented where that is done on the CPU; as it is where the device does it."""
        if not self.finish:
            return raw
        with self._told(turn, raw.index.numpy()):
            return MicroBatch(make_views(raw.images, raw, self.specs, self.preprocess, team, threads), raw.masks, raw.index, raw.positions)

    @contextmanager
    def _told(self, turn: int, rows: np.ndarray) -> Iterator[None]:
        """What goes wrong inside says at which step and rows."""
        try:
            yield
        except Exception as wrong:
            told = f"step {turn // self.order.accumulate}, rows {_format_rows(rows)} of {_store_name(self.store)}: {wrong}"
            raise (InputError(told) if isinstance(wrong, InputError) else RuntimeError(f"{type(wrong).__name__} at {told}")) from wrong


class _CountingSampler(Sampler):
    """first, first + 1, ... without end: the workers' place in the run."""

    def __init__(self, first: int):
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return count(self.first)


def _format_rows(rows: np.ndarray) -> str:
    return ", ".join(map(str, rows[:8].tolist())) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")


def _store_name(store: Any) -> str:
    return ", ".join(map(str, getattr(store, "paths", ["the store"])[:3]))
