"""The order in which the optimiser sees the pairs of a stage: new in every epoch, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from equipoise.data.seeds import generator


def epoch_order(n: int, *, seed: int, epoch: int, sources: Sequence[str] | None = None) -> list[int]:
    """A permutation of 0 .. n-1.

    With `sources` (the source of each pair) the sources are spread evenly: every beginning of the order, so also
    a fraction of an epoch, holds each source in its share to within one pair. Raises ValueError where `sources` has
    another length than n.
    """
    if sources is None:
        return [int(place) for place in generator("order", seed, epoch).permutation(n)]
    if len(sources) != n:
        raise ValueError(f"{n} pairs and the sources of {len(sources)}")
    # Pair k of a source with m pairs stands at k/m to (k+1)/m of the epoch.
    places: list[tuple[float, int]] = []
    labels = np.array(sources)
    for source in dict.fromkeys(sources):
        random = generator("order", seed, epoch, source)
        own = random.permutation(np.flatnonzero(labels == source))
        at = (np.arange(len(own)) + random.random(len(own))) / len(own)
        places += zip(at.tolist(), own.tolist(), strict=True)
    return [place for _, place in sorted(places)]
