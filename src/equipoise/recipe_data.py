"""The part of a recipe that says where pairs come from and how they are mixed."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"
Name = Annotated[str, Field(pattern=NAME)]
WhenShort = Literal["fail", "shrink", "repeat"]


class Part(BaseModel):
    """What all parts of a recipe share: unknown keys are refused and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class SourceBase(Part):
    """What every source has."""

    domain: Name
    """The ability that these pairs teach, by which training figures are reported."""
    limit: PositiveInt | None = None
    """Use at most this many pairs, drawn with the source's own seed."""
    max_malformed: Share = 0.2
    """Stop when more than this share of the rows is malformed."""


class PocketSource(SourceBase):
    """Pairs from the embedded synthetic world."""

    kind: Literal["pocket"]
    domain: Literal["general", "finance", "reddit"]
    """Which of the world's domains."""
    rows: PositiveInt = 1000
    """How many rows the world makes."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the world's rows."""


class FileSource(SourceBase):
    """What every source that reads rows has."""

    id: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder in the hub's layout, or a .json, .jsonl, .parquet or .csv file (also .gz)."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    split: str = "train"
    """Split of a hub data set or folder; a single file has none."""


class OrcaSource(FileSource):
    """`system, question, chosen, rejected`: the columns of Intel/orca_dpo_pairs."""

    kind: Literal["orca"]
    domain: Name = "general"
    """The ability that these pairs teach."""


class HhSource(FileSource):
    """`chosen, rejected`: whole dialogues of Anthropic/hh-rlhf; the prompt is all but the last answer."""

    kind: Literal["hh"]
    domain: Name = "general"
    """The ability that these pairs teach."""


class Columns(Part):
    """Which column of a table is what: either chosen and rejected, or first, second and label."""

    prompt: str | list[str]
    """Text, a list of messages, or several columns that are joined by an empty line."""
    system: str | None = None
    """System message."""
    chosen: str | None = None
    """The better answer."""
    rejected: str | None = None
    """The worse answer."""
    first: str | None = None
    """First answer, where a label says which one is better."""
    second: str | None = None
    """Second answer, where a label says which one is better."""
    label: str | list[str] | None = None
    """1 = first is better, 2 = second is better, anything else = tie; several columns = majority."""
    group: str | None = None
    """What rows share when they belong together; default: the prompt."""

    @model_validator(mode="after")
    def _one_way(self) -> Columns:
        ranked, labelled = (self.chosen, self.rejected), (self.first, self.second, self.label)
        if (all(ranked) and not any(labelled)) or (all(labelled) and not any(ranked)):
            return self
        raise ValueError("give either `chosen` and `rejected`, or `first`, `second` and `label`")


class TableSource(FileSource):
    """Any table whose columns the recipe names."""

    kind: Literal["table"]
    columns: Columns
    """Which column is what."""


Source = Annotated[PocketSource | OrcaSource | HhSource | TableSource, Field(discriminator="kind")]


class Mix(Part):
    """What a stage trains on: `{source: count, ...}` or `{pairs: N, shares: {source: share, ...}}`."""

    counts: dict[str, PositiveInt] | None = None
    """Pairs per source."""
    pairs: PositiveInt | None = None
    """Pairs in all, divided by `shares`."""
    shares: dict[str, Share] | None = None
    """Share of each source in pairs; they sum to 1."""
    when_short: WhenShort = "fail"
    """A source has too few pairs: stop, shrink the whole mix in proportion, or repeat its pairs."""

    @model_validator(mode="before")
    @classmethod
    def _plain_counts(cls, value: Any) -> Any:
        """`{general: 800}` means `{counts: {general: 800}}`."""
        if not isinstance(value, dict) or value.keys() & {"counts", "pairs", "shares"}:
            return value
        rest = {key: count for key, count in value.items() if key != "when_short"}
        return {"counts": rest, **{key: value[key] for key in value.keys() & {"when_short"}}}

    @model_validator(mode="after")
    def _one_form(self) -> Mix:
        by_shares = self.pairs is not None and self.shares is not None
        if by_shares == (self.counts is not None):
            raise ValueError("give either a count for each source, or `pairs` and `shares`")
        if self.counts is not None and not self.counts:
            raise ValueError("the mix is empty: name at least one source")
        if self.shares is not None and abs(sum(self.shares.values()) - 1.0) > 1e-6:
            raise ValueError(f"shares sum to {sum(self.shares.values()):.6g}, not to 1")
        return self

    @property
    def sources(self) -> list[str]:
        """Names of the sources in the order of the recipe."""
        return list(self.counts or self.shares or {})
