"""Paired evidence: is the difference between before and after on the same items more than noise?

Pure, and deterministic: no random number is drawn, so the same scores give the same figures in every
process. docs/statistics.md says in plain words what the figures mean and how they were checked.

One principle joins interval and p: a value lies inside the interval as long as *any* of the tests below
accepts it, and p is the largest of their p-values. So p < 1 - confidence means 0 is outside the interval,
and each test guards the others where its own assumptions break:

- Student's t with a clustered standard error: right for differences that are symmetric (no effect at all
  makes them so), too optimistic for skewed ones;
- t with the skewness removed (Hall 1992): right for skewed ones, too optimistic for heavy tails;
- for scores with two levels (right or wrong) Tango's score interval and McNemar's mid-p;
- where at most 12 units changed at all, the exact sign-flip test, which decides about 0 alone.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from equipoise.evaluation import stats_exact as exact
from equipoise.evaluation import stats_spread as spreads
from equipoise.evaluation.distributions import t_quantile
from equipoise.evaluation.stats_spread import Floats

Values = Sequence[float] | npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class PairedResult:
    """After minus before on n items, in the units of the score.

    `ci` covers the true difference with `confidence`; 0 lies inside exactly when p_value >= 1 - confidence.
    `detectable` is the smallest true difference that is seen with 80 % power at this n and spread.
    `clusters` counts the independent units; `method` names the tests that decided.
    """

    difference: float
    ci: tuple[float, float]
    p_value: float
    n: int
    detectable: float
    before: float
    after: float
    standard_error: float
    clusters: int
    confidence: float
    method: str


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one or several tests say: interval, p and detectable effect; `joined` unites two."""

    ci: tuple[float, float]
    p: float
    detectable: float
    method: str

    def joined(self, other: _Evidence) -> _Evidence:
        """What both tests together reject: hull of the intervals, larger p, larger detectable effect."""
        low, high = min(self.ci[0], other.ci[0]), max(self.ci[1], other.ci[1])
        detectable = max(self.detectable, other.detectable)
        return _Evidence((low, high), max(self.p, other.p), detectable, f"{self.method}; {other.method}")


def paired(
    before: Values,
    after: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedResult:
    """Compare scores of the same items, `before` [n] and `after` [n]; `clusters` [n] names dependent items.

    `seed` is accepted for the sake of callers that seed everything; nothing here is random. Raises
    ValueError for fewer than 2 items, unequal lengths, values that are not finite, one single cluster,
    or a confidence outside 0.5..1.
    """
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, and must lie between 0.5 and 1")
    x, y = _checked(before, after)
    differences = y - x
    codes = spreads.cluster_codes(clusters, len(x))
    seen = spreads.spread(differences, codes)
    evidence = _evidence(x, y, seen, confidence)
    changed = seen.sums[np.abs(seen.sums) > 1e-12 * float(np.abs(differences).max())]
    if 0 < len(changed) <= exact.FEW:
        evidence = _with_sign_flips(evidence, differences, changed, seen, confidence)
    return PairedResult(
        difference=seen.mean,
        ci=(min(evidence.ci[0], seen.mean), max(evidence.ci[1], seen.mean)),  # whatever rounding did
        p_value=evidence.p,
        n=len(x),
        detectable=evidence.detectable,
        before=float(x.mean()),
        after=float(y.mean()),
        standard_error=seen.standard_error,
        clusters=seen.units,
        confidence=confidence,
        method=evidence.method,
    )


def _checked(before: Values, after: Values) -> tuple[Floats, Floats]:
    """Return both sides as float arrays [n], n >= 2, all finite; raises ValueError otherwise."""
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"before has shape {x.shape}, after {y.shape}: give one value per item on both sides")
    if len(x) < 2:
        raise ValueError(f"{len(x)} item{'' if len(x) == 1 else 's'}: a comparison needs at least 2")
    for side, values in (("before", x), ("after", y)):
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            where = f"{len(wrong)} values, first at position {wrong[0]}"
            raise ValueError(f"{side} has values that are not finite ({where}): leave unscored items out")
    return x, y


def _evidence(x: Floats, y: Floats, seen: spreads.Spread, confidence: float) -> _Evidence:
    """Choose the tests: by levels for two-level scores, by spread for the others, both when clustered."""
    levels = np.unique(np.concatenate([x, y]))
    varied = float(np.ptp(y - x)) > 0
    # Rewards that are all -8 before and all -2 after have two levels too, and are not right or wrong.
    two_levels = len(levels) == 2 and (varied or (seen.mean != 0 and levels.tolist() == [0.0, 1.0]))
    if two_levels:
        by_levels = _two_levels(x, y, float(levels[1] - levels[0]), confidence)
        independent = seen.units == len(x) or seen.standard_error == 0
        return by_levels if independent else by_levels.joined(_by_spread(seen, len(x), confidence))
    if seen.standard_error == 0:
        return _no_spread(x, y, seen, confidence)
    return _by_spread(seen, len(x), confidence)


def _by_spread(seen: spreads.Spread, n: int, confidence: float) -> _Evidence:
    """Return what t and skewness-corrected t say."""
    low, high = ci = spreads.interval(seen, confidence)
    detectable = (high - low) / 2 + t_quantile(exact.POWER, seen.df) * seen.standard_error
    kind = "t and skewness-corrected t"
    if seen.units < n:
        kind += f", standard error of {seen.units} clusters"
    return _Evidence(ci, spreads.p_value(seen), detectable, kind)


def _two_levels(x: Floats, y: Floats, step: float, confidence: float) -> _Evidence:
    """Return what the tests for right-or-wrong scores say; `step` is the distance of the two levels."""
    gained, lost, n = int((y > x).sum()), int((y < x).sum()), len(x)
    low, high = exact.score_interval(gained, lost, n, confidence)
    p = max(exact.mcnemar_mid_p(gained, lost), exact.score_p(gained, lost))
    ci = _with_zero((low * step, high * step), p, confidence)
    detectable = exact.detectable_share(gained, lost, n, confidence) * step
    return _Evidence(ci, p, detectable, "score interval (Tango) and McNemar's mid-p")


def _no_spread(x: Floats, y: Floats, seen: spreads.Spread, confidence: float) -> _Evidence:
    """Return what is known when all differences are the same, mostly 0.

    No spread in n items is not no spread: up to `unseen_share` of the units may be unlike those seen. How
    far such a unit may move is not in the data; taken is the range of the scores (1 where all lie in 0..1),
    or the common difference where there is one.
    """
    values = np.concatenate([x, y])
    size = float(np.ptp(values)) or float(np.abs(values).max())
    if seen.mean != 0:
        size = abs(seen.mean)
    elif values.min() >= 0 and values.max() <= 1:
        size = 1.0
    half = exact.unseen_share(seen.units, confidence) * size
    detectable = exact.least_share(seen.units, confidence) * size
    p = 1.0 if seen.mean == 0 else 0.0  # the sign flips decide where there is a difference
    return _Evidence((seen.mean - half, seen.mean + half), p, detectable, "exact bound, all differences are equal")


def _with_sign_flips(
    evidence: _Evidence, differences: Floats, changed: Floats, seen: spreads.Spread, confidence: float
) -> _Evidence:
    """Let the exact sign-flip test of the few `changed` units decide about 0, and bound what it can see."""
    p = max(evidence.p, exact.sign_flip_mid_p(changed))
    # A changed unit moves the mean over items by its sum of differences / n.
    typical = math.sqrt(float(np.square(changed).mean())) * seen.units / len(differences)
    detectable = max(evidence.detectable, exact.least_share(seen.units, confidence) * typical)
    method = f"{evidence.method}; exact sign flips"
    ci = _with_zero(evidence.ci, p, confidence)
    return replace(evidence, p=p, ci=ci, detectable=detectable, method=method)


def _with_zero(ci: tuple[float, float], p: float, confidence: float) -> tuple[float, float]:
    """Return the interval, reaching to 0 where the test does not reject 0."""
    return (min(ci[0], 0.0), max(ci[1], 0.0)) if p >= 1 - confidence else ci


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number, in the given order: Holm (1979), Scand. J. Statist. 6.

    Rejecting where the result is below alpha keeps the chance of any false alarm at or below alpha,
    however the tests depend on each other. Raises ValueError for a p outside 0..1.
    """
    wrong = [name for name, p in p_values.items() if not 0.0 <= p <= 1.0]
    if wrong:
        raise ValueError(f"p-values outside 0..1: {', '.join(wrong)}")
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in p_values}


def smallest_effect(spread: float, n: int, *, confidence: float = 0.95) -> float:
    """Return the smallest mean difference seen with 80 % power on n independent items.

    `spread` is the standard deviation of the differences per item, guessed or from an earlier run:
    (t_(1 - alpha/2) + t_0.8) * spread / sqrt(n), Bloom (1995), Evaluation Review 19:547-556.
    """
    if n < 2 or not spread > 0:
        raise ValueError(f"n = {n} and spread = {spread}: needed are at least 2 items and a spread above 0")
    quantiles = [t_quantile(p, n - 1) for p in ((1 + confidence) / 2, exact.POWER)]
    return sum(quantiles) * spread / math.sqrt(n)


def needed_n(n: int, detectable: float, effect: float) -> int:
    """Return about how many items would show `effect` with 80 % power, given that n items show `detectable`.

    Uncertainty falls with the square root of n, at the same spread and cluster sizes; at least 2.
    """
    if n < 1 or not detectable > 0 or not effect > 0:
        raise ValueError(f"n = {n}, detectable = {detectable}, effect = {effect}: all must be above 0")
    return max(2, math.ceil(n * (detectable / effect) ** 2 * (1 - 1e-12)))
