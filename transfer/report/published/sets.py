"""Published results of one data set: a YAML file each, with the official sizes and a source for every number.

`PUBLISHED_SETS` lists them. To add a data set, add a file to `data/`.
"""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from encoders.runtime.config import Config, read_yaml, validate_config

PublishedMetric = Literal["auroc", "accuracy", "balanced_accuracy"]
DATA_FOLDER = Path(__file__).parent / "data"


class PublishedSource(Config):
    """Where numbers were read."""

    citation: str = Field(description="authors, title, venue, year")
    table: str = Field(description="table or file with the numbers")
    address: str
    protocol: str = Field(description="how the encoders were used: linear, fine-tuned, optimizer, selection")
    note: str = Field("", description="how the numbers were read, and what limits a comparison")


class PublishedResult(Config):
    """One row. Areas and accuracies are fractions of 1; sd: over training seeds, if the source states it."""

    method: str
    pretraining: str
    source: str = Field(description="a key of `sources`")
    training: Literal["linear probe", "fine-tuned", "from scratch", "AutoML"]
    input: str = Field(description="resolution of the input, e.g. 224 px")
    metrics: dict[PublishedMetric, float] = Field({})
    sd: dict[PublishedMetric, float] = Field({})
    per_label: dict[str, float] = Field({}, description="AUROC of single labels")


class PublishedSet(Config):
    """A data set with an official split. A task must match all of it to be shown with these results."""

    title: str
    datasets: list[str] = Field(min_length=1, description="names of the data set in a store, lower case")
    labels: list[str] = Field(min_length=1, description="target columns of the published task")
    development: int = Field(gt=0, description="official number of images outside of the test part")
    test: int = Field(gt=0, description="official number of test images")
    split: str = Field(description="what the official test part is")
    test_names: list[str] = Field(["test"], min_length=1, description="what the source calls its test part")
    note: str = ""
    sources: dict[str, PublishedSource]
    results: list[PublishedResult] = Field(min_length=1)

    @model_validator(mode="after")
    def _every_number_has_a_source(self) -> "PublishedSet":
        for row in self.results:
            if row.source not in self.sources:
                raise ValueError(f"{row.method}: no source called {row.source!r}; known: {', '.join(self.sources)}")
            numbers = [*row.metrics.values(), *row.per_label.values()]
            if not numbers or not all(0 < v <= 1 for v in numbers):
                raise ValueError(f"{row.method}: expected at least one metric, each a fraction of 1")
            if not set(row.sd) <= set(row.metrics) or not set(row.per_label) <= set(self.labels):
                raise ValueError(f"{row.method}: a standard deviation without its metric, or a label that the data set lacks")
        return self


@cache
def read_published_sets(folder: Path = DATA_FOLDER) -> tuple[PublishedSet, ...]:
    """All data sets with published results, sorted by file name. Raises InputError for a malformed file."""
    return tuple(validate_config(PublishedSet, read_yaml(path), path.name) for path in sorted(folder.glob("*.yaml")))
