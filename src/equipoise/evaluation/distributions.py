"""Tails and quantiles of the distributions that the statistics need.

`scipy.stats` has them all, and takes most of a second to import, which every command would pay; these are the
functions of `scipy.special` that it calls itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

Floats = npt.NDArray[np.float64]


def normal_above(z: float) -> float:
    """P(Z > z) of the standard normal distribution."""
    return float(special.ndtr(-z))


def normal_quantile(p: float) -> float:
    """The z with P(Z <= z) = p."""
    return float(special.ndtri(p))


def t_above(t: float, df: float) -> float:
    """P(T > t) of Student's distribution."""
    return float(special.stdtr(df, -t))


def t_quantile(p: float, df: float) -> float:
    """The t with P(T <= t) = p."""
    return float(special.stdtrit(df, p))


def beta_quantile(p: float, a: float, b: float) -> float:
    """The x in 0..1 with P(X <= x) = p of the beta distribution."""
    return float(special.betaincinv(a, b, p))


def coin(heads: int | npt.NDArray[np.int64], tosses: int | npt.NDArray[np.int64]) -> Floats:
    """P(exactly so many heads) in tosses of a fair coin; 0 outside of 0..tosses."""
    k, n = np.asarray(heads, np.float64), np.asarray(tosses, np.float64)
    inside = (k >= 0) & (k <= n)
    at = np.clip(k, 0, n)
    logs = special.gammaln(n + 1) - special.gammaln(at + 1) - special.gammaln(n - at + 1) - n * np.log(2.0)
    return np.asarray(np.where(inside, np.exp(logs), 0.0), np.float64)


def coin_at_most(heads: int | npt.NDArray[np.int64], tosses: int | npt.NDArray[np.int64]) -> Floats:
    """P(at most so many heads) in tosses of a fair coin."""
    k, n = np.asarray(heads, np.float64), np.asarray(tosses, np.float64)
    # P(K <= k) is the regularised incomplete beta function I_{1/2}(n - k, k + 1).
    inner = (k >= 0) & (k < n)
    at = np.where(inner, k, 0.0)
    found = special.betainc(np.where(inner, n - at, 1.0), at + 1, 0.5)
    return np.asarray(np.where(inner, found, np.where(k < 0, 0.0, 1.0)), np.float64)


def coin_above(heads: int | npt.NDArray[np.int64], tosses: int | npt.NDArray[np.int64]) -> Floats:
    """P(more than so many heads) in tosses of a fair coin: by symmetry P(K <= n - k - 1), small values kept exact."""
    return coin_at_most(np.asarray(tosses) - np.asarray(heads) - 1, tosses)


def coin_quantile(above: float, tosses: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The smallest number of heads that more heads than it are seen with probability `above` at most."""
    middle = tosses / 2 + normal_quantile(1 - above) * np.sqrt(tosses) / 2
    found = np.clip(np.round(middle), 0, tosses).astype(np.int64)
    while True:  # the normal quantile is off by one or two
        higher = coin_above(found, tosses) > above
        lower = (found > 0) & (coin_above(found - 1, tosses) <= above)
        if not (higher | lower).any():
            return found
        found = found + higher - (lower & ~higher)
