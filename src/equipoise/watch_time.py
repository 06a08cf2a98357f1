"""How long a run still takes, from how long its parts took so far; what is not known is said. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from equipoise.dpo.schedule import steps as steps_of
from equipoise.progress import duration

Event = Mapping[str, Any]
TRAINING = ("answers", "stage", "reference", "training")
"""Events after which a stage is on its way to the end of its training."""


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
        elif kind == "evaluate" and ended not in ("begin", "base scores reused", "failed"):
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


def training_left(now: float, events: Sequence[Event], known: Pace, going: int) -> float | None:
    """Seconds until the training in hand has done its `going` steps; None where none is, or its pace is not known."""
    last = events[-1]
    if last["event"] not in TRAINING or known.step is None:
        return None
    if last["event"] != "stage":
        return going * known.step
    if known.reference is None:
        return None
    references: float = known.reference * last.get("pairs", 0) - max(0.0, now - last["time"])
    return max(0.0, references) + going * known.step


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
    if kind in ("begin", "failed"):  # what is done already is passed over now, and the stage in hand is not said yet
        return None
    if kind in TRAINING:
        training = training_left(now, events, known, going)
        if training is None or known.measuring is None:
            return None
        total += training + known.measuring
    elif kind in ("evaluate", "trained"):
        if known.measuring is None:
            return None
        total += max(0.0, known.measuring - spent)
    for pairs, steps in waiting:
        if known.step is None or known.measuring is None or known.reference is None:
            return None
        total += known.reference * pairs + known.step * steps + known.measuring
    return total


def words(left_s: float | None, training_left_s: float | None, later: int) -> str:
    """The time that is left, in words: the whole, else that of the training in hand and what comes then.

    `later` are the stages after the one in hand.
    """
    if left_s is not None:
        return f"about {duration(left_s)} left"
    if training_left_s is None:
        return "time left not known yet"
    then = f", and {later} more stage{'s' * (later > 1)}" if later else ""
    return f"training: about {duration(training_left_s)} left, then measuring{then}"
