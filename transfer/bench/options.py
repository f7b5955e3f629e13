"""What the user typed after `transfer bench`, and the request that it means."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.cli import split_commas
from encoders.runtime.errors import InputError
from encoders.runtime.precision_names import FeaturePrecision
from encoders.runtime.sweep_folder import expand_sweeps
from encoders.zoo.names import split_names
from transfer.bench.option_types import ExternalPart
from transfer.bench.shifts import expand_shifts
from transfer.search.settings import expand_search
from transfer.strategies.names import expand_strategies
from transfer.tasks.options import Combination, Diagnosis, ScoreUnit

if TYPE_CHECKING:
    from transfer.bench.external import ExternalRequest
    from transfer.bench.plan import BenchRequest


@dataclass(frozen=True)
class BenchOptions:
    """What the user typed after `transfer bench`, each option as one field."""

    overrides: Sequence[str]
    encoder: Sequence[str]
    task: str | None
    protocol: str
    strategies: str | None
    search: str | None
    trials: int | None
    baseline: Sequence[str] | None
    seed: int
    device: str
    precision: FeaturePrecision
    again: bool
    allow_leakage: bool
    same_people: Sequence[str]
    near: bool
    fractions: str
    draws: int
    draw: int | None
    external: str | None
    label_map: Sequence[str]
    external_part: ExternalPart
    folds: int
    shift: str | None
    strengths: str
    batch: int
    workers: int | None
    csv: Path | None
    markdown: Path | None
    margin: float | None = None
    score_by: ScoreUnit = "image"
    combine: Combination | None = None
    floor: bool = True
    diagnose: Sequence[Diagnosis] = ()
    salt_file: Path | None = None

    def to_request(self) -> "BenchRequest":
        """The request that `run_bench` takes. Raises InputError for a value that cannot be read."""
        from encoders.runtime.devices import resolve_device
        from transfer.bench.baselines import parse_baselines
        from transfer.bench.plan import BenchRequest
        from transfer.records.record_ids import use_salt_file
        from transfer.tasks.people import parse_same_people

        use_salt_file(self.salt_file)
        fractions, patients = parse_fractions(self.fractions)
        protocols, overrides = expand_strategies(split_commas(self.protocol), split_commas(self.strategies), self.overrides)
        overrides = expand_search(self.search, self.trials, protocols, overrides)
        return BenchRequest(
            encoders=expand_sweeps(split_names(self.encoder)),
            tasks=split_commas(self.task),
            protocols=protocols,
            baselines=parse_baselines(self.baseline),
            seed=self.seed,
            device=resolve_device(self.device),
            precision=self.precision,
            recompute=self.again,
            allow_leakage=self.allow_leakage,
            same_people=parse_same_people(self.same_people),
            near_duplicates=self.near,
            fractions=fractions,
            patients=patients,
            draws=self.draws,
            only_draw=self.draw,
            folds=self.folds,
            batch=self.batch,
            workers=self.workers,
            overrides=overrides,
            shifts=expand_shifts(split_commas(self.shift), parse_integers("--strengths", self.strengths)),
            external=self.external_request(),
            floor=self.floor,
            diagnose=self.diagnose,
        )

    def external_request(self) -> "ExternalRequest | None":
        """The external task; None without one."""
        from transfer.bench.external import ExternalRequest

        if self.external is None:
            if self.label_map or self.external_part != "test":
                raise InputError("--map and --external-part need an external task; name it with --external")
            return None
        return ExternalRequest(self.external, self.label_map, self.external_part)


def parse_fractions(text: str) -> tuple[list[float], list[int]]:
    """`10%,0.5,20p` as shares and numbers of patients. Raises InputError for other text, and for a number that is no label fraction."""
    parts = split_commas(text)
    try:
        patients = [int(part[:-1]) for part in parts if part.endswith("p")]
        shares = [float(part.rstrip("%")) / (100 if part.endswith("%") else 1) for part in parts if not part.endswith("p")]
    except ValueError as error:
        raise InputError(
            f"--fractions is {text!r}; expected shares above 0 and at most 1, or numbers of patients, e.g. 0.01,10%,20p,1"
        ) from error
    if invalid := [*(share for share in shares if not 0 < share <= 1), *(f"{n}p" for n in patients if n < 1)]:
        raise InputError(f"--fractions holds {invalid}; a label fraction is above 0 and at most 1, e.g. 0.01,0.1,1 or 20p,1")
    return shares, patients


def parse_integers(option: str, text: str) -> list[int]:
    """`1,3,5` as integers. Raises InputError naming the option."""
    try:
        return [int(part) for part in split_commas(text)]
    except ValueError as error:
        raise InputError(f"{option} is {text!r}; expected integers, comma-separated, e.g. 1,3,5") from error
