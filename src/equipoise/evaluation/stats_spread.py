"""Intervals for a mean of differences from its spread: clustered standard error, t and skewness-corrected t.

Pure functions on arrays; the story that puts them together is `stats.paired`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from equipoise.evaluation.distributions import t_above, t_quantile

Floats = npt.NDArray[np.float64]
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean of n differences with its uncertainty, seen through the sums of G independent clusters.

    `sums` is [G], in score units; `skew` is the skewness coefficient of the mean, gamma / sqrt(G).
    """

    mean: float
    standard_error: float
    df: float
    skew: float
    sums: Floats

    @property
    def units(self) -> int:
        """Number of independent clusters G."""
        return len(self.sums)


def cluster_codes(clusters: Sequence[Hashable] | None, n: int) -> npt.NDArray[np.int64]:
    """Return [n] cluster numbers 0..G-1 in order of first appearance; without clusters every item is its own.

    Raises ValueError when `clusters` does not name one cluster for each item, or only one in all.
    """
    if clusters is None:
        return np.arange(n)
    if len(clusters) != n:
        raise ValueError(f"{len(clusters)} clusters for {n} items: give one cluster for each item")
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.int64)
    if len(numbers) < 2:
        raise ValueError(f"all {n} items belong to one cluster: nothing can be said about another one")
    return codes


def spread(differences: Floats, codes: npt.NDArray[np.int64]) -> Spread:
    """Return the mean of `differences` [n] with its cluster-robust standard error, df and skewness.

    Standard error: CR2 of Bell & McCaffrey (2002) for a mean: each cluster's sum of residuals is divided
    by sqrt(1 - n_g / n). With one item per cluster it is the usual s / sqrt(n) and df is n - 1.
    """
    n = len(differences)
    sizes = np.bincount(codes).astype(np.float64)
    units = len(sizes)
    mean = float(differences.mean())
    sums: Floats = np.bincount(codes, weights=differences).astype(np.float64)
    residuals = (sums - mean * sizes) / np.sqrt(1.0 - sizes / n)
    squares = float(np.square(residuals).sum())
    size = float(np.abs(differences).max())
    if math.sqrt(squares) <= _TINY * max(size, _TINY) * n:  # rounding of a constant is not a spread
        return Spread(mean, 0.0, units - 1.0, 0.0, sums)
    third = float((residuals**3).sum()) / squares**1.5  # = sample skewness / sqrt(G)
    unbiased = math.sqrt(units * (units - 1)) / (units - 2) if units > 2 else 0.0
    return Spread(mean, math.sqrt(squares) / n, _degrees_of_freedom(sizes), third * unbiased, sums)


def _degrees_of_freedom(sizes: Floats) -> float:
    """Return Satterthwaite's df of the CR2 variance for clusters of `sizes` [G]; G - 1 when all are equal.

    Bell & McCaffrey take the df under independent items. Where items of a cluster move together, large
    clusters weigh more and the df is smaller; the mean of these two extremes held up in simulation.
    """
    return float(np.mean([_satterthwaite(sizes, sizes), _satterthwaite(sizes, sizes**2)]))


def _satterthwaite(sizes: Floats, variances: Floats) -> float:
    """Return tr(A O)^2 / tr(A O A O), O = covariance of residual sums when sums have `variances` [G].

    O = D + U K U' with D = diag(variances), U = [sizes / n, variances]: the traces cost O(G).
    """
    shares = sizes / sizes.sum()
    a = 1.0 / (1.0 - shares)
    u = np.stack([shares, variances], axis=1)
    k = np.array([[variances.sum(), -1.0], [-1.0, 0.0]])
    low_rank = np.einsum("gi,ij,gj->g", u, k, u)
    inner = (u.T * a) @ u @ k
    trace = float((a * (variances + low_rank)).sum())
    squared = float((a**2 * variances * (variances + 2 * low_rank)).sum() + np.trace(inner @ inner))
    return trace**2 / squared


def corrected(t: float, skew: float) -> float:
    """Return the t statistic with its skewness removed: Hall's (1992) monotone cubic transformation.

    g(t) = t + skew t^2 / 3 + skew^2 t^3 / 27 + skew / 6 (Hall, JRSS B 54, "On the removal of skewness by
    transformation"), with skew = gamma / sqrt(G).
    """
    return t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6


def uncorrected(y: float, skew: float) -> float:
    """Return the t with corrected(t, skew) = y."""
    if abs(skew) < 1e-7:  # the cubic is a straight line here, and the closed form would divide by 0
        return y - skew / 6
    return 3 / skew * (float(np.cbrt(1 + skew * (y - skew / 6))) - 1)


def interval(seen: Spread, confidence: float) -> tuple[float, float]:
    """Return the values that at least one of two tests accepts: Student's t, and t without its skewness."""
    q = t_quantile((1 + confidence) / 2, seen.df)
    low_t, high_t = min(-q, uncorrected(-q, seen.skew)), max(q, uncorrected(q, seen.skew))
    return seen.mean - high_t * seen.standard_error, seen.mean - low_t * seen.standard_error


def p_value(seen: Spread) -> float:
    """Return the two-sided p of "no difference": the larger of the same two tests; needs a spread above 0."""
    t = seen.mean / seen.standard_error
    return max(2 * t_above(abs(x), seen.df) for x in (t, corrected(t, seen.skew)))
