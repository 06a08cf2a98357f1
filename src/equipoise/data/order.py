"""The order in which the optimiser sees the pairs of a stage: new in every epoch, the same for the same seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from equipoise.data.seeds import generator


def epoch_order(n: int, *, seed: int, epoch: int, sources: Sequence[str] | None = None) -> list[int]:
    """A permutation of 0 .. n-1.

    With `sources` (the source of each pair) every beginning of the order, and so every fraction of an epoch and
    every batch, holds each source in its share to within one pair; which pair of a source comes is random.
    Raises ValueError where `sources` has another length than n.
    """
    if sources is None:
        return [int(place) for place in generator("order", seed, epoch).permutation(n)]
    if len(sources) != n:
        raise ValueError(f"{n} pairs and the sources of {len(sources)}")
    own: dict[str, list[int]] = {}
    for place, source in enumerate(sources):
        own.setdefault(source, []).append(place)
    shuffled = {
        source: iter(generator("order", seed, epoch, source).permutation(places).tolist())
        for source, places in own.items()
    }
    return [int(next(shuffled[source])) for source in evenly(Counter(sources))]


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


ORDERS = {"shuffle": epoch_order}
"""Orders by their name in a recipe."""
