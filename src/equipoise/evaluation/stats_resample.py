"""Resampling: the BCa bootstrap interval and the sign-flip permutation test, both over whole clusters.

They assume less about the shape of the scores than the t tests of `stats.paired`, and stand beside it as a second
opinion: the BCa interval covers less than it promises for few clusters and for heavy tails (docs/statistics.md). What
they draw comes from a named generator, so the same differences and seed give the same figures in every process.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

from equipoise.data.seeds import generator
from equipoise.evaluation.stats_spread import Floats, cluster_codes

_AT_A_TIME = 1 << 20
"""Drawn numbers that are held at a time: some 8 MB for each array of a chunk."""
_TINY = 1e-9


def bootstrap_bca(
    differences: Sequence[float] | npt.NDArray[np.generic],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = 9999,
) -> tuple[float, float]:
    """Return the bias-corrected and accelerated interval of the mean of `differences` [n], in their unit.

    Efron (1987), JASA 82:171-185. Clusters are drawn with replacement, whole; the acceleration comes from leaving
    out one cluster at a time. Where no draw differs from another (all clusters have the same mean) there is no
    spread to judge by, and both ends are the mean. Raises ValueError for fewer than 2 differences, values that are
    not finite, one single cluster, fewer than 100 resamples, or a confidence outside 0.5..1.
    """
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"confidence is {confidence}, and must lie between 0.5 and 1")
    if resamples < 100:
        raise ValueError(f"{resamples} resamples: needed are at least 100")
    sums, sizes = _cluster_sums(differences, clusters)
    mean = float(sums.sum() / sizes.sum())
    deviations = sums - mean * sizes
    # Below the rounding of the sums there is nothing to draw from.
    if float(np.abs(deviations).max()) <= 1e-12 * max(float(np.abs(sums).max()), abs(mean)):
        return mean, mean
    drawn = _bootstrap_means(sums, sizes, generator("bootstrap", seed), resamples)
    tolerance = 1e-12 * float(np.abs(drawn).max())
    below = float(np.mean(drawn < mean - tolerance) + np.mean(np.abs(drawn - mean) <= tolerance) / 2)
    bias = float(special.ndtri(min(max(below, 0.5 / resamples), 1 - 0.5 / resamples)))
    left_out = -deviations / (sizes.sum() - sizes)  # mean without each cluster, less the mean of all
    pulls = left_out.mean() - left_out
    acceleration = float((pulls**3).sum() / (6 * np.square(pulls).sum() ** 1.5))
    z = bias + special.ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(drawn, special.ndtr(bias + z / (1 - acceleration * z)))
    return float(low), float(high)


def permutation_p(
    differences: Sequence[float] | npt.NDArray[np.generic],
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
    permutations: int = 9999,
) -> float:
    """Return the two-sided p that the mean of `differences` [n] is this far from 0 if every sign were chance.

    The differences of a cluster change sign together. Clusters whose differences sum to 0 look the same either way
    and are left out; of the others all 2^m signs are counted where that is at most `permutations` + 1, else that many
    are drawn and p = (as far or farther + 1) / (drawn + 1), which never is 0 (Phipson & Smyth 2010). 1 where nothing
    changed. Raises ValueError as `bootstrap_bca` does, and for fewer than 1 permutation.
    """
    if permutations < 1:
        raise ValueError(f"{permutations} permutations: needed is at least 1")
    sums, _ = _cluster_sums(differences, clusters)
    size = float(np.abs(sums).sum())
    changed = sums[np.abs(sums) > 1e-12 * size]
    if not len(changed):
        return 1.0
    seen = abs(float(changed.sum())) - _TINY * size  # equal sums differ by rounding
    if len(changed) < 64 and 2 ** len(changed) <= permutations + 1:
        return float(np.mean(np.abs(_all_flips(changed)) >= seen))
    farther = sum(
        int((np.abs(flipped) >= seen).sum())
        for flipped in _drawn_flips(changed, generator("permutation", seed), permutations)
    )
    return (farther + 1) / (permutations + 1)


def _cluster_sums(
    differences: Sequence[float] | npt.NDArray[np.generic], clusters: Sequence[Hashable] | None
) -> tuple[Floats, Floats]:
    """Return the sum of each cluster's differences and its number of items, [G] each."""
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or len(d) < 2:
        raise ValueError(f"differences have shape {d.shape}: give a list of at least 2")
    if not np.isfinite(d).all():
        raise ValueError("differences hold values that are not finite: leave unscored items out")
    codes = cluster_codes(clusters, len(d))
    return np.bincount(codes, weights=d).astype(np.float64), np.bincount(codes).astype(np.float64)


def _chunks(total: int, width: int) -> Iterator[int]:
    """Numbers of rows that add up to `total`, each chunk of rows x `width` small enough to be held."""
    most = max(1, _AT_A_TIME // width)
    for start in range(0, total, most):
        yield min(most, total - start)


def _bootstrap_means(sums: Floats, sizes: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Return [resamples] means over items, each of G clusters drawn with replacement."""
    units = len(sums)
    equal = bool((sizes == sizes[0]).all())
    means: list[Floats] = []
    for rows in _chunks(resamples, units):
        drawn = rng.integers(0, units, size=(rows, units), dtype=np.int32)
        items = units * sizes[0] if equal else sizes[drawn].sum(axis=1)
        means.append(sums[drawn].sum(axis=1) / items)
    return np.concatenate(means)


def _all_flips(changes: Floats) -> Floats:
    """Return the 2^(m - 1) sums of `changes` [m] with every choice of signs but the first's: the rest mirror these."""
    sums = changes[:1]
    for change in changes[1:]:
        sums = np.concatenate([sums + change, sums - change])
    return sums


def _drawn_flips(changes: Floats, rng: np.random.Generator, permutations: int) -> Iterator[Floats]:
    """Yield chunks of sums of `changes` [m] under random signs, `permutations` in all."""
    total, width = float(changes.sum()), -(-len(changes) // 8)
    for rows in _chunks(permutations, len(changes)):
        packed = np.frombuffer(rng.bytes(rows * width), dtype=np.uint8).reshape(rows, width)
        kept = np.unpackbits(packed, axis=1, count=len(changes))
        yield 2 * (kept.astype(np.float64) @ changes) - total
