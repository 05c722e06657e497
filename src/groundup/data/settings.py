"""The recipe's ``data`` section: where the data is, what is predicted from what, how rows are divided and checked."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from groundup.sections import Section

Task = Literal["image-classification", "tabular-classification", "tabular-regression"]
SPLITS = ("train", "validation", "test")
MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "None", "NULL", "null", "?")


class Split(Section):
    """How rows are divided.  What is left after validation and test is for training."""

    method: Literal["auto", "random", "stratified", "group", "time"] = "auto"
    """auto: group where `group` is given, else time where `time` is, else stratified for classification, random for regression."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows that choose settings."""
    test: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows that give the final figures."""

    @model_validator(mode="after")
    def _something_left(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} and test {self.test} leave nothing to train on; their sum is below 1")
        return self


class Image(Section):
    """How images are read."""

    size: tuple[int, int] | None = None
    """(height, width); images of another size are resized.  By default the size of most images."""
    mode: Literal["L", "RGB"] | None = None
    """L is grey, RGB is colour.  By default the mode of most images."""


class Data(Section):
    """Where the data is and how it is divided and checked."""

    source: str
    """A name from `groundup data`, a path (CSV, Parquet, JSON Lines, .npz, a folder of images), or an address
    (https://host/file.csv, sqlite:///file, postgresql://...)."""
    format: Literal["csv", "parquet", "jsonl", "sqlite", "postgresql", "npz", "images"] | None = None
    """What the source is, where its ending does not tell."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """SHA-256 of the file at a web address: other content is refused, and once it is here no network is needed."""
    max_download: int = Field(default=10_000_000_000, gt=0)
    """Bytes that a file at a web address may have."""
    table: str | None = None
    """The table to read from a database."""
    query: str | None = None
    """A SELECT to read from a database, instead of a table."""
    target: str | None = None
    """The column to predict; known for named sources and folders of images."""
    features: list[str] | None = None
    """Predict from these columns alone, in this order.  By default from all that are of use."""
    drop: list[str] = Field(default=[])
    """Columns not to predict from."""
    group: str | None = None
    """A column (patient, customer, session) whose rows stay together in one split."""
    time: str | None = None
    """A date column; with it training is the past and test the future."""
    split: Split = Split()
    image: Image = Image()
    missing: list[str] = Field(default=list(MISSING))
    """Texts in a CSV that mean "not known"."""
    decimal: Literal[".", ","] | None = None
    """What stands before the fraction of a number in a CSV.  By default told by the first lines: `;12,5;` is twelve and a half."""
    schema_: str | None = Field(default=None, alias="schema")
    """File with each column's kind and limits; made on the first run, enforced on later ones.  By default schema.yaml beside the recipe."""
    max_bad_rows: float = Field(default=0.01, ge=0, le=1)
    """Share of rows that may fail the schema; they go to quarantine.parquet.  More than this fails the run."""
    leaks: Literal["error", "warn", "ignore"] = "error"
    """What to do when a feature gives the target away or most test rows stand in training too."""
    limit: int | None = Field(default=None, gt=0)
    """Read only the first so many rows."""

    @model_validator(mode="after")
    def _no_contradictions(self) -> Data:
        if self.sha256 and not self.source.lower().startswith(("http://", "https://")):
            raise ValueError("`sha256` is of a file at a web address (http://, https://), and `source` is none")
        if self.table and self.query:
            raise ValueError("give `table` or `query`, not both")
        if self.features is not None and (both := sorted(set(self.features) & set(self.drop))):
            raise ValueError(f"{', '.join(both)} stands under both `features` and `drop`")
        if self.split.method == "group" and not self.group:
            raise ValueError("split method 'group' needs `group`: the column whose rows stay together")
        if self.split.method == "time" and not self.time:
            raise ValueError("split method 'time' needs `time`: the date column that orders the rows")
        return self
