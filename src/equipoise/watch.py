"""One look at a run: where it is, how it goes, what its gates said. Read from its folder alone.

`look` gives a `Snapshot` that the terminal, the web app and `--json` show.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from equipoise import holder, watch_read, watch_time
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json
from equipoise.watch_read import Reader

OPEN = ("answering", "preparing", "training", "measuring")
"""States of a stage that is being worked on."""
AFTER = {"answers": "answering", "stage": "preparing", "reference": "training", "training": "training"}
AFTER |= {"trained": "measuring"}
"""The state of a stage after an event of it."""
DECIDED = {"keep": "kept", "rollback": "refused", "stop": "refused", "retry": "tried again"}


@dataclass(frozen=True)
class StageNow:
    """A stage of the recipe and where it is.

    `state` is one of waiting, answering, preparing, training, measuring, kept, refused, tried again, skipped. The
    lists have one value for each optimiser step: `margin` in reward units, `accuracy` as a share of pairs.
    """

    number: int
    name: str
    state: str = "waiting"
    step: int = 0
    steps: int | None = None
    pairs_per_s: float | None = None
    loss: tuple[float, ...] = ()
    margin: tuple[float, ...] = ()
    accuracy: tuple[float, ...] = ()
    gate: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment; times are seconds since 1970, spans are seconds.

    `state` is finished, running, failed, stopped (its process is gone) or silent (nothing is written, nobody knows
    why); `said` tells that in a sentence, and `doing` what it is at. `left_s` is all that is left, `training_left_s`
    the training in hand, each None where it is not known; `left` says it in words while the run goes on. `scores` is
    domain -> point -> mean, n, which items, and lines of the file; `verdict` has a row for each domain of a finished
    run, and `changed` says that it is not the one that the run wrote. `passed`: every gate let its stage through; None
    before the end. `notes` tell what is missing or damaged.
    """

    name: str
    question: str
    state: str
    said: str
    doing: str
    time: float
    started: float | None
    last: float
    elapsed_s: float | None
    left_s: float | None
    training_left_s: float | None
    left: str
    stages: tuple[StageNow, ...]
    scores: Mapping[str, Mapping[str, Any]]
    verdict: Mapping[str, Mapping[str, Any]]
    changed: bool
    kept: str | None
    passed: bool | None
    events: tuple[Mapping[str, Any], ...]
    notes: tuple[str, ...]


def look(folder: Path, reader: Reader, now: float | None = None) -> Snapshot:
    """Return what the run folder says now; raises InputError where the folder is none."""
    now = time.time() if now is None else now
    if not watch_read.traces(folder) and not holder.lives(folder / ".lock"):
        Run.open(folder)  # raises
    notes: list[str] = []
    life = watch_read.life(folder, now)
    recipe: dict[str, Any] = reader.read(folder / "recipe.json", watch_read.recipe, {}, notes)
    events: list[dict[str, Any]] = reader.read(folder / "events.jsonl", watch_read.events, [], notes)
    verdict: dict[str, Any] = reader.read(folder / "verdict.json", watch_read.verdict, {}, notes)
    life = watch_read.told(life, events)
    changed = life.state == "finished" and watch_read.changed(folder, reader, notes)
    stages = _stages(folder, recipe, events, reader, notes, going=life.state in ("running", "silent"))
    started = events[0]["time"] if events else None
    notes += watch_read.gaps(folder, life, changed)
    notes += _told_by_study(folder, life.state, reader)
    left, training = _left(recipe, events, stages, now) if life.state == "running" and events else (None, None)
    written = events[-1]["time"] if events else life.last
    end = {"running": now, "finished": written, "failed": written}.get(life.state, life.last)
    return Snapshot(
        name=Run(folder).name,
        question=reader.read(folder / "recipe.yaml", watch_read.question, "", []),
        state=life.state,
        said=_said(folder, life, now),
        doing=_doing(events, stages) if life.state not in ("finished", "failed") else "",
        time=now,
        started=started,
        last=life.last,
        elapsed_s=max(0.0, end - started) if started else None,
        left_s=left,
        training_left_s=training,
        left=_left_words(left, training, stages) if life.state == "running" else "",
        stages=tuple(stages),
        scores=_scores(folder, reader, notes),
        verdict=watch_read.rows_of(verdict),
        changed=changed,
        kept=verdict.get("kept_stage"),
        passed=_passed(verdict) if life.state == "finished" and verdict else None,
        events=tuple(events[-8:]),
        notes=tuple(dict.fromkeys(notes)),
    )


def _passed(verdict: Mapping[str, Any]) -> bool:
    gates = verdict.get("gates", [])
    return all(gate.get("outcome") != "fail" and gate.get("action") == "keep" for gate in gates)


def _said(folder: Path, life: watch_read.Life, now: float) -> str:
    again = f"continue it with: equipoise run --resume {folder}"
    if not (folder / "recipe.json").is_file():
        again = "it cannot go on without its recipe.json"
    return {
        "failed": f"The run failed: {life.error} - a changed recipe needs a new run; if the cause was another, {again}",
        "finished": "The run has reached its end.",
        "running": "The run is going on.",
        "stopped": f"The run stopped before its end: its process is gone; {again}",
        "silent": f"Nothing was written for {(now - life.last) / 60:.0f} minutes, and its process cannot be seen from "
        f"here: it may be at a long step, or gone. If it is gone, {again}",
    }[life.state]


def _stages(
    folder: Path,
    recipe: Mapping[str, Any],
    events: Sequence[Mapping[str, Any]],
    reader: Reader,
    notes: list[str],
    *,
    going: bool,
) -> list[StageNow]:
    """Every stage of the recipe; what the files say counts more than the events."""
    found = []
    ended = False
    for number, settings in enumerate(recipe.get("stages", []), 1):
        name = str(settings.get("name", "?"))
        place = Run(folder).stage(number, name)
        gate = reader.read(place / "gate.json", watch_read.gate, None, notes)
        steps, bad = reader.read(place / "train.jsonl", watch_read.steps, watch_read.NO_STEPS, notes)
        if bad:
            of = watch_read.place(place / "train.jsonl")
            notes.append(f"{of}: left out of the curves: {bad} {'lines' if bad > 1 else 'line'} that cannot be read")
        own = _own(events, number, name)
        state = "waiting"
        if gate is not None:
            state = DECIDED[gate["action"]]
        elif own:
            state = _state_after(own[-1])
        elif steps:
            state = "training"
        if state in OPEN and not going:
            state = "interrupted"
        if ended and state == "waiting":
            state = "skipped"
        ended = ended or (gate is not None and gate["action"] == "stop")
        total, speed = _training(own, steps, place / "train.jsonl")
        found.append(
            StageNow(
                number,
                name,
                state,
                int(steps[-1]["step"]) if steps else 0,
                total,
                speed,
                tuple(step["loss"] for step in steps),
                tuple(step["margin"] for step in steps),
                tuple(step["accuracy"] for step in steps),
                gate,
            )
        )
    return found


def _own(events: Sequence[Mapping[str, Any]], number: int, name: str) -> list[Mapping[str, Any]]:
    """The events of a stage: those that name it, and the measurements of its point."""
    point = f"{number}-{name}"
    return [
        event
        for event in events
        if event.get("stage") == name or (event["event"] == "evaluate" and event.get("point") == point)
    ]


def _state_after(event: Mapping[str, Any]) -> str:
    if event["event"] == "gate":
        return DECIDED.get(str(event.get("action")), "waiting")
    return "measuring" if event["event"] == "evaluate" else AFTER.get(event["event"], "waiting")


def _training(
    own: Sequence[Mapping[str, Any]], steps: Sequence[Mapping[str, float]], log: Path
) -> tuple[int | None, float | None]:
    """Optimiser steps in all, and pairs per second; None for what is not known."""
    begun = next((event for event in reversed(own) if event["event"] == "training"), None)
    ended = next((event for event in reversed(own) if event["event"] == "trained"), None)
    if ended is not None and (begun is None or ended["time"] >= begun["time"]):
        return int(ended.get("steps", 0)) or None, ended.get("pairs_per_s")
    if begun is None:
        return None, None
    stamp = watch_read.stamp_of(log)
    since = stamp[0] / 1e9 - begun["time"] if stamp else 0.0
    pairs = sum(step["pairs"] for step in steps if step["step"] > begun.get("step", 0))
    return begun.get("steps"), pairs / since if since > 0 and pairs else None


def _left(
    recipe: Mapping[str, Any], events: Sequence[Mapping[str, Any]], stages: Sequence[StageNow], now: float
) -> tuple[float | None, float | None]:
    """Seconds that are left in all, and of the training in hand."""
    planned = [watch_time.planned_steps(settings) for settings in recipe.get("stages", [])]
    current = next((stage for stage in stages if stage.state in OPEN), None)
    going = 0
    known = watch_time.pace(events)
    if current is not None:
        asked = planned[current.number - 1]
        going = max(0, (current.steps or (asked[1] if asked else 0)) - current.step)
        if current.state == "training" and current.pairs_per_s and asked:
            size = recipe["stages"][current.number - 1]["optim"]["batch_size"]
            known = replace(known, step=size / current.pairs_per_s)
    waiting = [planned[stage.number - 1] for stage in stages if stage.state == "waiting"]
    training = watch_time.training_left(now, events, known, going)
    if any(one is None for one in waiting):
        return None, training
    return watch_time.time_left(now, events, known, going, [one for one in waiting if one is not None]), training


def _left_words(left: float | None, training: float | None, stages: Sequence[StageNow]) -> str:
    return watch_time.words(left, training, sum(stage.state == "waiting" for stage in stages))


def _doing(events: Sequence[Mapping[str, Any]], stages: Sequence[StageNow]) -> str:
    """What the last event says that is going on."""
    if not events:
        return "preparing the pairs of every stage"
    last = events[-1]
    stage = next((stage for stage in stages if stage.name == last.get("stage")), None)
    of = f"step {stage.step} of {stage.steps}" if stage and stage.steps else ""
    name = last.get("stage", "")
    return {
        "begin": "beginning",
        "evaluate": f"measuring {last.get('point')}: answers and scores",
        "base scores reused": "scores of the base model are taken from the store",
        "answers": f"{name}: the stage's own start answers",
        "stage": f"{name}: reference log-probabilities",
        "reference": f"{name}: training begins",
        "training": f"{name}: training, {of}",
        "trained": f"{name}: trained; measuring comes next",
        "gate": f"{name}: gate {last.get('outcome')}, {last.get('action')}",
        "end": "writing the report",
        "failed": "beginning again",
    }.get(last["event"], str(last["event"]))


def _scores(folder: Path, reader: Reader, notes: list[str]) -> dict[str, dict[str, Any]]:
    """Mean scores by domain and point, in the order of the points."""
    found: dict[str, dict[str, Any]] = {}
    for point in Run(folder).points():
        for path in sorted((folder / "scores" / point).glob("*.jsonl")):
            score = reader.read(path, watch_read.scored, None, notes)
            if score is not None:
                found.setdefault(path.stem, {})[point] = score
    for task, points in found.items():
        asked = reader.read(folder / "items" / f"{task}.jsonl", watch_read.count, 0, notes)
        asked = asked or max(score["lines"] for score in points.values())
        for point, score in points.items():
            if score["lines"] < asked:
                where = f"scores/{point}/{task}.jsonl"
                notes.append(f"{where} has {score['lines']:,} of {asked:,} items: its mean is of those alone")
    return found


def _told_by_study(folder: Path, state: str, reader: Reader) -> list[str]:
    """Why a run of a study has failed, where the study says so."""
    if state != "stopped":
        return []
    reasons: dict[str, str] = reader.read(folder.parent / "study.json", _reasons, {}, [])
    said = reasons.get(folder.name)
    return [f"study.json says why it ended: {said}"] if said else []


def _reasons(path: Path) -> dict[str, str]:
    try:
        return {row["name"]: str(row["reason"]) for row in read_json(path)["rows"] if row.get("reason")}
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: not what a study writes") from error
