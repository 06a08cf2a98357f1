"""Differences between recipes with their uncertainty, whether they ran once or under several seeds. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from equipoise.evaluation.stats import paired
from equipoise.evaluation.stats_seeds import over_seeds

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Effect:
    """A mean difference over `seeds` trainings and `n` items, with its interval and p of "no difference".

    With one seed interval and p cover the items alone. `unscored` items are left out.
    """

    difference: float
    ci: tuple[float, float]
    p_value: float
    n: int
    unscored: int
    seeds: int


def effect(before: Floats, after: Floats, groups: Sequence[Hashable], confidence: float) -> Effect:
    """Return after minus before, [seeds, items] each, NaN where unscored; `groups` [items] names dependent items.

    Raises ValueError where fewer than 2 groups were scored.
    """
    if len(after) > 1:
        found = over_seeds(after - before, clusters=groups, confidence=confidence)
        return Effect(found.difference, found.ci, found.p_value, found.n, found.unscored, found.seeds)
    scored = ~np.isnan(after[0] - before[0])
    kept = [group for group, stays in zip(groups, scored, strict=True) if stays]
    one = paired(before[0, scored], after[0, scored], clusters=kept, confidence=confidence)
    return Effect(one.difference, one.ci, one.p_value, one.n, int((~scored).sum()), 1)


@dataclass(frozen=True, slots=True)
class Side:
    """One recipe in one domain: scores before and after, [seeds, items] each, and the seeds."""

    before: Floats
    after: Floats
    seeds: Sequence[int]


def contrast(one: Side, other: Side, groups: Sequence[Hashable], confidence: float) -> Effect:
    """Return how much more `one` gained than `other`, on the items that both scored. See `matched`."""
    left, right = matched(one, other)
    if np.array_equal(left.before, right.before, equal_nan=True):
        return effect(right.after, left.after, groups, confidence)  # the same base: scores themselves, not gains
    return effect(right.after - right.before, left.after - left.before, groups, confidence)


def matched(one: Side, other: Side) -> tuple[Side, Side]:
    """Return both sides with one row for each pair of runs.

    Runs of the same seed are paired, or, where fewer than two seeds are shared, runs in the order of their seeds: they
    are independent trainings either way. Where one side has a single seed its run meets the mean over the other's
    seeds, and what follows covers the items alone.
    """
    count = min(len(one.seeds), len(other.seeds))
    if count == 1:
        return _mean(one), _mean(other)
    shared = [seed for seed in one.seeds if seed in other.seeds]
    if len(shared) > 1:
        return _rows(one, [one.seeds.index(s) for s in shared]), _rows(other, [other.seeds.index(s) for s in shared])
    return _rows(one, range(count)), _rows(other, range(count))


def _mean(side: Side) -> Side:
    return Side(side.before.mean(axis=0, keepdims=True), side.after.mean(axis=0, keepdims=True), side.seeds[:1])


def _rows(side: Side, places: Sequence[int]) -> Side:
    chosen = list(places)
    return Side(side.before[chosen], side.after[chosen], [side.seeds[place] for place in chosen])
