"""The types of the doctor's report, which `encoders doctor --json` prints."""

from collections.abc import Mapping
from typing import Literal, TypedDict

from encoders.runtime.json_types import Json

LabelKind = Literal["text", "yes/no", "number"]
HIGH_FLOOR = 0.75  # AUROC of statistics of the image, without a network, above which a warning is given
Distribution = dict[str, float]  # counts by class; or positive and prevalence; or min, mean and max


class StoreSummary(TypedDict):
    images: int
    files: int
    modality: str
    dataset: str
    shape: list[int] | None  # None: sizes vary
    dtype: str
    channels: int
    unit: Mapping[str, Json]
    geometry: Mapping[str, Json]
    fingerprint: str
    columns: list[str]


class LayoutSummary(TypedDict):
    codec: str
    bytes: int
    bytes_per_image: int
    read: int  # images read to measure the rates
    images_per_s: float
    mb_per_s: float


class IntensitySummary(TypedDict):
    images: int
    mean: float
    std: float
    black: float  # fraction of values that are 0
    white: float  # fraction of values that are 1
    histogram: list[float]  # fractions


class DepthSummary(TypedDict):
    bits: int  # the smallest usual depth that holds the images of the group
    images: int
    top: int  # largest value, of 65535
    first: str  # key


class ContentSummary(TypedDict):
    columns_changed: int  # files whose attributes, labels or other columns are not those that were written
    without_hash: int  # JPEGs of an earlier version, which were decoded only
    damaged: list[str]  # keys of the images that are not those that were stored


class ExactDuplicates(TypedDict):
    groups: int
    images: int
    across_patients: int
    across_splits: int
    keys: list[list[str]]  # at most MAX_LISTED groups


class NearPairs(TypedDict):
    pairs: int
    across_patients: int
    across_splits: int
    nearest: list[list[str | int]]  # two keys and the distance in bits; at most MAX_LISTED pairs


class NearDuplicates(NearPairs):
    looked: bool
    radius: int


class PatientSummary(TypedDict):
    patients: int
    median: float  # images per patient
    most: int
    with_several: int
    images_without_patient: int


class SplitSize(TypedDict):
    images: int
    patients: int


class SplitSummary(TypedDict):
    splits: dict[str, SplitSize]
    patients_in_several: int
    their_images: int
    who: list[str]  # at most MAX_LISTED patients


class LabelSummary(TypedDict):
    label: str
    kind: LabelKind
    known: int
    unknown: int
    values: int  # distinct values
    spread: Distribution
    by_split: dict[str, Distribution]
    conflicts: int  # groups of identical images with different values


class FloorSummary(TypedDict):
    label: str
    auroc: float  # of the features of `pixels`, cross-validated over patients
    images: int
    patients: int


class Finding(TypedDict):
    finding: str
    count: int
    meaning: str


class Examination(TypedDict):
    """The report without its findings."""

    store: StoreSummary
    layout: LayoutSummary
    intensity: IntensitySummary
    content: ContentSummary
    depths: list[DepthSummary]  # of the 16-bit images; several: mixed bit depths
    constant: list[str]
    exact: ExactDuplicates
    near: NearDuplicates
    patients: PatientSummary
    splits: SplitSummary
    labels: list[LabelSummary]
    floors: list[FloorSummary]


class DoctorReport(Examination):
    findings: list[Finding]
