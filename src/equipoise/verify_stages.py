"""The part of `equipoise verify` that is about stages: what each attempt saw, and what each gate decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from equipoise.attempts import earlier_attempts
from equipoise.data.ledger import Ledger, StageLedger, StageLine
from equipoise.data.mix import asked
from equipoise.data.replay import asked as replay_asked
from equipoise.data.replay import is_replayed
from equipoise.data.tables import read_pairs
from equipoise.dpo.look import plateau
from equipoise.evaluation.gate import GateResult, may_shrink
from equipoise.outcome import Scores
from equipoise.recipe import Recipe, Stage
from equipoise.records import Pair
from equipoise.remedies import gate_record, in_attempt, judge, tried
from equipoise.run_folder import Run, read_json, read_lines, read_scores
from equipoise.training import trained_on


def stage_ledgers(run: Run, recipe: Recipe, ledger: Ledger) -> list[str]:
    """The lines of every stage and of every attempt against the pairs and the training log that lie beside them."""
    problems: list[str] = []
    earlier: list[Pair] = []
    for number, spec in enumerate(recipe.stages, 1):
        folder = run.stage(number, spec.name)
        if not (folder / "trained.json").is_file():
            continue  # the run ended before this stage
        tried = earlier_attempts(folder)
        for attempt, place in enumerate([*tried, folder], 1):
            line, name = ledger.stages[spec.name], "data/ledger.json"
            if place != folder:
                line, name = _line(place / "ledger.json"), f"stages/{folder.name}/attempts/{attempt}"
            found = _stage_ledger(in_attempt(spec, attempt), place, line, earlier)
            problems += [f"{name}: stage {spec.name}: {problem}" for problem in found]
        if read_json(folder / "gate.json")["action"] == "keep":
            earlier += trained_on(folder)
    return problems


def _stage_ledger(stage: Stage, folder: Path, line: StageLedger, earlier: Sequence[Pair]) -> list[str]:
    """What a stage's lines say otherwise than its files; `earlier` are the pairs that it may replay."""
    apart = folder / "set_apart.parquet"
    watching = read_pairs(apart) if apart.is_file() else []
    pairs = [*read_pairs(folder / "pairs.parquet"), *watching]
    drawn, set_aside = Counter(pair.source for pair in pairs), Counter(pair.source for pair in watching)
    steps = read_lines(folder / "train.jsonl")
    own = sum(not is_replayed(pair.source) for pair in pairs)
    counts = {name: line.sources[name].asked for name in stage.mix.sources}
    if stage.mix.by == "pairs":  # else the counts follow from pairs of which not all were drawn: they are taken as said
        counts = asked(stage.mix)
    if stage.replay:
        counts |= replay_asked(own, stage.replay.share, Counter(pair.source for pair in earlier))
    problems = []
    for name in sorted({*counts, *line.sources, *drawn}):
        row = line.sources.get(name, StageLine(0, 0, 0, 0))
        seen = round(sum(step["sources"].get(name, {}).get("pairs", 0) for step in steps))
        found = (counts.get(name, 0), drawn[name], seen, set_aside[name])
        said = (row.asked, row.drawn, row.seen, row.set_apart)
        if found != said:
            problems.append(f"asked, drawn and seen, and set apart, of {name} are {found}, not {said}")
    known = {pair.id for pair in earlier}
    strange = [pair.id for pair in pairs if is_replayed(pair.source) and pair.id not in known]
    return problems + [f"pair {id} is replayed, and no earlier stage was trained on it" for id in strange]


def _line(path: Path) -> StageLedger:
    return Ledger.from_record({"sources": {}, "stages": {"": read_json(path)}}).stages[""]


def decided_again(
    run: Run, recipe: Recipe, points: Mapping[str, Scores]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, Any]], str]:
    """Every gate of every attempt decided again from the scores.

    Returns the stages' gates as they are stored, what each gate.json (by its path in the run) should hold, and the
    kept point that follows.
    """
    stored, again, kept = [], {}, "base"
    for number, spec in enumerate(recipe.stages, 1):
        folder = run.stage(number, spec.name)
        if not (folder / "gate.json").is_file():
            break
        made: list[dict[str, Any]] = []
        for attempt, place in enumerate([*earlier_attempts(folder), folder], 1):
            scores = points[folder.name] if place == folder else read_scores(place / "scores")
            judged = partial(judge, recipe, in_attempt(spec, attempt), attempt, points, kept)
            record = _gate(folder.name, in_attempt(spec, attempt), attempt, place, kept, scores, judged, made)
            again[f"{place.relative_to(run.folder).as_posix()}/gate.json"] = record
            made.append(record)
        stored.append(read_json(folder / "gate.json"))
        kept = folder.name if made[-1]["action"] == "keep" else kept
        if made[-1]["action"] == "stop":
            break
    return stored, again, kept


def _gate(
    point: str,
    stage: Stage,
    attempt: int,
    folder: Path,
    kept: str,
    scores: Scores,
    judged: Callable[[Scores], GateResult],
    earlier: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What gate.json of an attempt should hold; `scores` are those of the adapter that it was judged by."""
    scale, tries = _searched(stage, folder, scores, judged)
    looks = _looks(stage, folder)
    stopped = plateau(looks, stage.optim.stop) if stage.optim.stop and looks else None
    return gate_record(
        point,
        stage,
        kept,
        judged(scores),
        attempt=attempt,
        scale=scale,
        tries=tries,
        stopped=stopped,
        attempts=earlier,
    )


def _searched(
    stage: Stage, folder: Path, scores: Scores, judged: Callable[[Scores], GateResult]
) -> tuple[float, list[dict[str, Any]]]:
    """The scale that a search comes to, and every try, from the scores that lie beside them."""
    whole = folder / "shrink" / "1" / "scores"
    result = judged(read_scores(whole) if whole.is_dir() else scores)
    if not may_shrink(result.outcome, stage.gate):
        return 1.0, []
    tries = [tried(1.0, result)]
    for scale in stage.gate.scales:
        result = judged(read_scores(folder / "shrink" / f"{scale:g}" / "scores"))
        tries.append(tried(scale, result))
        if result.outcome == "pass":
            return scale, tries
    return 1.0, tries


def _looks(stage: Stage, folder: Path) -> list[tuple[int, float]]:
    """Steps and figures of the pairs that the stage was watched by."""
    metric = stage.optim.stop.metric if stage.optim.stop else ""
    return [(step["step"], step[metric]) for step in read_lines(folder / "train.jsonl") if metric in step]
