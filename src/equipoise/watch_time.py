"""How long a run still takes, from how long its parts took so far. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from equipoise.dpo.schedule import steps as steps_of

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds for one optimiser step, one pair's reference, and one measurement of a model; None is not known yet."""

    step: float | None
    reference: float | None
    measuring: float | None


def pace(events: Sequence[Event]) -> Pace:
    """What the finished parts of a run took; of several the last one counts. A pause between processes is no work."""
    step = reference = measuring = None
    pairs, reused = 0, False
    for event, following in pairwise(events):
        seconds = following["time"] - event["time"]
        kind, ended = event["event"], following["event"]
        pairs = event.get("pairs", pairs) if kind == "stage" else pairs
        reused = kind == "base scores reused" or (reused and kind != "evaluate")
        if kind == "stage" and ended == "reference":  # what the store had costs nothing worth counting
            reference = seconds / following["computed"] if following["computed"] else reference or 0.0
        elif kind == "training" and ended == "trained" and following["steps"] > event["step"]:
            step = seconds / (following["steps"] - event["step"])
        elif kind == "evaluate" and ended not in ("begin", "base scores reused"):
            measuring = seconds
    return Pace(step, reference, measuring)


def planned_steps(stage: Mapping[str, Any]) -> tuple[int, int] | None:
    """Pairs and optimiser steps that a stage of a resolved recipe asks for; None where it does not say."""
    mix, optim = stage.get("mix", {}), stage.get("optim", {})
    counts = mix.get("counts")
    pairs = sum(counts.values()) if isinstance(counts, dict) else mix.get("pairs")
    try:
        return int(pairs), steps_of(int(pairs), float(optim["epochs"]), int(optim["batch_size"]))
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None


def time_left(
    now: float, events: Sequence[Event], known: Pace, going: int, waiting: Sequence[tuple[int, int]]
) -> float | None:
    """Seconds that are left, or None where a part of what is to come was never timed.

    `going` are the steps that the stage in hand still has to do; `waiting` are (pairs, steps) of the stages to come.
    """
    last = events[-1]
    kind = last["event"]
    spent = max(0.0, now - last["time"])
    total = 0.0
    if kind in ("stage", "reference", "training", "answers"):
        if known.step is None or known.measuring is None:
            return None
        if kind == "stage":
            if known.reference is None:
                return None
            total += max(0.0, known.reference * last.get("pairs", 0) - spent)
        total += going * known.step + known.measuring
    elif kind in ("evaluate", "trained"):
        if known.measuring is None:
            return None
        total += max(0.0, known.measuring - spent)
    for pairs, steps in waiting:
        if known.step is None or known.measuring is None or known.reference is None:
            return None
        total += known.reference * pairs + known.step * steps + known.measuring
    return total
