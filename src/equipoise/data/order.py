"""The order in which the optimiser sees the pairs of a stage: new in every epoch, the same for the same seed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from equipoise.data.seeds import generator
from equipoise.recipe import Curriculum


def epoch_order(
    n: int, *, seed: int, epoch: int, sources: Sequence[str] | None = None, bands: Sequence[int] | None = None
) -> list[int]:
    """A permutation of 0 .. n-1.

    With `sources` (the source of each pair) every beginning of the order, and so every fraction of an epoch and
    every batch, holds each source in its share to within one pair; which pair of a source comes is random.
    With `bands` (the band of each pair) the pairs of each source come band by band, the lowest first, and
    are random within a band. Raises ValueError where one of them has another length than n.
    """
    sources = [""] * n if sources is None else sources
    bands = [0] * n if bands is None else bands
    if len(sources) != n or len(bands) != n:
        raise ValueError(f"{n} pairs, the sources of {len(sources)} and the bands of {len(bands)}")
    own: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        own.setdefault(source, []).append(place)
    ordered = {
        source: iter(sorted(_shuffled(places, seed, epoch, source), key=lambda place: bands[place]))
        for source, places in own.items()
    }
    return [next(ordered[source]) for source in evenly(Counter(sources))]


def bands_of(easiness: Sequence[float], sources: Sequence[str], curriculum: Curriculum) -> list[int]:
    """The band of each pair, 0 for those that come first.

    Each source is divided by itself into bands that differ by at most one pair, so the mix is the same in every band;
    equals stay in their order. Raises ValueError where the lengths differ or a number is not finite.
    """
    if len(easiness) != len(sources) or not all(map(math.isfinite, easiness)):
        raise ValueError("every pair needs a finite easiness")
    sign = -1 if curriculum.direction == "easy_to_hard" else 1
    bands = [0] * len(sources)
    for source in set(sources):
        places = [place for place, name in enumerate(sources) if name == source]
        for rank, place in enumerate(sorted(places, key=lambda place: sign * easiness[place])):
            bands[place] = rank * curriculum.bands // len(places)
    return bands


def _shuffled(places: Sequence[int], seed: int, epoch: int, source: str) -> list[int]:
    name = [source] if source else []
    return [int(place) for place in generator("order", seed, epoch, *name).permutation(places)]


def evenly(counts: Mapping[str, int]) -> Iterator[str]:
    """Names, each as often as its count, so that no beginning is 1 or more away from the exact shares.

    R. Tijdeman, The chairman assignment problem, Discrete Mathematics 32 (1980): of the names that may come
    without running ahead, the one that would be the first to fall behind.
    """
    names = sorted(name for name, count in counts.items() if count)
    total = sum(counts.values())
    slack = 2 * len(names) - 2
    given = dict.fromkeys(names, 0)
    for step in range(1, total + 1):
        ready = [name for name in names if slack * (counts[name] * step - given[name] * total) >= total] or names
        name = min(ready, key=lambda name: ((slack * (given[name] + 1) - 1) / counts[name], name))
        given[name] += 1
        yield name
