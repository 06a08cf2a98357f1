"""What a run's events.jsonl says about its time, and about what it took from the stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from equipoise.run_folder import read_lines

TRAINING, MEASURING, OTHER = "training", "measuring", "other"
OPENS = {
    "begin": OTHER,
    "stage": TRAINING,
    "evaluate": MEASURING,
    "answers": MEASURING,
    "gate": OTHER,
    "end": OTHER,
}
"""What a run does after an event; others tell something about what is going on, and change nothing."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of a run by kind of work (`measuring` is generation and scoring), and its counts.

    `elapsed` is from each begin to the last event before the next one: a pause between two processes is no work.
    """

    training: float
    measuring: float
    elapsed: float
    reference_reused: int
    reference_computed: int
    base_scores_computed: int


def spent(events: Sequence[Mapping[str, Any]]) -> Spent:
    """Add up the events of a run, in order."""
    seconds = {TRAINING: 0.0, MEASURING: 0.0, OTHER: 0.0}
    doing = OTHER
    for event, following in pairwise(events):
        doing = OPENS.get(event["event"], doing)
        if following["event"] != "begin":
            seconds[doing] += following["time"] - event["time"]
    references = [event for event in events if event["event"] == "reference"]
    asked = any(event["event"] == "evaluate" and event["point"] == "base" for event in events)
    reused = any(event["event"] == "base scores reused" and not event.get("repeat") for event in events)
    return Spent(
        training=seconds[TRAINING],
        measuring=seconds[MEASURING],
        elapsed=sum(seconds.values()),
        reference_reused=sum(event["reused"] for event in references),
        reference_computed=sum(event["computed"] for event in references),
        base_scores_computed=int(asked and not reused),
    )


def spent_by(folder: Path) -> Spent:
    """The same of a run folder; nothing of a run that never began."""
    path = folder / "events.jsonl"
    return spent(read_lines(path, partial=True) if path.is_file() else [])
