"""The instrument's own noise: how far scores of an unchanged model move when it is measured again. Pure.

Greedy decoding on a GPU is not deterministic, and even on a CPU the shape of a batch decides about near ties. A
difference that repeating the measurement alone can make says nothing about training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist, fmean, variance
from typing import Any

from equipoise.records import Score


@dataclass(frozen=True, slots=True)
class Noise:
    """What `repeats` measurements of one model on the same n items say.

    `spread` is the largest difference of two of their means. `limit` is what the difference of two means stays within,
    with the stated confidence, when nothing but the measurement changes: the larger of the spread and of
    z * sqrt(2 * sum of the items' variances) / n. `moved` is the share of items whose value was not always the same.
    """

    repeats: int
    n: int
    spread: float
    limit: float
    moved: float

    def record(self) -> dict[str, Any]:
        """Return the JSON object that stands in `noise.json`."""
        return asdict(self)


def noise(measured: Sequence[Sequence[Score]], *, confidence: float = 0.95) -> Noise | None:
    """The noise of one task's scores, measured at least twice; None where no item was scored each time.

    Raises ValueError for fewer than two measurements.
    """
    if len(measured) < 2:
        raise ValueError("noise needs at least two measurements of the same model")
    by_item: dict[str, list[float]] = {}
    for scores in measured:
        for score in scores:
            if score.value is not None:
                by_item.setdefault(score.id, []).append(score.value)
    values = [given for given in by_item.values() if len(given) == len(measured)]
    if not values:
        return None
    means = [fmean(side) for side in zip(*values, strict=True)]
    spread = max(means) - min(means)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    within = z * math.sqrt(2 * math.fsum(map(variance, values))) / len(values)
    moved = sum(len(set(given)) > 1 for given in values) / len(values)
    return Noise(len(measured), len(values), spread, max(spread, within), moved)
