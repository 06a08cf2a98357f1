"""One score over all domains, and how much the order depends on how the domains are weighted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from equipoise.data.seeds import generator
from equipoise.recipe_evaluation import PREFERENCE, kind_of
from equipoise.study.evidence import Effect, effect

Floats = npt.NDArray[np.float64]
FORMULA = (
    "overall = mean over domains of (mean gain over the base) / (standard deviation of the base's item scores; "
    "0.5 for preference_accuracy)"
)
PAIR_UNIT = 0.5
"""The standard deviation of right and wrong where half of the pairs are right."""
DRAWS = 4000
"""Weightings that are drawn."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Rank with equal weights (1 is best), the ranks that 90 % of all weightings give, and how many give rank 1."""

    rank: int
    low: int
    high: int
    first: float


def unit(domain: str, base: Floats) -> float:
    """Return the standard deviation of the base's scores [seeds, items] over the items; 0 where it cannot be had.

    The unit of Glass's delta (Glass 1976): it belongs to the base alone, so no run can change what its gain is
    measured in. `preference_accuracy` compares with the base by definition, so that the base itself has 0.5 on every
    pair and no spread: its unit is `PAIR_UNIT`.
    """
    if kind_of(domain) == PREFERENCE:
        return PAIR_UNIT
    values = base.mean(axis=0)
    values = values[~np.isnan(values)]
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def overall(
    gains: Mapping[str, Floats], units: Mapping[str, float], groups: Mapping[str, Sequence[str]], confidence: float
) -> Effect:
    """Return the overall score of one recipe with its interval; `gains` are [seeds, items] by domain.

    Every domain has the same weight however many items it has. The items of all domains stand side by side, each with
    the weight with which it enters the score, around a common mean: what differs between domains is no noise, what a
    seed does to all domains at once is. Domains without a unit are left out. Raises ValueError where none has one.
    """
    named = [domain for domain in gains if units[domain] > 0]
    if not named:
        raise ValueError("no domain in which the base's scores differ between items")
    scored: dict[str, npt.NDArray[np.bool_]] = {
        domain: np.logical_not(np.isnan(gains[domain]).any(axis=0)) for domain in named
    }
    total = sum(int(kept.sum()) for kept in scored.values())
    columns, names = [], []
    means = {domain: float(gains[domain][:, scored[domain]].mean()) / units[domain] for domain in named}
    centre = float(np.mean(list(means.values())))
    for domain in named:
        kept = scored[domain]
        weight = total / (len(named) * int(kept.sum()))
        columns.append(centre + weight * (gains[domain][:, kept] / units[domain] - means[domain]))
        names += [(domain, group) for group, stays in zip(groups[domain], kept, strict=True) if stays]
    together = np.concatenate(columns, axis=1)
    return effect(np.zeros_like(together), together, names, confidence)


def ranks(scores: Mapping[str, Sequence[float]], *, seed: int = 0) -> dict[str, Ranks]:
    """Return the ranks of recipes under many weightings; `scores` are standardised gains by domain, in one order.

    Weightings are drawn evenly from all that are not negative and sum to 1. No ranks where there is nothing to weight.
    """
    names = list(scores)
    if not names or not scores[names[0]]:
        return {}
    table = np.array([scores[name] for name in names], dtype=np.float64)
    weights = generator("weights of domains", seed).dirichlet(np.ones(table.shape[1]), size=DRAWS)
    equal = _ranks(table.mean(axis=1, keepdims=True))[:, 0]
    drawn = _ranks(table @ weights.T)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=1, method="closest_observation")
    first = (drawn == 1).mean(axis=1)
    return {
        name: Ranks(int(equal[place]), int(low[place]), int(high[place]), float(first[place]))
        for place, name in enumerate(names)
    }


def _ranks(scores: Floats) -> npt.NDArray[np.int64]:
    """Return ranks [recipes, weightings], 1 for the highest; equal scores share the better rank."""
    return np.stack([1 + (scores > one + 1e-12).sum(axis=0, dtype=np.int64) for one in scores])
