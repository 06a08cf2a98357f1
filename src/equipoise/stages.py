"""The story of a run: pairs -> mix -> (train -> evaluate -> gate -> remedy) for every stage -> verdict.

Each step leaves a file that is whole or absent; a run that was killed skips what is there and goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from equipoise.attempts import run_stage
from equipoise.beginning import Lab, begin, require_same_recipe
from equipoise.dpo.distributed import ALONE, Team, TrainingStopped
from equipoise.outcome import Scores, comparison_json, noise_in, verdict_json
from equipoise.progress import Display
from equipoise.recipe import Recipe
from equipoise.records import InputError
from equipoise.run_folder import Run, hashes, read_json, write_json
from equipoise.scoring import base_scores


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the verdict as in verdict.json, and whether every gate passed.

    A stage that is undecided and kept (`on_undecided: continue`) counts as passed, flagged everywhere.
    """

    run: Run
    verdict: dict[str, Any]
    passed: bool


def run_recipe(
    recipe: Recipe,
    text: str,
    run: Run,
    display: Display,
    *,
    resume: bool = False,
    report: Callable[[Run], object] = lambda run: None,
    team: Team = ALONE,
) -> Outcome:
    """Run a recipe in the folder of `run`; `text` is the recipe as written, `report` writes report.html.

    Of several processes the main one does this; the others `follow` and take part in its training.
    Raises InputError for what the user can mend (before anything expensive), TrainingStopped when a
    stage cannot go on.
    """
    if not resume and run.begun:
        if not (run.folder / "recipe.json").is_file():
            raise InputError(f"{run.folder}: this folder holds other files and no run; choose another --name")
        raise InputError(
            f"{run.folder}: this run exists; continue it with --resume {run.folder}, or choose another --name"
        )
    with run.lock():
        require_same_recipe(recipe, run)
        if run.finished:
            return _read_outcome(run)
        with _Trace(run) as trace:
            lab = begin(recipe, text, run, display, team)
            trace.begun = True
            return _train_and_judge(lab, report)


def _train_and_judge(lab: Lab, report: Callable[[Run], object]) -> Outcome:
    """Base, every stage with its gate, and the end."""
    run = lab.run
    points = {"base": base_scores(lab)}
    kept = "base"
    stack: list[Path] = []
    gates: list[dict[str, Any]] = []
    for number, stage in enumerate(lab.recipe.stages, 1):
        folder = run.stage(number, stage.name)
        points[folder.name], gate = run_stage(lab, number, points, kept, stack)
        gates.append(gate)
        if gate["action"] == "keep":
            kept, stack = folder.name, [*stack, folder / "adapter"]
        elif gate["action"] == "stop":
            lab.display.say(f"stage {folder.name}: the gate ends the run")
            break
    return _finish(lab, points, gates, kept, report)


class _Trace:
    """Leaves the event `failed` with the reason where an error ends a run; an interruption is none.

    A --resume that is refused before it has begun leaves none: the run is what it was.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.begun = not (run.folder / "events.jsonl").exists()

    def __enter__(self) -> _Trace:
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: TracebackType | None) -> None:
        told = isinstance(error, Exception) and self.begun
        if told and (self._run.folder / "recipe.json").is_file():  # else wrong input made it no run again
            with suppress(OSError):  # where the disk is full, the error that says so counts
                self._run.log("failed", error=_reason(error))


def _reason(error: object) -> str:
    """The first line of an error without home folders, at most 300 characters; its type where users do not know it."""
    said = next(iter(str(error).splitlines()), "")
    if not isinstance(error, (InputError, TrainingStopped, OSError)):
        said = f"{type(error).__name__}: {said}".removesuffix(": ")
    home = str(Path.home())
    return (said.replace(home, "~") if len(home) > 1 else said)[:300]


def _finish(
    lab: Lab, points: dict[str, Scores], gates: list[dict[str, Any]], kept: str, report: Callable[[Run], object]
) -> Outcome:
    """Comparison, verdict, report; `done` of the run is written last, with the hash of every file."""
    run = lab.run
    comparisons = comparison_json(lab.recipe, points, noise_in(lab.recipe, run, points["base"]))
    verdict = verdict_json(comparisons, points, gates, kept)
    write_json(run.folder / "comparison.json", comparisons)
    write_json(run.folder / "verdict.json", verdict)
    run.log("end", kept=kept)
    report(run)
    write_json(run.folder / "done", {"files": hashes(run.folder)})
    return _read_outcome(run)


def _read_outcome(run: Run) -> Outcome:
    verdict = read_json(run.folder / "verdict.json")
    passed = all(gate["outcome"] != "fail" and gate["action"] == "keep" for gate in verdict["gates"])
    return Outcome(run, verdict, passed)
