"""Do the intervals cover, and do false alarms stay rare? Simulated worlds whose true difference is known.

The figures of docs/statistics.md: python -m pytest -m slow tests/test_stats_simulation.py -s
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy import special

from equipoise.evaluation.stats import PairedResult, paired

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Draw = Callable[[np.random.Generator, Codes], tuple[Floats, Floats]]
NS = (25, 50, 100, 250)


@dataclass(frozen=True)
class World:
    """Draws before and after [n]; `true` is the true difference; `sizes` deals n items out to clusters.

    `covers`: bounds of the coverage demanded, in percent.
    """

    draw: Draw
    true: float = 0.0
    sizes: str = "single"
    covers: tuple[float, float] = (93.0, 97.0)

    def clusters(self, n: int) -> Codes:
        """Return [n] cluster numbers: one item each, five each, or 1 to 21 (mean about 4)."""
        if self.sizes == "single":
            return np.arange(n)
        if self.sizes == "five":
            return np.arange(n) // 5
        dealer = np.random.default_rng(7)
        sizes = 1 + dealer.poisson(dealer.gamma(1.2, 3.3, size=n))
        return np.repeat(np.arange(n), sizes)[:n]


def binary(low: float, gained: float, lost: float) -> Draw:
    """Right or wrong: a share `gained` turns right, `lost` turns wrong, `low` stays right."""

    def draw(rng: np.random.Generator, codes: Codes) -> tuple[Floats, Floats]:
        u = rng.random(len(codes))
        before = (u < low) | (u > 1 - lost)
        after = (u < low) | ((u > low) & (u < low + gained))
        return before.astype(float), after.astype(float)

    return draw


def probit(base: float, shift: float, between: float) -> Draw:
    """Right or wrong, in clusters: ability and its change vary with standard deviation `between`."""

    def draw(rng: np.random.Generator, codes: Codes) -> tuple[Floats, Floats]:
        shared, change = rng.normal(scale=between, size=(2, codes.max() + 1))
        ability = rng.normal(size=len(codes)) + base + shared[codes]
        noise = rng.normal(scale=0.5, size=(2, len(codes)))
        return (ability + noise[0] > 0).astype(float), (ability + shift + change[codes] + noise[1] > 0).astype(float)

    return draw


def probit_difference(base: float, shift: float, between: float) -> float:
    """Return the true difference of `probit`."""
    spread = np.sqrt(1 + 0.25 + between**2)
    return float(special.ndtr((base + shift) / np.sqrt(spread**2 + between**2)) - special.ndtr(base / spread))


def noisy(noise: Callable[..., Floats], within: float = 1.0) -> Draw:
    """Skewed scores that differ by `noise`: a share `within` of it by item, the rest by cluster."""

    def draw(rng: np.random.Generator, codes: Codes) -> tuple[Floats, Floats]:
        before = rng.lognormal(size=len(codes))
        shared = noise(rng, codes.max() + 1)[codes] if within < 1 else 0.0
        return before, before + within * noise(rng, len(codes)) + (1 - within) * shared

    return draw


def normal(rng: np.random.Generator, size: int) -> Floats:
    return rng.normal(size=size)


def skewed(rng: np.random.Generator, size: int) -> Floats:
    return rng.exponential(size=size)


def very_skewed(rng: np.random.Generator, size: int) -> Floats:
    return rng.lognormal(size=size)


def skewed_both(rng: np.random.Generator, size: int) -> Floats:
    return rng.lognormal(size=size) - rng.lognormal(size=size)


def few_changes(rng: np.random.Generator, size: int) -> Floats:
    return (rng.random(size) < 0.2) * rng.normal(size=size)


def few_gains(rng: np.random.Generator, size: int) -> Floats:
    return (rng.random(size) < 0.1) * rng.exponential(size=size)


WORLDS = {
    "binary, no effect, 20% change": World(binary(0.4, 0.1, 0.1)),
    "binary, no effect, 40% change": World(binary(0.3, 0.2, 0.2)),
    "binary, +0.1": World(binary(0.4, 0.2, 0.1), true=0.1),
    "binary, -0.2": World(binary(0.4, 0.05, 0.25), true=-0.2),
    "normal": World(noisy(normal)),
    "skewed scores, no effect": World(noisy(skewed_both)),
    "skewed differences": World(noisy(skewed), true=1.0),
    "very skewed differences": World(noisy(very_skewed), true=float(np.exp(0.5))),
    "20% of the answers change": World(noisy(few_changes), covers=(93.0, 99.0)),
    "10% of the answers improve": World(noisy(few_gains), true=0.1, covers=(92.0, 99.0)),
    "clusters of 5, normal": World(noisy(normal, 0.5), sizes="five"),
    "clusters of 5, skewed": World(noisy(skewed, 0.5), true=1.0, sizes="five"),
    "unequal clusters, normal": World(noisy(normal, 0.5), sizes="unequal"),
    "unequal clusters, skewed": World(noisy(skewed, 0.5), true=1.0, sizes="unequal"),
    "clusters of 5, binary": World(probit(0.0, 0.0, 0.8), true=probit_difference(0, 0, 0.8), sizes="five"),
    "unequal clusters, binary +": World(
        probit(0.0, 0.5, 0.8), true=probit_difference(0, 0.5, 0.8), sizes="unequal", covers=(93.0, 99.0)
    ),
}


def simulate(world: World, n: int, repeats: int, seed: int = 0) -> list[PairedResult]:
    """Return the results of `repeats` draws."""
    rng, codes = np.random.default_rng([seed, n]), world.clusters(n)
    return [paired(*world.draw(rng, codes), clusters=codes.tolist()) for _ in range(repeats)]


def coverage(results: list[PairedResult], true: float) -> float:
    """Return how often the interval holds the true difference, in percent."""
    inside = [result.ci[0] - 1e-9 <= true <= result.ci[1] + 1e-9 for result in results]
    return 100.0 * float(np.mean(inside))


def false_alarms(results: list[PairedResult], true: float) -> float:
    """Return how often the true difference is rejected, in percent; for true = 0 by the p-value."""
    if true == 0:
        return 100.0 * float(np.mean([result.p_value < 0.05 for result in results]))
    return 100.0 - coverage(results, true)


@pytest.mark.parametrize("name", ["binary, +0.1", "skewed differences", "clusters of 5, normal"])
def test_coverage_and_false_alarms_in_small(name: str) -> None:
    """400 draws at n = 50: chance alone moves the coverage by 2.2 points (two standard errors)."""
    results = simulate(WORLDS[name], 50, 400)
    assert 92.0 <= coverage(results, WORLDS[name].true) <= 98.5
    assert false_alarms(results, WORLDS[name].true) <= 7.5


def test_pairs_of_right_or_wrong_exactly() -> None:
    """All outcomes of 25 pairs, weighted with their probability: no simulation noise."""
    assert_exact(25, [(0.1, 0.0), (0.2, 0.0), (0.2, 0.1), (0.4, 0.2), (0.5, 0.0)])


def assert_exact(n: int, worlds: list[tuple[float, float]]) -> None:
    """Check coverage and false alarms for (share that changes, difference), and print them."""
    counts = np.array([(gained, lost) for gained in range(n + 1) for lost in range(n + 1 - gained)])
    chances = np.stack([chances_of(counts, n, (c + true) / 2, (c - true) / 2) for c, true in worlds])
    likely = chances.max(axis=0) > 1e-10  # all others together are rarer than one in 100,000
    chances = chances[:, likely]
    results = [from_counts(gained, lost, n) for gained, lost in counts[likely].tolist()]
    for (changed, true), weights in zip(worlds, chances, strict=True):
        inside = np.array([r.ci[0] - 1e-9 <= true <= r.ci[1] + 1e-9 for r in results])
        covered = 100 * float(weights[inside].sum())
        alarms = 100 * float(weights[[r.p_value < 0.05 for r in results]].sum()) if true == 0 else 100 - covered
        print(
            f"exact  n={n:3d}  {changed:4.0%} change, difference {true:+.2f}: coverage {covered:5.1f}, "
            f"false alarms {alarms:4.1f}"
        )
        assert covered >= 93.0
        if changed * n >= 5:  # with fewer changes no method can be exact, and ours is cautious
            assert covered <= 98.0
        if true == 0:
            assert alarms <= 5.0


def chances_of(counts: Codes, n: int, gained: float, lost: float) -> Floats:
    """Return the probability of each outcome of `counts` [outcomes, 2], given the shares that gain and lose."""
    rest = n - counts.sum(axis=1)
    logs = special.gammaln(n + 1) - special.gammaln(np.c_[counts, rest] + 1).sum(axis=1)
    logs = logs + special.xlogy(counts[:, 0], gained) + special.xlogy(counts[:, 1], lost)
    return np.asarray(np.exp(logs + special.xlogy(rest, 1 - gained - lost)), dtype=np.float64)


def from_counts(gained: int, lost: int, n: int) -> PairedResult:
    """Return the result of n items of which `gained` turn right, `lost` turn wrong and the rest are mixed."""
    after = [1.0] * gained + [0.0] * lost + [float(i % 2) for i in range(n - gained - lost)]
    before = [0.0] * gained + [1.0] * lost + after[gained + lost :]
    return paired(before, after)


@pytest.mark.slow
def test_pairs_of_right_or_wrong_exactly_at_all_sizes() -> None:
    worlds = [(0.04, 0.0), (0.1, 0.0), (0.1, 0.05), (0.2, 0.0), (0.2, 0.1), (0.4, 0.0), (0.4, 0.2)]
    print()
    for n in NS:
        assert_exact(n, worlds)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_coverage_and_false_alarms(name: str) -> None:
    """3,000 draws at each n: two standard errors are 0.8 points, allowed beyond the bounds."""
    world, row = WORLDS[name], []
    for n in NS:
        results = simulate(world, n, 3000)
        covered, alarms = coverage(results, world.true), false_alarms(results, world.true)
        row.append(f"{covered:5.1f} /{alarms:4.1f}")
        cautious = max(world.covers[1], 97.0 if n > 25 else 100.0)  # few independent units: cautious
        assert world.covers[0] - 0.8 <= covered <= cautious + 0.8, f"n = {n}"
        assert alarms <= (5.8 if world.true == 0 else 100.8 - world.covers[0]), f"n = {n}"
    print(f"\n{name:32s} {'   '.join(row)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "binary, no effect, 40% change", "clusters of 5, normal"])
def test_detectable_is_seen_with_80_percent_power(name: str) -> None:
    """Shift a world without effect by what it calls detectable (median), and count how often p < 0.05."""
    row = []
    for n in NS:
        found = [float(np.median([r.detectable for r in simulate(WORLDS[name], n, 200)]))]
        world = World(binary(0.3, 0.2 + found[0] / 2, 0.2 - found[0] / 2)) if "binary" in name else None
        power = np.mean([r.p_value < 0.05 for r in (simulate(world, n, 1000) if world else shifted(name, n, found[0]))])
        row.append(f"{found[0]:.2f}: {100 * power:.0f}%")
        assert power >= (0.75 if n > 25 else 0.6)
    print(f"\npower at detectable, {name:32s} {'   '.join(row)}")


def shifted(name: str, n: int, by: float) -> list[PairedResult]:
    """Return results of the world `name` with `by` added to every score after."""
    rng, codes = np.random.default_rng(n), WORLDS[name].clusters(n)
    draws = (WORLDS[name].draw(rng, codes) for _ in range(1000))
    return [paired(before, after + by, clusters=codes.tolist()) for before, after in draws]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["normal", "skewed differences", "very skewed differences", "binary, +0.1"])
def test_usual_intervals_for_comparison(name: str) -> None:
    """Print the coverage of the t interval and of the BCa bootstrap on the same kind of data."""
    world, row = WORLDS[name], []
    for n in NS[:3]:
        rng, covered = np.random.default_rng([1, n]), []
        for _ in range(1000):
            before, after = world.draw(rng, np.arange(n))
            d = after - before
            half = float(special.stdtrit(n - 1, 0.975)) * d.std(ddof=1) / np.sqrt(n)
            low, high = bca(d, rng)
            covered.append((abs(d.mean() - world.true) <= half + 1e-9, low - 1e-9 <= world.true <= high + 1e-9))
        row.append("t {:.1f} BCa {:.1f}".format(*(100 * np.mean(covered, axis=0))))
    print(f"\nfor comparison, {name:26s} {'   '.join(row)}")


def bca(d: Floats, rng: np.random.Generator, draws: int = 999) -> tuple[float, float]:
    """Return the bias-corrected accelerated bootstrap interval of the mean (Efron 1987)."""
    means = rng.multinomial(len(d), np.full(len(d), 1 / len(d)), size=draws) @ d / len(d)
    below = np.mean(means < d.mean()) + np.mean(means == d.mean()) / 2
    bias = special.ndtri(min(max(below, 1e-6), 1 - 1e-6))
    e = d - d.mean()
    acceleration = (e**3).sum() / (6 * np.square(e).sum() ** 1.5 + 1e-300)
    z = bias + special.ndtri(np.array([0.025, 0.975]))
    low, high = np.quantile(means, special.ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)
