"""Beta over a stage: a number, a line or half a cosine over the steps, or by the margins of each batch."""

from __future__ import annotations

import math
from collections.abc import Callable

from equipoise.recipe import AdaptiveBeta, BetaSchedule

FLOOR = 0.01
"""An adaptive beta does not fall below this part of its `beta`: at 0 nothing is learned, below it the opposite."""


def scheduled(step: int, *, total: int, kind: str, start: float, end: float) -> float:
    """Beta of optimiser step `step` (from 0) of `total`: `start` in the first one, `end` in the last."""
    progress = step / max(1, total - 1)
    if kind == "cosine":
        return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
    return start + (end - start) * progress


def adaptive(margin: float, running: float, *, beta: float, strength: float) -> float:
    """Beta of a batch whose mean margin is `margin`, in reward units (`beta` times nats).

    (1 + strength * (margin - running)) * beta: beta-DPO, Wu et al. 2024, on the level of a batch, where `running` is
    the mean margin of earlier batches; at least `FLOOR` times beta. Batches that the policy already tells well apart
    are held closer to the reference.
    """
    return max(FLOOR, 1 + strength * (margin - running)) * beta


def updated(running: float | None, margin: float, *, momentum: float) -> float:
    """The running mean margin once a batch has been added to it; the first batch is its beginning."""
    return margin if running is None else momentum * running + (1 - momentum) * margin


class Betas:
    """The beta of each step of a stage.

    Args:
        spec: what the recipe asks for.
        steps: optimiser steps of the whole stage, by which a schedule is stretched.
        running: mean margin of the batches so far, where a killed stage goes on.
    """

    def __init__(self, spec: float | BetaSchedule | AdaptiveBeta, steps: int, running: float | None = None) -> None:
        self._spec, self._steps = spec, steps
        self.running = running

    def of(self, step: int, mean_nats: Callable[[], float]) -> tuple[float, float | None]:
        """Beta of a step (from 0), and the running mean that follows from it.

        `mean_nats` gives the batch's mean of log-ratio chosen minus rejected, in nats; only an adaptive beta asks for
        it. Who takes the step puts the mean into `running`: before that a step may be begun again.
        """
        spec = self._spec
        if isinstance(spec, AdaptiveBeta):
            margin = spec.beta * mean_nats()
            before = margin if self.running is None else self.running
            beta = adaptive(margin, before, beta=spec.beta, strength=spec.strength)
            return beta, updated(self.running, margin, momentum=spec.momentum)
        if isinstance(spec, BetaSchedule):
            end = spec.start if spec.end is None else spec.end
            return scheduled(step, total=self._steps, kind=spec.kind, start=spec.start, end=end), None
        return spec, None
