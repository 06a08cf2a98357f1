"""What a published pair of figures allows at best and at worst, for all that was not published with it.

Two means or shares and n do not say how the answers before and after hang together. Here the unknown is taken at its
two ends, so that what holds at both holds whatever was not published. Pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from equipoise.evaluation import stats_exact as exact
from equipoise.evaluation.audit_read import Row
from equipoise.evaluation.distributions import normal_above, normal_quantile, t_above, t_quantile
from equipoise.evaluation.stats import needed_n, smallest_effect

TYPICAL_SPREAD = 0.1
"""Standard deviation of the differences, in parts of the scale, where nothing was published: an assumption, used for
the number of needed questions alone, unless the untouched base has moved more than it would allow."""


@dataclass(frozen=True, slots=True)
class Case:
    """What the test says if the unpublished part was as `given`: p, and the interval in units of the figures."""

    given: str
    p: float
    ci: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Cases:
    """All cases considered, and `needed`: how many questions would show the difference with 80 % power, by itself.

    `spread` is the range that the standard deviation of the differences per question can have; None for shares.
    `assumed` is the spread that `needed` takes where none was published.
    """

    every: tuple[Case, ...]
    needed: int | None
    spread: tuple[float, float] | None = None
    assumed: float | None = None

    @property
    def best(self) -> Case:
        """The case that speaks most for a real difference."""
        return min(self.every, key=lambda case: case.p)

    @property
    def worst(self) -> Case:
        """The case that speaks least for a real difference."""
        return max(reversed(self.every), key=lambda case: case.p)  # of equals, the one that assumes the most


def cases_of(row: Row, confidence: float, base: Sequence[float] = ()) -> Cases:
    """Return what the figures of a row allow; `base` holds the figure of its untouched base in several experiments."""
    return _shares(row, confidence) if row.kind == "share" else _scores(row, confidence, base)


def right_answers(row: Row) -> tuple[int, int]:
    """Return the whole numbers of right answers before and after that are nearest to the published shares."""
    scale = row.ends[1]
    return tuple(math.floor(row.n * value / scale + 0.5) for value in (row.before, row.after))  # type: ignore[return-value]


def _shares(row: Row, confidence: float) -> Cases:
    before, after = right_answers(row)
    n, change, scale = row.n, after - before, row.ends[1]
    most = min(n - before, after)  # so many may have turned right at the most
    by_chance = max(round(after * (n - before) / n), change, 0)
    gains = {
        f"only {abs(change)} of {n} answers changed": max(change, 0),
        "before and after were independent": by_chance,
        f"{2 * most - change} of {n} answers changed": most,
    }
    found = []
    if row.paired is not False:
        found += [_paired_shares(given, gained, gained - change, n, confidence) for given, gained in gains.items()]
    if row.paired is not True:
        found.append(_separate_shares(before, after, n, confidence))
    every = tuple(Case(case.given, case.p, (case.ci[0] * scale, case.ci[1] * scale)) for case in found)
    # p (1 - q) + q (1 - p) - (q - p)^2 = p (1 - p) + q (1 - q): independent pairs need as many as two samples.
    spread = math.sqrt(sum(right * (n - right) for right in (before, after))) / n
    return Cases(every, _needed(n, spread, abs(change) / n, confidence))


def _paired_shares(given: str, gained: int, lost: int, n: int, confidence: float) -> Case:
    """Judge pairs of right or wrong answers as `stats.paired` does."""
    p = max(exact.mcnemar_mid_p(gained, lost), exact.score_p(gained, lost))
    return Case(given, p, _reaching_zero(exact.score_interval(gained, lost, n, confidence), p, confidence))


def _separate_shares(before: int, after: int, n: int, confidence: float) -> Case:
    """Judge the shares of two separate samples of n: pooled z test, and Newcombe's (1998) hybrid score interval."""
    pooled = (before + after) / (2 * n)
    error = math.sqrt(pooled * (1 - pooled) * 2 / n)
    p = 2 * normal_above(abs(after - before) / n / error) if before != after else 1.0
    (low_x, high_x), (low_y, high_y) = (_wilson(right, n, confidence) for right in (before, after))
    x, y = before / n, after / n
    ci = (y - x - math.hypot(y - low_y, high_x - x), y - x + math.hypot(high_y - y, x - low_x))
    return Case("other questions were asked after training", p, _reaching_zero(ci, p, confidence))


def _wilson(right: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's (1927) score interval of one share."""
    z = normal_quantile((1 + confidence) / 2)
    share = right / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def _reaching_zero(ci: tuple[float, float], p: float, confidence: float) -> tuple[float, float]:
    """Return the interval, reaching to 0 where the test does not reject 0."""
    return (min(ci[0], 0.0), max(ci[1], 0.0)) if p >= 1 - confidence else ci


def _scores(row: Row, confidence: float, base: Sequence[float]) -> Cases:
    low, high = spread_range(row)
    given: dict[str, float] = {"every question changed alike" if low == 0 else f"the spread was {low:.2g}": low}
    if row.sd is not None and row.paired is not False:
        given["before and after were independent"] = math.sqrt(2) * row.sd
    given[f"the spread was {high:.2g}" if math.isfinite(high) else "the spread was large"] = high
    every = tuple(_mean_case(row, words, spread, confidence) for words, spread in given.items())
    assumed = _assumed_spread(row, base) if row.sd is None else None
    typical = math.sqrt(2) * row.sd if row.sd is not None else assumed
    needed = None if typical is None else _needed(row.n, typical, abs(row.after - row.before), confidence)
    return Cases(every, needed, (low, high), assumed)


def spread_range(row: Row) -> tuple[float, float]:
    """Return the least and the largest standard deviation that the differences per question of a score can have.

    The least is 0 for pairs (all questions change alike). The largest is that of scores at the ends of the scale,
    paired as badly as the means allow, or twice the published `sd`; infinite where neither is known. For separate
    samples it is the root of the sum of both variances, so that it is divided by sqrt(n) in the same way.
    """
    low, high = 0.0, math.inf
    if row.min is not None and row.max is not None:
        scale = row.max - row.min
        x, y = (row.before - row.min) / scale, (row.after - row.min) / scale
        changed = 2 * min(1 - x, y) - (y - x)
        variance = x * (1 - x) + y * (1 - y) if row.paired is False else changed - (y - x) ** 2
        high = scale * math.sqrt(max(0.0, variance) * row.n / (row.n - 1))
    if row.sd is not None and row.paired is False:
        low = high = math.sqrt(2) * row.sd
    elif row.sd is not None:
        high = min(high, 2 * row.sd)
    return low, high


def _assumed_spread(row: Row, base: Sequence[float]) -> float | None:
    """Return the spread of differences to reckon with: a part of the scale, or more where the base showed more.

    A base whose mean over n questions varies by s from run to run gives differences that vary by sqrt(2 n) s. None
    where there is neither a scale nor a second run.
    """
    scale = row.ends[1] - row.ends[0]
    by_scale = TYPICAL_SPREAD * scale if math.isfinite(scale) else 0.0
    by_base = math.sqrt(2 * row.n) * statistics.stdev(base) if len(base) > 1 else 0.0
    return max(by_scale, by_base) or None


def widest_real_spread(row: Row, confidence: float, claims: int) -> float:
    """Return the standard deviation of the differences below which a score's change is real among so many claims."""
    quantile = -t_quantile((1 - confidence) / 2 / claims, _df(row))
    return abs(row.after - row.before) * math.sqrt(row.n) / quantile


def _df(row: Row) -> int:
    return 2 * row.n - 2 if row.paired is False else row.n - 1


def _mean_case(row: Row, given: str, spread: float, confidence: float) -> Case:
    """Judge a difference of means by Student's t; if all questions changed alike, by the exact sign test."""
    change = row.after - row.before
    if change == 0 or math.isinf(spread):
        half = 0.0 if spread == 0 else math.inf
        p = 1.0
    else:
        error = spread / math.sqrt(row.n)
        by_t = 2 * t_above(abs(change) / error, _df(row)) if error > 0 else 0.0
        half = t_quantile((1 + confidence) / 2, _df(row)) * error
        p = max(by_t, exact.mcnemar_mid_p(row.n, 0))
    return Case(given, p, _reaching_zero((change - half, change + half), p, confidence))


def _needed(n: int, spread: float, effect: float, confidence: float) -> int | None:
    """Return how many questions show `effect` with 80 % power at this spread; None for no effect."""
    if effect == 0:
        return None
    if spread == 0:
        return exact.least_changes(confidence)
    return needed_n(n, smallest_effect(spread, n, confidence=confidence), effect)
