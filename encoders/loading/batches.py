"""Batches of augmented views from a store, in an order that is a function of the step alone.

A batch depends on (seed, step) only: not on rank or world size, gradient accumulation, loader workers, or where a run was resumed.
Sample j of step s has the position s * batch + j in the global order; a rank takes a contiguous slice of the batch, and its micro-batches
are slices of that.

Shapes: B images of a global batch, b of a micro-batch of a rank, V views, N rows in use, C channels, H, W pixels.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from encoders.augment.apply_together import pack_views
from encoders.augment.config import Augment
from encoders.augment.masks import Masks, MaskSpec
from encoders.loading.pairing import Partners
from encoders.loading.prefetch import DevicePrefetcher
from encoders.loading.sampler import BatchOrder
from encoders.loading.views import ImageSource, RawBatch, make_views, read_raw_batch
from encoders.runtime.arrays import IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.threads import ThreadTeam, single_torch_thread
from encoders.runtime.worker_process import worker_context
from encoders.store.store import Store
from encoders.zoo.card import Preprocess

__all__ = ["Batches", "LoadPart", "MaskSpec", "Masks", "MicroBatch"]

LoadPart = Literal["wait", "augment"]
T = TypeVar("T")


class MicroBatch(NamedTuple):
    """One micro-batch of one rank, on the device."""

    views: list[Tensor]  # V x (b, C, H, W), normalised
    masks: list[Masks] | None  # one per view
    index: Tensor  # type: ignore[assignment]  # (b,) int64 rows of the store; hides tuple.index
    positions: Tensor  # (b,) int64 positions in the global order
    patient_ids: Tensor | None = None  # (b,) int64 patient of each image; None where no method needs it
    class_ids: Tensor | None = None  # (b,) int64 class of each image, -1 = unlabeled; None where no method needs it
    targets: Tensor | None = None  # (b, T) float32 targets of auxiliary losses, NaN = unlabeled; None without such losses

    def list_tensors(self) -> list[Tensor]:
        """Those that are made from the stored images and what is drawn for them."""
        return [*self.views, *(part for view in self.masks or [] for part in view), self.index, self.positions]

    def image_values(self) -> dict[str, Tensor | None]:
        """What the loop passes to a method beside views and masks: `patient_ids`, and the others where there are any."""
        labels = {"class_ids": self.class_ids, "targets": self.targets}
        return {"patient_ids": self.patient_ids} | {name: value for name, value in labels.items() if value is not None}


class Batches:
    """The batches of a run: `micro_batches(step)` yields the micro-batches of one step of this rank.

    With workers = 0 they are computed when they are needed, on as many threads as torch uses; worker processes compute them ahead, and the
    result is bit-identical. On a CPU the workers augment. A CUDA device gets the stored values and the drawn parameters, and augments: both
    are done on a stream of their own while it computes the micro-batch before."""

    def __init__(
        self,
        store: ImageSource,
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
        prefetch: int = 2,
        device: str | torch.device = "cpu",
        mask: MaskSpec | None = None,
        context: Literal["fork", "spawn"] = "fork",
        weights: ArrayLike | None = None,
        partners: Partners | None = None,
        patients: ArrayLike | None = None,
        class_ids: ArrayLike | None = None,
        targets: ArrayLike | None = None,
    ):
        """specs: one augmentation per view.  batch: images of a step over all ranks.  index: rows to use; all by default.
        prefetch: micro-batches that each worker process computes ahead.
        weights: (N,) relative frequency of each row, drawn with replacement; without it each row comes once an epoch.
        partners: rows shown by every other view.  patients, class_ids: (rows of the store,) one number per patient, or per class.
        targets: (rows of the store, T).

        Raises InputError when the batch exceeds the number of rows, or is not a multiple of world x accumulate."""
        rows = np.arange(len(store)) if index is None else np.asarray(index, dtype=np.int64)
        self.order = BatchOrder(rows, batch, seed, rank, world, accumulate, weights)
        self.steps_per_epoch = self.order.steps_per_epoch
        self.device = torch.device(device)
        self.waited = 0.0  # seconds spent waiting for data
        self._lap: Callable[[LoadPart], None] = lambda part: None
        self.partners = partners
        columns = {"patient_ids": (patients, np.int64), "class_ids": (class_ids, np.int64), "targets": (targets, np.float32)}
        self._columns = {  # fields of a micro-batch that are values of its images, for all rows of the store
            name: torch.as_tensor(np.asarray(values, dtype=dtype)).to(self.device)
            for name, (values, dtype) in columns.items()
            if values is not None
        }
        self._work = _MicroBatchDataset(store, list(specs), preprocess, self.order, mask, seed, self.device.type == "cpu", partners)
        self._workers, self._prefetch, self._context = workers, prefetch, context
        self._team, self._copies = ThreadTeam(), DevicePrefetcher(self.device)
        self._copy_ahead = self.device.type == "cuda"  # copy and augment the next micro-batch while the device works on this one
        self._sent: tuple[int, MicroBatch] | None = None  # the micro-batch that is being made on the device, and its number
        self._next = -1  # number, from the start of the run, of the micro-batch that the iterator yields next
        self._iterator: Iterator[MicroBatch | RawBatch] | None = None

    def on_lap(self, callback: Callable[[LoadPart], None]) -> None:
        """Calls `callback` whenever a micro-batch has been read ("wait") and when it has been augmented ("augment")."""
        self._lap = callback

    def micro_batches(self, step: int) -> Iterator[MicroBatch]:
        """The micro-batches of `step`. Consecutive steps are computed ahead; a jump restarts the workers."""
        for turn in range(step * self.order.accumulate, (step + 1) * self.order.accumulate):
            micro_batch = self._sent[1] if self._sent and self._sent[0] == turn else self._send(turn)
            self._sent = None
            if not self._work.augments:
                self._copies.hand_over(micro_batch.list_tensors())
                self._lap("augment")  # in time of the device: what it waited for images that were not ready
            values: dict[str, Any] = {name: column[micro_batch.index] for name, column in self._columns.items()}
            yield micro_batch._replace(**values)
            if self._copy_ahead:  # the work of this micro-batch is queued on the device, and the host has not waited for it yet
                with suppress(Exception):  # a run may end before it needs the next one: its error is raised when it is needed
                    self._sent = turn + 1, self._send(turn + 1)

    def _send(self, turn: int) -> MicroBatch:
        """Micro-batch `turn`; on a device its copy and augmentation have started."""
        started = time.perf_counter()
        micro_batch = self._next_micro_batch(turn) if self._workers else self._make_inline(turn)
        self.waited += time.perf_counter() - started
        self._lap("augment" if isinstance(micro_batch, MicroBatch) and not self._workers else "wait")
        return self._augment_on_device(micro_batch) if isinstance(micro_batch, RawBatch) else micro_batch

    def _make_inline(self, turn: int) -> MicroBatch | RawBatch:
        with single_torch_thread() as threads:  # as in a worker: the last bit of some sums depends on the number of threads
            raw = self._work.read_raw(turn)
            self._lap("wait")
            return self._work.finish_batch(raw, turn, self._team, threads)

    def _next_micro_batch(self, turn: int) -> MicroBatch | RawBatch:
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

    def _loader(self, turn: int) -> DataLoader[MicroBatch | RawBatch]:
        return DataLoader(
            self._work,
            batch_size=None,
            collate_fn=_keep_batch,  # torch's own turns drawn parameters into tensors, and augmentation expects arrays
            sampler=_CountingSampler(turn),
            num_workers=self._workers,
            prefetch_factor=self._prefetch,
            multiprocessing_context=worker_context(self._context),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own: the loader draws a seed, and must not disturb the model's random numbers
        )

    def _augment_on_device(self, raw: RawBatch) -> MicroBatch:
        with self._copies.side_stream():
            raw = self._copies.start_copy(raw)
            return MicroBatch(make_views(raw.images, raw, self._work.specs, self._work.preprocess), raw.masks, raw.index, raw.positions)

    def close(self) -> None:
        """Ends the worker processes and threads; a later `micro_batches` starts new ones."""
        self._sent = None
        self._team.close()
        iterator, self._iterator, self._next = self._iterator, None, -1
        if isinstance(iterator, _MultiProcessingDataLoaderIter):
            iterator._shutdown_workers()  # what its destructor calls, at a time that is not known

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _MicroBatchDataset(Dataset[MicroBatch | RawBatch]):
    """Computes micro-batch number `turn` of the run; it is sent to the workers."""

    def __init__(
        self,
        store: ImageSource,
        specs: list[Augment],
        preprocess: Preprocess,
        order: BatchOrder,
        mask: MaskSpec | None,
        seed: int,
        augments: bool,
        partners: Partners | None = None,
    ):
        """augments: whether views are computed here, on the CPU, and not on the device."""
        self.partners = partners
        self.store, self.specs, self.preprocess = store, specs, preprocess
        self.order, self.mask, self.seed, self.augments = order, mask, seed, augments

    def __getitem__(self, turn: int) -> MicroBatch | RawBatch:
        return self.finish_batch(self.read_raw(turn), turn)

    def read_raw(self, turn: int) -> RawBatch:
        """The stored images and all that is drawn for them."""
        rows, positions = self.order.micro_batch_rows(turn)
        with self._error_context(turn, rows):
            return read_raw_batch(self.store, rows, positions, self.specs, self.mask, self.seed, self.partners, self.order.rows)

    def finish_batch(self, raw: RawBatch, turn: int, team: ThreadTeam | None = None, threads: int = 1) -> MicroBatch | RawBatch:
        """The augmented micro-batch; `raw` where the device augments, with its parameters in one buffer."""
        if not self.augments:
            return raw._replace(packed=pack_views(raw.params))
        with self._error_context(turn, raw.index.numpy()):
            return MicroBatch(make_views(raw.images, raw, self.specs, self.preprocess, team, threads), raw.masks, raw.index, raw.positions)

    @contextmanager
    def _error_context(self, turn: int, rows: IntArray) -> Iterator[None]:
        """An error inside the block names the step and the rows."""
        try:
            yield
        except Exception as error:
            message = f"step {turn // self.order.accumulate}, rows {_format_rows(rows)} of {_store_name(self.store)}: {error}"
            if isinstance(error, InputError):
                raise InputError(message) from error
            raise RuntimeError(f"{type(error).__name__} at {message}") from error


def _keep_batch(batch: T) -> T:
    return batch


class _CountingSampler(Sampler[int]):
    """first, first + 1, ... without end: the workers' position in the run."""

    def __init__(self, first: int):
        self.first = first

    def __iter__(self) -> Iterator[int]:
        return count(self.first)


def _format_rows(rows: IntArray) -> str:
    return ", ".join(map(str, rows[:8].tolist())) + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")


def _store_name(store: ImageSource) -> str:
    return ", ".join(map(str, store.paths[:3])) if isinstance(store, Store) else "the store"
