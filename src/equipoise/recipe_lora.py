"""The part of a recipe that says what adapter a stage trains: one for all its pairs, or one for each domain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, model_validator

from equipoise.recipe_parts import Name, Part


class Lora(Part):
    """The adapter that a stage trains."""

    rank: PositiveInt = 8
    """Rank r of the adapter."""
    alpha: PositiveFloat = 16.0
    """Scale: the adapter's output is multiplied by alpha / rank."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Dropout on the adapter's input."""
    target_modules: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Which linear layers are adapted."""

    @model_validator(mode="before")
    @classmethod
    def _one_form(cls, value: Any) -> Any:
        """What looks like both forms of `lora`, one adapter and one for each domain, is told apart by hand."""
        if cls is not Lora or not isinstance(value, dict):
            return value
        domains = [str(key) for key, part in value.items() if isinstance(part, dict)]
        if domains:
            own = ", ".join(str(key) for key in value if str(key) not in domains)
            raise ValueError(
                f"adapters of domains ({', '.join(domains)}) are mixed with fields of a single one ({own}); put the "
                f"fields into each domain, as `{domains[0]}: {{rank: 16, alpha: 32}}`"
            )
        if "learning_rate" in value:
            raise ValueError("learning_rate: that of a single adapter is optim.learning_rate; only domains have theirs")
        return value


class DomainLora(Lora):
    """The adapter of one domain of a stage: it learns from the pairs of this domain alone."""

    learning_rate: PositiveFloat | None = None
    """Highest learning rate of this adapter; by default `optim.learning_rate`."""


def _lora_form(value: Any) -> str:
    several = isinstance(value, dict) and value and all(isinstance(part, dict | Part) for part in value.values())
    return "constrained-domains" if several else "constrained-adapter"


Adapters = Annotated[
    Annotated[Lora, Tag("constrained-adapter")] | Annotated[dict[Name, DomainLora], Tag("constrained-domains")],
    Discriminator(_lora_form),
]


def adapters_of(lora: Lora | Mapping[str, DomainLora]) -> dict[str, Lora]:
    """The adapters of a stage by domain, in the order of their names; the only one of all pairs is that of ''."""
    return {"": lora} if isinstance(lora, Lora) else {domain: lora[domain] for domain in sorted(lora)}
