"""All contrasts at once say what `evidence.contrast` says of each pair alone."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from equipoise.study.evidence import Floats, Side, contrast
from equipoise.study.pairwise import TooFewItems, contrasts
from equipoise.study.pareto import tied_groups

N = 60


def values(kind: str, rng: np.random.Generator, seeds: int) -> tuple[Floats, Floats]:
    """Scores before and after of one recipe: right or wrong, rewards, or rewards of which few changed at all."""
    if kind == "right-or-wrong":
        before = np.tile((np.arange(N) % 2).astype(float), (seeds, 1))
        return before, np.where(rng.random((seeds, N)) < rng.choice([0.05, 0.9]), 1.0, before)
    before = np.tile(np.linspace(-3.0, 3.0, N), (seeds, 1))
    change = rng.gamma(1.0, 1.0, (seeds, N)) * rng.choice([0.2, 1.0]) + rng.normal(0.0, 0.3, (seeds, 1))
    return before, before + (change if kind == "rewards" else np.where(np.arange(N) < 7, np.abs(change) + 1.0, 0.0))


@pytest.mark.parametrize("kind", ["right-or-wrong", "rewards", "few"])
@pytest.mark.parametrize("clustered", [False, True])
@pytest.mark.parametrize("seeds", [[(0,)] * 7, [(0, 1, 2)] * 6, [(0, 1), (0, 1), (1, 2), (0, 1, 2), (5,), (5,)]])
def test_each_pair_is_as_it_is_alone(kind: str, clustered: bool, seeds: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(len(seeds) + clustered)
    groups = [str(i // 3 if i < 30 else i) if clustered else str(i) for i in range(N)]
    sides = []
    for number, given in enumerate(seeds):
        before, after = values(kind, rng, len(given))
        if number == 1:
            after[0, :2] = np.nan
        if number == 2:
            before = before + 0.25 * (kind == "rewards")  # another base: gains are compared, not scores
        sides.append(Side(before, after, given))
    sides.append(sides[0])  # the same run again: no difference at all
    found = contrasts(sides, groups, 0.95)
    assert {*zip(found.one.tolist(), found.other.tolist(), strict=True)} == {*combinations(range(len(sides)), 2)}
    below = 0
    for one, other, difference, p in zip(found.one, found.other, found.difference, found.p_value, strict=True):
        alone = contrast(sides[one], sides[other], groups, 0.95)
        assert difference == pytest.approx(alone.difference, abs=1e-12)
        if alone.p_value < 0.05:
            assert p == pytest.approx(alone.p_value, rel=1e-8, abs=1e-290)
            below += 1
        else:
            assert 0.05 <= p <= alone.p_value + 1e-9
    assert below or kind == "few"


def test_too_little_in_common_names_the_pair() -> None:
    whole = np.zeros((1, 4))
    left, right = whole.copy(), whole.copy()
    left[0, :2], right[0, 2:] = np.nan, np.nan
    with pytest.raises(TooFewItems) as error:
        contrasts([Side(whole, whole, (0,)), Side(whole, left, (0,)), Side(whole, right, (0,))], list("abcd"), 0.95)
    assert error.value.pair == (1, 2)


def test_groups_are_the_largest_sets_without_a_shown_difference() -> None:
    """Against every subset of 9 recipes, for differences drawn at random."""
    rng = np.random.default_rng(3)
    names = list("abcdefghi")
    for share in (0.1, 0.5, 0.9):
        better = {pair: ["x"] for pair in combinations(names, 2) if rng.random() < share}
        free = [
            {*subset}
            for size in range(1, 10)
            for subset in combinations(names, size)
            if not any(pair in better for pair in combinations(subset, 2))
        ]
        largest = sorted(sorted(one) for one in free if not any(one < other for other in free))
        assert tied_groups(names, better) == largest
