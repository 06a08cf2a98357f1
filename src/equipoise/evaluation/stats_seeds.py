"""Several trainings of one recipe: what the gain is for another training seed and other questions of this kind.

One trained model, however many questions it answers, cannot say what the next training would give. Here the
difference of item i under seed s is seen as  mean + seed_s + item_i + rest_si  (crossed random effects), and the
uncertainty of the mean is made of all three. Pure and deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from equipoise.evaluation import stats_spread as spreads
from equipoise.evaluation.stats import paired
from equipoise.evaluation.stats_spread import Floats


@dataclass(frozen=True, slots=True)
class SeedResult:
    """After minus before over `seeds` trainings and `n` items, in the units of the score.

    `ci` covers the mean difference of all seeds and items with `confidence`; 0 lies inside exactly when p_value >=
    1 - confidence. `between_seeds` is the standard deviation of a seed's true mean, `between_items` that of an item's
    true difference, both without the noise of the rest; `unscored` items had no score under one of the seeds.
    """

    difference: float
    ci: tuple[float, float]
    p_value: float
    seeds: int
    n: int
    between_seeds: float
    between_items: float
    standard_error: float
    unscored: int
    clusters: int
    confidence: float
    method: str


@dataclass(frozen=True, slots=True)
class _Parts:
    """The variance of the grand mean in two parts, and what each of them stands on.

    `training` is what differs from seed to seed beyond the noise of items, on `seeds` - 1 degrees of freedom;
    `items` holds the items' part and the rest, by clusters.
    """

    training: float
    seeds: int
    items: spreads.Spread
    between_seeds: float
    between_items: float

    def half_width(self, alpha: float) -> float:
        """Return half the width of the 1 - `alpha` interval: each part with its own t quantile.

        Howe (1974), JASA 69:789-794. One quantile for the sum of both (Satterthwaite) covers too little where the
        few seeds happen to agree.
        """
        few, many = (-float(special.stdtrit(df, alpha / 2)) for df in (self.seeds - 1, self.items.df))
        return math.hypot(few * math.sqrt(self.training), many * self.items.standard_error)

    def p_value(self, difference: float) -> float:
        """Return the two-sided p of "no difference": the alpha whose interval just reaches 0."""
        from scipy import optimize  # takes long to import, and a single run never needs it

        if difference == 0:
            return 1.0

        def beyond(log_p: float) -> float:
            return self.half_width(math.exp(log_p)) - abs(difference)

        smallest = math.log(1e-300)
        return math.exp(optimize.brentq(beyond, smallest, 0.0, xtol=1e-12)) if beyond(smallest) > 0 else 0.0


def over_seeds(
    differences: npt.NDArray[np.generic] | Sequence[Sequence[float]],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> SeedResult:
    """Return the difference over training seeds and items together; `differences` is [seeds, items], NaN = unscored.

    An item that is unscored under any seed is left out under all of them, and counted: every seed is judged on the
    same items. `clusters` [items] names dependent items. Raises ValueError for one seed (which cannot speak about
    seeds), fewer than 2 items scored under all seeds, one single cluster, infinite values, or a confidence outside
    0.5..1.
    """
    d, kept = _complete(differences)
    named = None if clusters is None else _kept_clusters(clusters, kept)
    seeds, n = d.shape
    # The mean over these seeds alone: an interval over seeds as well must not be narrower than this one.
    alone = paired(np.zeros(n), d.mean(axis=0), clusters=named, confidence=confidence)
    parts = _parts(d, spreads.cluster_codes(named, n))
    half = parts.half_width(1 - confidence)
    return SeedResult(
        difference=alone.difference,
        ci=(min(alone.difference - half, alone.ci[0]), max(alone.difference + half, alone.ci[1])),
        p_value=max(parts.p_value(alone.difference), alone.p_value),
        seeds=seeds,
        n=n,
        between_seeds=parts.between_seeds,
        between_items=parts.between_items,
        standard_error=math.hypot(math.sqrt(parts.training), parts.items.standard_error),
        unscored=int((~kept).sum()),
        clusters=parts.items.units,
        confidence=confidence,
        method=f"crossed seeds and items (Howe); items alone: {alone.method}",
    )


def _complete(differences: npt.NDArray[np.generic] | Sequence[Sequence[float]]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the items scored under all seeds, [seeds, n], and which they are, [items]."""
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2:
        raise ValueError(f"differences have shape {d.shape}: give one row per seed, one column per item")
    if len(d) < 2:
        raise ValueError("one seed cannot speak about seeds: train with at least 2, or compare items alone")
    if np.isinf(d).any():
        raise ValueError("differences hold infinite values: leave unscored items out as NaN")
    kept: npt.NDArray[np.bool_] = np.logical_not(np.isnan(d).any(axis=0))
    if kept.sum() < 2:
        raise ValueError(f"{int(kept.sum())} of {d.shape[1]} items are scored under all seeds: needed are at least 2")
    return d[:, kept], kept


def _kept_clusters(clusters: Sequence[Hashable], kept: npt.NDArray[np.bool_]) -> list[Hashable]:
    if len(clusters) != len(kept):
        raise ValueError(f"{len(clusters)} clusters for {len(kept)} items: give one cluster for each item")
    return [name for name, stays in zip(clusters, kept, strict=True) if stays]


def _parts(d: Floats, codes: npt.NDArray[np.int64]) -> _Parts:
    """Take the variance of the grand mean of `d` [seeds, n] apart; `codes` [n] are the clusters of items.

    Both the seeds' means and the items' means vary by the interaction too. It is measured by itself and taken off the
    seeds' part (Cameron, Gelbach & Miller 2011, two-way clustering), so that it counts once.
    """
    seeds, n = d.shape
    by_seed, by_item = d.mean(axis=1), d.mean(axis=0)
    rest = d - by_seed[:, None] - by_item[None, :] + d.mean()
    # Without the item's mean the rest has only (seeds - 1) / seeds of its variance.
    whole = seeds / (seeds - 1)
    noise_of_seed = whole * float(np.mean([spreads.spread(row, codes).standard_error ** 2 for row in rest]))
    noise_of_item = whole * float(np.square(rest).mean()) * n / (n - 1)
    between = max(0.0, float(by_seed.var(ddof=1)) - noise_of_seed)
    return _Parts(
        training=between / seeds,
        seeds=seeds,
        items=spreads.spread(by_item, codes),
        between_seeds=math.sqrt(between),
        between_items=math.sqrt(max(0.0, float(by_item.var(ddof=1)) - noise_of_item / seeds)),
    )
