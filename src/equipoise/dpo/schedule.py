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

    Rises over the first `warmup` share of the steps (rounded up) in equal parts, reaches `peak` at the step after
    them, then falls as a half cosine or a line that would meet 0 one step after the last, or stays. So no step has
    the rate 0 and is wasted: a single step of a stage has `peak`, or half of it where it is warm-up.
    """
    rising = math.ceil(round(total * warmup, 9))  # 100 * 0.07 is a little more than 7
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    progress = (step - rising) / max(1, total - rising)
    if schedule == "constant":
        return peak
    if schedule == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
