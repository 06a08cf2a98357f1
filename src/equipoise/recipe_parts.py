"""The parts of a recipe that others are made of: what all parts share, a model, a reward model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"
Name = Annotated[str, Field(pattern=NAME)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


class Part(BaseModel):
    """What all parts of a recipe share: unknown keys are refused and values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ModelSpec(Part):
    """The model to be trained."""

    id: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder in the hub's layout, or `pocket`, the embedded model."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    dtype: Literal["float32", "bfloat16", "auto"] = "auto"
    """Precision of the frozen weights; `auto` is bfloat16 on CUDA and float32 on CPU."""
    quantization: Literal["nf4"] | None = None
    """`nf4` loads the frozen weights in 4 bits through bitsandbytes (the `[quant]` extra); on a CPU it is slow."""
    thinking: bool = False
    """Render prompts of thinking models with thinking on, in training and evaluation alike."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Leave it off unless you have read that code."""


class RewardSpec(Part):
    """A reward model: the recipe's scores the evaluation, a source's ranks its answers."""

    id: Annotated[str, Field(min_length=1)]
    """A hub id, a local folder, or `pocket`: a sequence-classification model with one logit."""
    revision: str | None = None
    """Branch, tag or commit of a hub id."""
    max_length: PositiveInt = 4096
    """Longest conversation in tokens; longer ones lose their oldest text, never the answer."""
    sanity: Literal["stop", "warn"] = "stop"
    """What happens when the reward model prefers obviously bad answers."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    also: tuple[RewardSpec, ...] = ()
    """Further reward models: an answer then gets the mean of all, each measured in its own calibrated units."""

    @field_validator("also")
    @classmethod
    def _no_list_within_a_list(cls, value: tuple[RewardSpec, ...]) -> tuple[RewardSpec, ...]:
        if any(member.also for member in value):
            raise ValueError("a reward model under `also` has no `also` of its own; list all of them in one place")
        return value

    @model_validator(mode="after")
    def _each_once(self) -> RewardSpec:
        named = [(member.id, member.revision) for member in self.members]
        twice = next((id for id, revision in named if named.count((id, revision)) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice among the reward models; the mean would count it twice")
        return self

    @property
    def members(self) -> tuple[RewardSpec, ...]:
        """All reward models, one by one: this one first, then those of `also`."""
        return (self.model_copy(update={"also": ()}), *self.also)
