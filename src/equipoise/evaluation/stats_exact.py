"""Exact counts: pairs of yes/no scores, sign flips of few changes, and what no change at all still allows."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from equipoise.evaluation.distributions import (
    beta_quantile,
    coin,
    coin_above,
    coin_at_most,
    coin_quantile,
    normal_above,
    normal_quantile,
)
from equipoise.evaluation.stats_spread import Floats

POWER = 0.8
FEW = 12
"""Up to this many changed units all 2^12 sign flips are counted; beyond, the t tests hold."""


def mcnemar_mid_p(gained: int, lost: int) -> float:
    """Return the two-sided mid-p of McNemar's test for `gained` (0 -> 1) against `lost` (1 -> 0) items.

    Binomial(gained + lost, 1/2), the observed outcome counted half: Fagerland, Lydersen & Laake (2013),
    BMC Medical Research Methodology 13:91. Its false alarms stay at or below the nominal level in practice.
    """
    if gained == lost:
        return 1.0
    changed, fewer = gained + lost, min(gained, lost)
    tail = float(coin_at_most(fewer, changed)) - 0.5 * float(coin(fewer, changed))
    return min(1.0, 2 * tail)


def sign_test_p(gained: int, lost: int) -> float:
    """Return the exact two-sided p that `gained` against `lost` items is chance; items without change do not count.

    Binomial(gained + lost, 1/2). For right-or-wrong scores this is McNemar's exact test. It is never too low and
    often too high, most for few changes: `mcnemar_mid_p` counts the observed outcome half. 1 where nothing changed.
    """
    return min(1.0, 2 * float(coin_at_most(min(gained, lost), gained + lost)))


def score_p(gained: int, lost: int) -> float:
    """Return the p of the score test that `score_interval` inverts, at no difference: asymptotic McNemar."""
    if gained == lost:
        return 1.0
    return 2 * normal_above(abs(gained - lost) / math.sqrt(gained + lost))


def score_interval(gained: int, lost: int, n: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a difference of two paired shares, in -1..1, by inverting the score test.

    Tango (1998), Statistics in Medicine 17:891-908: for each possible difference d the variance is taken
    at the most likely share of lost items under d (root of a quadratic), so it is never 0 by accident.
    """
    z = normal_quantile((1 + confidence) / 2)

    def statistic(d: float) -> float:
        numerator = gained - lost - n * d
        if abs(numerator) < 1e-12:
            return 0.0
        b = (2 * n - gained + lost) * d - gained - lost
        share_lost = (math.sqrt(max(0.0, b * b + 8 * n * lost * d * (1 - d))) - b) / (4 * n)
        variance = n * (2 * share_lost + d * (1 - d))
        return numerator / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, numerator)

    def limit(end: float) -> float:
        inside, outside = (gained - lost) / n, end
        for _ in range(60):  # bisection: the statistic falls monotonically in d
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(statistic(middle)) <= z else (inside, middle)
        return inside

    return limit(-1.0), limit(1.0)


def sign_flip_mid_p(changes: Floats) -> float:
    """Return the two-sided mid-p that the sum of `changes` [m], m <= FEW, is this far from 0 by chance.

    If nothing changed for better or worse, each sign was as likely as its opposite; all 2^m are counted.
    """
    bits = np.arange(2 ** len(changes))[:, None] >> np.arange(len(changes)) & 1
    sums = np.abs((1.0 - 2.0 * bits) @ changes)
    seen, tolerance = abs(float(changes.sum())), 1e-9 * float(np.abs(changes).sum())
    beyond, equal = np.mean(sums > seen + tolerance), np.mean(np.abs(sums - seen) <= tolerance)
    return min(1.0, float(beyond + 0.5 * equal)) if seen > tolerance else 1.0


def unseen_share(units: int, confidence: float) -> float:
    """Return the largest share of units that may differ from what all `units` showed: about 3.7 / units.

    Upper end of the exact two-sided binomial interval (Clopper & Pearson 1934) for 0 of `units`, the
    stricter sister of the rule of three.
    """
    return float(1.0 - ((1.0 - confidence) / 2) ** (1.0 / units))


def least_changes(confidence: float) -> int:
    """Return how many units must change, all the same way, before the exact tests can speak (5 at 95 %)."""
    return math.floor(math.log2(1.0 / (1.0 - confidence)) + 1e-9) + 1


def least_share(units: int, confidence: float) -> float:
    """Return the share of units that must change, all the same way, to be noticed with 80 % power; at most 1.

    Below it fewer than `least_changes` units change too often. 1 where there are too few units at all.
    """
    needed = least_changes(confidence)
    if units < needed:
        return 1.0
    # P(Binomial(units, share) >= needed) = POWER is a quantile of the beta distribution.
    return beta_quantile(POWER, needed, units - needed + 1)


def detectable_share(gained: int, lost: int, n: int, confidence: float) -> float:
    """Return the smallest true difference of two paired shares that McNemar's mid-p sees with 80 % power.

    The share of items that change at all is taken as seen, or as the difference itself where that is more.
    1 where no difference can be seen with so few items.
    """
    from scipy import optimize  # takes long to import, and few runs need it

    changed = (gained + lost) / n
    counts = np.arange(n + 1, dtype=np.int64)
    needed = _least_wins(counts, confidence)

    def power(difference: float) -> float:
        share = max(changed, difference)
        wins = (1 + difference / share) / 2
        gains_seen = special.bdtrc(needed - 1, counts, wins)
        losses_seen = np.where(needed <= counts, special.bdtr(np.maximum(counts - needed, 0), counts, wins), 0.0)
        chances = np.diff(special.bdtr(counts, n, share), prepend=0.0)  # of so many changed items
        return float(chances @ (gains_seen + losses_seen))

    if power(1.0) < POWER:
        return 1.0
    return float(optimize.brentq(lambda difference: power(difference) - POWER, 1e-9, 1.0, xtol=1e-6))


def _least_wins(counts: npt.NDArray[np.int64], confidence: float) -> npt.NDArray[np.int64]:
    """Return for each number of changed items [k] how many must go one way for a mid-p below 1 - confidence.

    count + 1 (impossible) where even all of them do not suffice.
    """
    alpha = 1.0 - confidence
    surely = coin_quantile(alpha / 2, counts) + 1  # P(K >= surely) <= alpha / 2
    fewer = surely - 1  # counting the outcome half may allow one less
    mid_p = 2 * coin_above(fewer, counts) + coin(fewer, counts)
    return np.asarray(np.where(mid_p < alpha, fewer, surely), dtype=np.int64)
