"""The part of a recipe that says how pairs are mixed, and in which order they come."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from equipoise.recipe_parts import Part, Share

WhenShort = Literal["fail", "shrink", "repeat"]


class Mix(Part):
    """What a stage trains on: `{source: count, ...}` or `{pairs: N, shares: {source: share, ...}}`."""

    counts: dict[str, PositiveInt] | None = None
    """Pairs per source."""
    pairs: PositiveInt | None = None
    """Pairs in all, divided by `shares`."""
    shares: dict[str, Share] | None = None
    """Share of each source; they sum to 1."""
    by: Literal["pairs", "tokens", "gradient"] = "pairs"
    """What `shares` are shares of: pairs, answer tokens, or expected gradient (see docs/data.md)."""
    when_short: WhenShort = "fail"
    """A source has too few pairs: stop, shrink the whole mix in proportion, or repeat its pairs."""

    @model_validator(mode="before")
    @classmethod
    def _plain_counts(cls, value: Any) -> Any:
        """`{general: 800}` means `{counts: {general: 800}}`."""
        if not isinstance(value, dict) or value.keys() & {"counts", "pairs", "shares"}:
            return value
        options = {"when_short", "by"}
        rest = {key: count for key, count in value.items() if key not in options}
        return {"counts": rest, **{key: value[key] for key in value.keys() & options}}

    @model_validator(mode="after")
    def _one_form(self) -> Mix:
        by_shares = self.pairs is not None and self.shares is not None
        if by_shares == (self.counts is not None):
            raise ValueError("give either a count for each source, or `pairs` and `shares`")
        if self.counts is not None and not self.counts:
            raise ValueError("the mix is empty: name at least one source")
        if self.counts is not None and self.by != "pairs":
            raise ValueError(f"`by: {self.by}` divides by `shares`; counts are counts of pairs")
        if self.shares is not None and abs(sum(self.shares.values()) - 1.0) > 1e-6:
            raise ValueError(f"shares sum to {sum(self.shares.values()):.6g}, not to 1")
        return self

    @property
    def sources(self) -> list[str]:
        """Names of the sources in the order of the recipe."""
        return list(self.counts or self.shares or {})


class Replay(Part):
    """Pairs that earlier stages were trained on and that were kept, once more, beside the mix.

    The mix stays as it is; each earlier source takes part by how many of its pairs were trained on.
    """

    share: Annotated[float, Field(gt=0.0, lt=1.0)]
    """Share of all pairs of the stage that are replayed, to the nearest pair."""
    when_short: WhenShort = "fail"
    """Earlier stages have too few pairs: stop before anything is trained, take what there is, or repeat pairs."""


class Curriculum(Part):
    """Pairs in bands of difficulty, the bands in order, the pairs of a band shuffled.

    Each source is divided into bands by itself, so that every beginning of the order holds the mix.
    """

    kind: Literal["curriculum"] = "curriculum"
    by: Literal["score_gap", "reward_gap", "length", "margin"] = "margin"
    """Easy is: a wide gap of the source's scores or of rewards, a short pair, a wide margin of the reference."""
    direction: Literal["easy_to_hard", "hard_to_easy"] = "easy_to_hard"
    """Which end comes first."""
    bands: PositiveInt = 5
    """How many bands; 1 is a shuffle."""
