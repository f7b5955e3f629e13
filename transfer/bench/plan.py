"""What a benchmark was asked for, and what is planned for it."""

from collections.abc import Sequence
from dataclasses import dataclass

from encoders.runtime.config import Config
from encoders.runtime.precision_names import FeaturePrecision
from encoders.store.patient_ids import SameNames
from encoders.zoo.pixels import has_network
from transfer.bench.baselines import EncoderEntry
from transfer.bench.external import ExternalRequest
from transfer.protocols.contract import AnyProtocol
from transfer.tasks.folds_and_fractions import Portion
from transfer.tasks.load import LoadedTask
from transfer.tasks.options import Diagnosis


@dataclass(frozen=True)
class BenchRequest:
    """What the user asked for."""

    encoders: Sequence[str]
    tasks: Sequence[str] = ()
    protocols: Sequence[str] = ("knn", "linear")
    baselines: Sequence[str] | None = None  # None: ImageNet and random weights of each architecture; []: none
    seed: int = 0
    device: str = "cpu"
    precision: FeaturePrecision = "fp32"  # of the features
    recompute: bool = False  # even if there is a finished record
    allow_leakage: bool = False
    near_duplicates: bool = True  # look for them
    fractions: Sequence[float] = (1.0,)
    patients: Sequence[int] = ()  # label fractions as numbers of train patients
    draws: int = 1
    only_draw: int | None = None  # of the labeled patients; None: all draws
    folds: int = 1
    batch: int = 64
    workers: int | None = None  # loader processes when computing features; None: what the CPUs allow
    overrides: Sequence[str] = ()
    shifts: Sequence[tuple[str, int]] = ()  # (acquisition shift, strength 1..5) of the test images
    same_people: SameNames = ()  # groups of data sets whose equal patient ids are the same people
    floor: bool = True  # with the default baselines: also the encoder `pixels`
    diagnose: Sequence[Diagnosis] = ()  # add the encoders that tell what a difference to the start is made of
    external: ExternalRequest | None = None  # the task that is tested; the one task of `tasks` is selected on


@dataclass
class BenchPlan:
    """Everything that is checked before the first image is embedded."""

    entries: list[EncoderEntry]
    tasks: list[LoadedTask]
    protocols: dict[str, tuple[AnyProtocol, Config]]
    leaks_and_warnings: dict[tuple[str, str], tuple[list[str], list[str]]]  # (task, encoder) -> leaks that are allowed, warnings
    portions: dict[str, list[Portion]]
    missing: dict[str, str]

    def __len__(self) -> int:
        return sum(len(self.protocols_of(entry)) for entry in self.entries) * sum(len(p) for p in self.portions.values())

    def protocols_of(self, entry: EncoderEntry) -> dict[str, tuple[AnyProtocol, Config]]:
        """The protocols that the encoder can run: those that train on images need a network."""
        trains = entry.requested or has_network(entry.card)  # for a requested encoder, its failed record gives the reason
        return {name: own for name, own in self.protocols.items() if trains or own[0].NEEDS != "images"}
