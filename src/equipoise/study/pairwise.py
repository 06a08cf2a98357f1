"""Many contrasts at once: differences and p-values of all pairs of recipes in one domain. Pure.

`evidence.contrast` says the same of one pair, and much more; with 200 recipes and 4 domains there are 80,000 pairs, for
which only two figures are asked. Both are worked out here for whole arrays of pairs [K], by the tests that
`evaluation.stats` and `evaluation.stats_seeds` describe; tests/test_study_pairwise.py holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import special

from equipoise.evaluation import stats_exact as exact
from equipoise.evaluation import stats_spread as spreads
from equipoise.study.evidence import Floats, Side, matched

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
_TINY = 1e-12
_HALVINGS = 45
"""Of the range of log p, 0 to -691: the rest is below 1e-10."""


class TooFewItems(ValueError):
    """Too little is scored by both of a pair of recipes; `pair` are their numbers."""

    def __init__(self, pair: tuple[int, int]) -> None:
        super().__init__("fewer than 2 groups of items are scored by both")
        self.pair = pair


@dataclass(frozen=True)
class Contrasts:
    """For pairs (one, other), numbers of recipes [K] each: how much more `one` gained, and p of "no difference".

    A p at or above 1 - confidence may be too low, never too high: nobody asks how far above it is.
    """

    one: Ints
    other: Ints
    difference: Floats
    p_value: Floats


def contrasts(sides: Sequence[Side], groups: Sequence[str], confidence: float) -> Contrasts:
    """Return the contrast of every two of `sides` (one domain); `groups` [items] names dependent items.

    Raises TooFewItems where fewer than 2 groups were scored by both of a pair.
    """
    tests = _Tests(spreads.cluster_codes(groups, len(groups)), 1 - confidence)
    found = []
    for one, other, x, y in _batches(sides):
        scored: Bools = np.logical_not(np.isnan(y - x).any(axis=1))
        short = np.flatnonzero(tests.units(scored) < 2)
        if len(short):
            raise TooFewItems((int(one[short[0]]), int(other[short[0]])))
        difference, p = tests.items(x[:, 0], y[:, 0], scored) if x.shape[1] == 1 else tests.seeds(y - x, scored)
        found.append((one, other, difference, p))
    if not found:
        nobody, nothing = np.zeros(0, dtype=np.int64), np.zeros(0)
        return Contrasts(nobody, nobody, nothing, nothing)
    return Contrasts(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _batches(sides: Sequence[Side]) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
    """Yield pairs with their values x (other) and y (one), [K, seeds, items], as `evidence.contrast` takes them."""
    kinds: dict[tuple[int, ...], list[int]] = {}
    for number, side in enumerate(sides):
        kinds.setdefault(tuple(side.seeds), []).append(number)
    for members in kinds.values():
        before, after = np.stack([sides[k].before for k in members]), np.stack([sides[k].after for k in members])
        known: dict[bytes, int] = {}
        bases = np.array([known.setdefault(base.tobytes(), len(known)) for base in before])
        numbers, gains = np.array(members), after - before
        for place in range(len(members) - 1):
            rest = slice(place + 1, None)
            alike = (bases[rest] == bases[place])[:, None, None]
            x = np.where(alike, after[rest], gains[rest])
            y = np.where(alike, after[place], gains[place])
            yield np.full(len(x), numbers[place]), numbers[rest], x, y
    yield from _unlike_seeds(sides, list(kinds.values()))


def _unlike_seeds(sides: Sequence[Side], kinds: Sequence[Sequence[int]]) -> Iterator[tuple[Ints, Ints, Floats, Floats]]:
    """The same for pairs whose sides have different seeds: matched one by one."""
    rows: dict[int, list[tuple[int, int, Floats, Floats]]] = {}
    for place, members in enumerate(kinds):
        for others in kinds[place + 1 :]:
            for pair in product(members, others):
                one, other = min(pair), max(pair)
                left, right = matched(sides[one], sides[other])
                alike = np.array_equal(left.before, right.before, equal_nan=True)
                x, y = (side.after if alike else side.after - side.before for side in (right, left))
                rows.setdefault(len(x), []).append((one, other, x, y))
    for found in rows.values():
        firsts, seconds, xs, ys = zip(*found, strict=True)
        yield np.array(firsts), np.array(seconds), np.stack(xs), np.stack(ys)


@dataclass(frozen=True)
class _Spreads:
    """`spreads.Spread` of many rows: each field is [K], `sums` is [K, clusters]."""

    mean: Floats
    standard_error: Floats
    df: Floats
    skew: Floats
    sums: Floats
    units: Ints


@dataclass
class _Tests:
    """The tests on the items of one domain; `codes` [items] are their clusters, `alpha` is 1 - confidence."""

    codes: Ints
    alpha: float
    _df: dict[bytes, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.order = np.argsort(self.codes, kind="stable")
        self.starts = np.flatnonzero(np.diff(self.codes[self.order], prepend=-1))
        self.single = len(self.starts) == len(self.codes)

    def by_cluster(self, values: Floats) -> Floats:
        """Sums of `values` [K, items] by cluster, [K, clusters]."""
        return values if self.single else np.add.reduceat(values[:, self.order], self.starts, axis=1)

    def units(self, scored: Bools) -> Ints:
        """How many clusters have a scored item, [K]."""
        return np.asarray((self.by_cluster(scored.astype(np.float64)) > 0).sum(axis=1))

    def spread(self, d: Floats, scored: Bools) -> _Spreads:
        """`spreads.spread` of each row of `d` [K, items], where `scored`."""
        d = np.where(scored, d, 0.0)
        n = scored.sum(axis=1)
        mean: Floats = d.sum(axis=1) / n
        sizes, sums = self.by_cluster(scored.astype(np.float64)), self.by_cluster(d)
        units = (sizes > 0).sum(axis=1)
        residuals = (sums - mean[:, None] * sizes) / np.sqrt(1.0 - sizes / n[:, None])
        squares = np.square(residuals).sum(axis=1)
        size = np.maximum(np.abs(d).max(axis=1), _TINY)
        none = np.sqrt(squares) <= _TINY * size * n
        safe = np.where(none, 1.0, squares)
        third = (residuals * residuals * residuals).sum(axis=1) / safe**1.5
        unbiased = np.where(units > 2, np.sqrt(units * (units - 1.0)) / np.maximum(units - 2, 1), 0.0)
        error = np.where(none, 0.0, np.sqrt(squares) / n)
        df = np.where(none, units - 1.0, self._degrees(sizes, units))
        return _Spreads(mean, error, df, np.where(none, 0.0, third * unbiased), sums, units)

    def _degrees(self, sizes: Floats, units: Ints) -> Floats:
        """Degrees of freedom [K]; they depend on the sizes of the clusters alone, so each kind is asked once."""
        if self.single:
            return np.asarray(units - 1.0, dtype=np.float64)
        return np.array([self._degrees_of(row) for row in sizes])

    def _degrees_of(self, sizes: Floats) -> float:
        key = sizes.tobytes()
        if key not in self._df:
            codes = np.repeat(np.arange(np.count_nonzero(sizes)), sizes[sizes > 0].astype(np.int64))
            self._df[key] = spreads.spread(np.arange(len(codes), dtype=np.float64), codes).df
        return self._df[key]

    def items(self, x: Floats, y: Floats, scored: Bools) -> tuple[Floats, Floats]:
        """Mean difference and p of y against x, [K, items] each: `stats.paired`."""
        x, y = np.where(scored, x, np.nan), np.where(scored, y, np.nan)
        d = y - x
        seen = self.spread(d, scored)
        low, high = (
            np.fmin(np.nanmin(x, axis=1), np.nanmin(y, axis=1)),
            np.fmax(np.nanmax(x, axis=1), np.nanmax(y, axis=1)),
        )
        ends = [((v == low[:, None]) | (v == high[:, None]) | ~scored).all(axis=1) for v in (x, y)]
        varied = np.nanmax(d, axis=1) > np.nanmin(d, axis=1)
        two = ends[0] & ends[1] & (high > low) & (varied | ((seen.mean != 0) & (low == 0) & (high == 1)))
        still = seen.standard_error == 0
        t = seen.mean / np.where(still, 1.0, seen.standard_error)
        p = np.where(still, (seen.mean == 0).astype(np.float64), _t_tests(t, seen))
        gained, lost = (y > x).sum(axis=1), (y < x).sum(axis=1)
        alone = (seen.units == scored.sum(axis=1)) | still
        levels = _two_levels(gained, lost)
        p = np.where(two, np.where(alone, levels, np.maximum(p, levels)), p)
        self._sign_flips(p, np.where(scored, d, 0.0), seen)
        return seen.mean, p

    def _sign_flips(self, p: Floats, d: Floats, seen: _Spreads) -> None:
        """Raise p to that of the exact sign flips where few clusters changed at all, and p is not large as it is."""
        changed = np.abs(seen.sums) > 1e-12 * np.abs(d).max(axis=1)[:, None]
        count = changed.sum(axis=1)
        for k in np.flatnonzero((count > 0) & (count <= exact.FEW) & (p < self.alpha)):
            p[k] = max(p[k], exact.sign_flip_mid_p(seen.sums[k, changed[k]]))

    def seeds(self, d: Floats, scored: Bools) -> tuple[Floats, Floats]:
        """Mean and p of the differences d [K, seeds, items], seeds as well as items: `stats_seeds.over_seeds`."""
        count, n = d.shape[1], scored.sum(axis=1)
        d = np.where(scored[:, None, :], d, 0.0)
        by_item, by_seed = d.mean(axis=1), d.sum(axis=2) / n[:, None]
        difference, p = self.items(np.zeros_like(by_item), by_item, scored)
        rest = d - by_seed[:, :, None] - by_item[:, None, :] + difference[:, None, None]
        errors = [self.spread(rest[:, place], scored).standard_error for place in range(count)]
        noise = count / (count - 1) * np.mean(np.square(errors), axis=0)
        training = np.sqrt(np.maximum(0.0, by_seed.var(axis=1, ddof=1) - noise) / count)
        items = self.spread(by_item, scored)

        def reaches(log_p: Floats, k: Ints) -> Bools:
            half = np.exp(log_p) / 2
            few, many = special.stdtrit(count - 1, half), special.stdtrit(items.df[k], half)
            return np.asarray(np.hypot(few * training[k], many * items.standard_error[k]) > np.abs(difference[k]))

        every = np.arange(len(d))
        wide = reaches(np.full(len(d), np.log(self.alpha)), every) | (difference == 0)
        p = np.where(wide, np.maximum(p, self.alpha), p)
        left = np.flatnonzero(p < self.alpha)
        low, high = np.full(len(left), np.log(1e-300)), np.full(len(left), np.log(self.alpha))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            inside = reaches(middle, left)
            low, high = np.where(inside, middle, low), np.where(inside, high, middle)
        p[left] = np.maximum(p[left], np.exp(high))
        return difference, p


def _t_tests(t: Floats, seen: _Spreads) -> Floats:
    """The larger p of Student's t and of t without its skewness: `spreads.p_value`."""
    without = t + seen.skew * t**2 / 3 + seen.skew**2 * t**3 / 27 + seen.skew / 6
    both = [2 * special.stdtr(seen.df, -np.abs(value)) for value in (t, without)]
    return np.asarray(np.maximum(*both))


def _two_levels(gained: Ints, lost: Ints) -> Floats:
    """p of right-or-wrong scores, [K]: the larger of McNemar's mid-p and of the score test; see `stats_exact`."""
    changed, fewer = gained + lost, np.minimum(gained, lost)
    below = np.where(fewer > 0, special.bdtr(np.maximum(fewer - 1, 0), changed, 0.5), 0.0)
    mid = below + special.bdtr(fewer, changed, 0.5)  # twice the tail, of which the outcome itself counts half
    score = 2 * special.ndtr(-np.abs(gained - lost) / np.sqrt(np.maximum(changed, 1)))
    return np.where(gained == lost, 1.0, np.minimum(1.0, np.maximum(mid, score)))
