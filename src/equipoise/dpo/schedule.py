"""The learning rate over a stage, and how many steps a stage has; pure."""

from __future__ import annotations

import math


def pairs_to_see(pairs: int, epochs: float) -> int:
    """How many pairs a stage shows to the optimiser: `epochs` passes, to the nearest pair, at least one."""
    return max(1, round(pairs * epochs))


def steps(pairs: int, epochs: float, batch_size: int) -> int:
    """Optimiser steps of a stage; the last one may have fewer pairs."""
    return math.ceil(pairs_to_see(pairs, epochs) / batch_size)


def learning_rate(step: int, *, total: int, peak: float, warmup: float, schedule: str) -> float:
    """Learning rate of optimiser step `step` (from 0) out of `total`.

    Rises linearly to `peak` over the first `warmup` share of the steps, then falls to 0 as a half cosine or a
    line, or stays. The first step is never 0, so that no step is wasted.
    """
    rising = math.ceil(total * warmup)
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    progress = (step - rising) / max(1, total - rising)
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
