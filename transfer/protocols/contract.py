"""The contract between the bench and a protocol. Nothing heavy is imported here: command lines read the registry before they compute.

A protocol is a module, or any object, with the members of `TransferProtocol`. `fit` returns a `FittedProtocol`. A protocol chooses its
hyper-parameters with the function `select`, on validation rows only; it computes no reported metric, writes no file and prints nothing.

Shapes: V validation rows, M rows to score, C label columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, runtime_checkable

if TYPE_CHECKING:
    from encoders.runtime.arrays import Array, FloatArray
    from encoders.runtime.config import Config as BaseConfig
    from encoders.runtime.json_types import Json
    from transfer.protocols.fit_place import FitPlace
    from transfer.tasks.task import TaskKind

Needs = Literal["pooled", "bags", "images"]
Select: TypeAlias = Callable[["Array", "Array"], float]  # (labels (N, C), scores (N, C)) -> score of a candidate, higher is better


class Log(Protocol):
    """Receives the loss and validation score of a protocol that trains by steps."""

    def __call__(self, step: int, **scalars: float) -> None: ...


class Rows(Protocol):
    """Rows of a split: `Features`, `Bags` or `ImageSet`. y: (N, C), NaN = unknown.  key, patient: (N,)."""

    @property
    def y(self) -> "Array": ...
    @property
    def key(self) -> "Array": ...
    @property
    def patient(self) -> "Array": ...
    @property
    def kind(self) -> "TaskKind": ...
    def __len__(self) -> int: ...


RowsT = TypeVar("RowsT", bound=Rows, contravariant=True)
ConfigT = TypeVar("ConfigT", bound="BaseConfig", contravariant=True)


@dataclass(frozen=True)
class EpisodeBlock:
    """Scores of successive few-shot episodes for some label columns.

    scores: (episodes, columns, M) float32, higher = more likely positive."""

    columns: slice
    scores: "Array"


class FittedProtocol(ABC, Generic[RowsT]):
    """What `fit` returns: every hyper-parameter is chosen, and no test row has been seen."""

    selection: "Mapping[str, Json]"
    """What was chosen and the validation score of every candidate. Builtins only: it is stored in the record."""

    val_scores: "Array | None" = None
    """(V, C) validation scores, if `fit` has computed them: those of the model before a refit on train and validation rows. Otherwise None.

    Thresholds and temperature are chosen on these: a refitted model must not score the rows it was trained on."""

    cost: "Mapping[str, Json]" = MappingProxyType({})
    """What training took (`transfer.protocols.training_cost`): parameters, images seen, memory; empty where no network is trained."""

    shots: "Sequence[int]" = ()
    """The numbers of shots of a few-shot protocol, fewest first; empty for a protocol without episodes."""

    @abstractmethod
    def scores(self, rows: RowsT) -> "FloatArray":
        """(M, C) probabilities, float64."""

    def score_episodes(self, rows: RowsT, shots: int) -> "Iterator[EpisodeBlock]":
        """Yields the scores of `rows` in every episode, each label's episodes in the order that all encoders share.

        Nothing for a protocol without episodes."""
        return iter(())

    def support_digest(self, shots: int) -> str:
        """16 hex digits of the train images of every episode. Encoders with equal digests can be compared episode by episode."""
        return ""


class TransferProtocol(Protocol[ConfigT, RowsT]):
    """The members that the bench uses. Each module of `transfer/protocols/` that the registry loads has them."""

    @property
    def Config(self) -> "type[BaseConfig]":
        """Its settings. A field `seed`, if there is one, receives the seed of the bench and stays out of the protocol's hash."""

    @property
    def VERSION(self) -> int:
        """Part of the protocol's hash. Raise it when equal settings would give other scores, so that no table mixes old and new."""

    @property
    def NEEDS(self) -> Needs:
        """What `train`, `val` and the rows to score are: Features ("pooled"), Bags ("bags") or ImageSet ("images")."""

    def fit(self, cfg: ConfigT, train: RowsT, val: RowsT, select: Select = ..., log: Log | None = ...) -> FittedProtocol[RowsT]:
        """Fits on `train` and chooses on `val` the candidate for which `select` is highest."""


@runtime_checkable
class ResumableProtocol(Protocol[ConfigT, RowsT]):
    """A protocol that trains for long: an interrupted fit that had the same place goes on, and ends as one that was not interrupted."""

    def fit_resumable(
        self, place: "FitPlace", cfg: ConfigT, train: RowsT, val: RowsT, select: Select = ..., log: Log | None = ...
    ) -> FittedProtocol[RowsT]:
        """As `fit`."""


AnyProtocol: TypeAlias = "TransferProtocol[Any, Any]"


@dataclass(frozen=True)
class ProtocolEntry:
    """A protocol of the registry. title: in reports.  help: one line for the command line.  load: imports it, which may take seconds.

    slides: whether it scores slides instead of images, that is, whether its `NEEDS` is "bags"; known without the import."""

    title: str
    help: str
    load: Callable[[], AnyProtocol]
    slides: bool = False
