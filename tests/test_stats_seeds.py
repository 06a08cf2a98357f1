"""Seeds and items together: by hand, its parts, its edges, and coverage in simulated worlds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equipoise.evaluation.stats import paired
from equipoise.evaluation.stats_seeds import SeedResult, over_seeds

WORLDS = {  # standard deviations of seed (times 1 / sqrt(n)), item, rest; items per cluster
    "seeds alike": (0.0, 1.0, 1.0, 1),
    "seeds as items": (1.0, 1.0, 1.0, 1),
    "seeds twice as items": (2.0, 1.0, 1.0, 1),
    "seeds far apart": (5.0, 1.0, 1.0, 1),
    "clusters of 5": (2.0, 1.0, 1.0, 5),
    "skewed questions": (2.0, 1.0, 0.5, 1),
    "right or wrong": (2.0, 1.0, 0.5, 1),
}


def draw(rng: np.random.Generator, seeds: int, n: int, world: str) -> tuple[np.ndarray, list[int]]:
    """Return differences [seeds, n] whose true mean is 0, and the clusters of the items."""
    by_seed, by_item, rest, size = WORLDS[world]
    clusters = np.arange(n) // size
    items = rng.exponential(size=n) - 1 if world == "skewed questions" else rng.normal(size=n)
    if size > 1:
        items = (items + rng.normal(size=n)[clusters]) / math.sqrt(2)
    shifts = by_seed / math.sqrt(n) * rng.normal(size=(seeds, 1))
    if world == "right or wrong":  # ability, with noise of its own in each answer; half are right before and after
        before = items + rest * rng.normal(size=n) > 0
        after = items + shifts + rest * rng.normal(size=(seeds, n)) > 0
        return after.astype(float) - before, clusters.tolist()
    return shifts + by_item * items + rest * rng.normal(size=(seeds, n)), clusters.tolist()


def test_by_hand_without_rest() -> None:
    # Seeds differ by 2, items by 2, and nothing else: means 1 and 3 both ways.
    result = over_seeds([[0.0, 2.0], [2.0, 4.0]])
    assert result.difference == 2.0
    assert (result.seeds, result.n, result.unscored, result.clusters) == (2, 2, 0, 2)
    assert result.between_seeds == pytest.approx(math.sqrt(2))
    assert result.between_items == pytest.approx(math.sqrt(2))
    # variance of the mean: 2 / 2 + 2 / 2; t at 1 degree of freedom is 12.706 for both parts
    assert result.standard_error == pytest.approx(math.sqrt(2))
    half = 12.706 * math.sqrt(2)
    assert result.ci == pytest.approx((2 - half, 2 + half), abs=1e-3)
    # p: the t at which sqrt(2) t = 2; P(|t| > sqrt 2) at 1 df = 1 - 2 / pi * atan(sqrt 2)
    assert result.p_value == pytest.approx(1 - 2 / math.pi * math.atan(math.sqrt(2)))


def test_by_hand_with_rest_alone() -> None:
    # rest [[1, -1], [-1, 1]]: no seed, no item differs in its mean; one seed's noise is taken off, not added
    result = over_seeds([[1.5, -0.5], [-0.5, 1.5]])
    assert (result.difference, result.between_seeds, result.between_items) == (0.5, 0.0, 0.0)


def test_the_parts_add_up_to_the_variance_of_the_mean() -> None:
    """Over 600 draws the squared standard error is the true variance: the rest is not counted twice."""
    rng, squares, found = np.random.default_rng(1), [], []
    for _ in range(600):
        d = 0.5 * rng.normal(size=(4, 1)) + rng.normal(size=30) + 2 * rng.normal(size=(4, 30))
        result = over_seeds(d)
        squares.append(result.standard_error**2)
        found.append(result.difference)
    true = 0.25 / 4 + 1 / 30 + 4 / 120
    assert np.mean(squares) == pytest.approx(true, rel=0.06)  # counted twice it would be 26 % more
    assert np.var(found) == pytest.approx(true, rel=0.15)


def test_clusters_of_the_same_item_add_no_evidence() -> None:
    d = np.random.default_rng(2).normal(0.3, size=(3, 20))
    alone, tripled = over_seeds(d), over_seeds(np.repeat(d, 3, axis=1), clusters=np.repeat(np.arange(20), 3).tolist())
    assert tripled.ci == pytest.approx(alone.ci)
    assert tripled.p_value == pytest.approx(alone.p_value)
    assert (tripled.clusters, tripled.n) == (20, 60)


def test_an_item_unscored_under_one_seed_is_left_out_under_all() -> None:
    d = np.random.default_rng(3).normal(size=(3, 12))
    holes = d.copy()
    holes[1, 4], holes[2, 4], holes[0, 9] = np.nan, np.nan, np.nan
    kept = [i for i in range(12) if i not in (4, 9)]
    clusters = [i // 2 for i in range(12)]
    with_holes = over_seeds(holes, clusters=clusters)
    assert (with_holes.unscored, with_holes.n) == (2, 10)
    without = over_seeds(d[:, kept], clusters=[clusters[i] for i in kept])
    assert with_holes.ci == without.ci
    assert with_holes.p_value == without.p_value


def test_seeds_that_agree_exactly_say_what_the_items_say() -> None:
    rng = np.random.default_rng(4)
    row = rng.normal(0.2, size=40)
    result, items = over_seeds(np.tile(row, (5, 1))), paired(np.zeros(40), row)
    assert result.ci == pytest.approx(items.ci)
    assert result.p_value == pytest.approx(items.p_value)
    assert result.difference == pytest.approx(row.mean())
    assert result.between_seeds == pytest.approx(0.0, abs=1e-9)
    nothing = over_seeds(np.zeros((3, 50)))
    assert (nothing.p_value, nothing.standard_error) == (1.0, 0.0)
    assert nothing.ci[0] < 0 < nothing.ci[1]  # 50 items without change are not certainty


def test_seeds_that_disagree_widen_the_interval() -> None:
    row = np.random.default_rng(5).normal(0.5, 0.2, size=100)
    alike = over_seeds(np.stack([row, row, row]))
    apart = over_seeds(np.stack([row - 0.5, row, row + 0.5]))
    assert alike.p_value < 1e-6
    assert apart.p_value > 0.1
    assert apart.between_seeds == pytest.approx(0.5)
    # three seeds 0.5 apart: t at 2 df is 4.303
    assert apart.ci[1] - apart.difference == pytest.approx(4.303 * 0.5 / math.sqrt(3), rel=0.01)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(2, 12), st.integers(0, 10_000), st.sampled_from([0.0, 0.1, 1.0]))
def test_interval_and_p_agree(seeds: int, n: int, seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    d = spread * rng.normal(size=(seeds, 1)) + rng.normal(0.4, size=n) + 0.3 * rng.normal(size=(seeds, n))
    result = over_seeds(d)
    assert (result.ci[0] <= 0 <= result.ci[1]) == (result.p_value >= 0.05)
    assert result.ci[0] <= result.difference <= result.ci[1]


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="one seed cannot speak about seeds"):
        over_seeds([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="1 of 2 items are scored under all seeds"):
        over_seeds([[1.0, float("nan")], [1.0, 2.0]])
    with pytest.raises(ValueError, match="infinite"):
        over_seeds([[1.0, math.inf], [1.0, 2.0]])
    with pytest.raises(ValueError, match="shape"):
        over_seeds(np.zeros(4))
    with pytest.raises(ValueError, match="3 clusters for 2 items"):
        over_seeds(np.zeros((2, 2)), clusters=["a", "b", "c"])
    with pytest.raises(ValueError, match="one cluster"):
        over_seeds(np.zeros((2, 2)), clusters=["a", "a"])
    with pytest.raises(ValueError, match="confidence"):
        over_seeds(np.zeros((2, 2)), confidence=0)


def simulate(world: str, seeds: int, n: int, repeats: int) -> list[SeedResult]:
    rng = np.random.default_rng([seeds, n])
    drawn = (draw(rng, seeds, n, world) for _ in range(repeats))
    return [over_seeds(d, clusters=clusters) for d, clusters in drawn]


def covered(results: list[SeedResult]) -> float:
    """Return in percent how often the interval holds the true difference, 0; the rest are false alarms."""
    return 100 * float(np.mean([r.ci[0] <= 0 <= r.ci[1] for r in results]))


@pytest.mark.parametrize(("seeds", "world"), [(3, "seeds far apart"), (3, "seeds alike"), (5, "seeds as items")])
def test_coverage_in_small(seeds: int, world: str) -> None:
    """300 draws: chance alone moves the coverage by 2.5 points (two standard errors)."""
    assert 91.5 <= covered(simulate(world, seeds, 25, 300)) <= 99


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_coverage(world: str) -> None:
    """2,000 draws: two standard errors are 1 point."""
    for seeds in (2, 3, 5, 10):
        row = [covered(simulate(world, seeds, n, 2000)) for n in (25, 50, 100, 250)]
        print(f"\n{world:22s} {seeds:2d} seeds   {'   '.join(f'{x:5.1f}' for x in row)}", end="")
        if seeds > 2:
            assert min(row) >= 92.0
            assert max(row[1:]) <= 98.0
