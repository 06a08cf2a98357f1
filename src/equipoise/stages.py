"""The story of a run: pairs -> mix -> (train -> evaluate -> gate) for every stage -> verdict.

Each step leaves a file that is whole or absent; a run that was killed skips what is there and goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from equipoise.beginning import Lab, begin, require_same_recipe, stage_data, stage_seed
from equipoise.data import ledger as ledgers
from equipoise.data.ledger import Ledger
from equipoise.data.tables import write_pairs
from equipoise.dpo.distributed import ALONE, Team
from equipoise.dpo.job import Job, Watch, train_adapter
from equipoise.dpo.reference import Reference
from equipoise.dpo.trackers import open_trackers
from equipoise.dpo.train import Progress
from equipoise.evaluation.gate import decide, vacuous
from equipoise.measure import Measurement, keep_base_scores, known_base_scores
from equipoise.model import adapters
from equipoise.outcome import Scores, comparison_json, gate_before, noise_in, noise_of, only, unmeasured, verdict_json
from equipoise.progress import Display, training_note
from equipoise.recipe import Recipe, Stage
from equipoise.recipe_file import resolved
from equipoise.records import InputError, Split
from equipoise.run_folder import (
    Run,
    hashes,
    read_json,
    read_scores,
    require_unchanged,
    write_json,
    write_lines,
)


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
        lab = begin(recipe, text, run, display, team)
        points = {"base": _scores_at(lab, "base", [])}
        _require_measurable(points["base"])
        _measure_again(lab, points["base"])
        for stage in recipe.stages:
            for sentence in vacuous(only(points["base"], "dev"), stage.gate):
                display.say(f"warning: stage {stage.name}: gate {sentence}")
        kept = "base"
        stack: list[Path] = []
        gates: list[dict[str, Any]] = []
        for number, stage in enumerate(recipe.stages, 1):
            point = f"{number}-{stage.name}"
            folder = run.stage(number, stage.name)
            _train(lab, number, folder, stack)
            points[point] = _scores_at(lab, point, [*stack, folder / "adapter"])
            gate = _decide(lab, stage, folder, point, points, kept)
            gates.append(gate)
            if gate["action"] == "keep":
                kept, stack = point, [*stack, folder / "adapter"]
            elif gate["action"] == "stop":
                display.say(f"stage {point}: the gate ends the run")
                break
        return _finish(lab, points, gates, kept, report)


def _require_measurable(base: Scores) -> None:
    """Raises InputError where the base model's answers could not be scored, before any training."""
    uses: dict[Split, str] = {"dev": "gates", "test": "the verdict"}
    for side, use in uses.items():
        scores = only(base, side)
        for task, why in unmeasured(scores, scores).items():
            raise InputError(f"evaluation.tasks.{task}: nothing can be said for {use}: {why}")


def _train(lab: Lab, number: int, folder: Path, stack: Sequence[Path]) -> None:
    """Train the adapter of stage `number` (from 1) on top of `stack`.

    `trained.json`, written last, says that `adapter/` is complete.
    """
    if (folder / "trained.json").is_file():
        require_unchanged(folder, read_json(folder / "trained.json")["files"], "train this stage")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run that was killed just before that
        return
    run, display, stage = lab.run, lab.display, lab.recipe.stages[number - 1]
    seed = stage_seed(lab.recipe.seed, number)
    data = stage_data(lab, number - 1, stack)
    run.log("stage", stage=stage.name, pairs=len(data.pairs), start=[path.parent.name for path in stack])
    write_pairs(folder / "pairs.parquet", data.pairs)
    write_json(folder / "start.json", {"stack": [path.parent.name for path in stack], "reference": stage.reference})
    spec = lab.recipe.model  # `auto` would mean another precision where a process loads on another device
    if spec.dtype == "auto" and not spec.quantization:
        spec = spec.model_copy(update={"dtype": str(lab.models.policy.model.dtype).removeprefix("torch.")})
    job = Job(spec, stage, data.encoded, [path.resolve() for path in stack], folder.resolve(), seed, data.easiness)
    trackers = open_trackers(
        lab.recipe.trackers, folder=run.folder, run_name=f"{run.name}-{folder.name}", config=resolved(lab.recipe)
    )
    watch = Watch(display, partial(_note_reference, lab, stage), _show_training(display, run, stage.name), trackers.log)
    try:
        with lab.team.working(job):
            trained = train_adapter(job, lab.models.policy, lab.team, lab.store, watch)
    finally:
        trackers.finish()
    lab.models.policy = trained.policy
    _write_seen(run, stage.name, trained.seen)
    shutil.rmtree(folder / "adapter", ignore_errors=True)
    adapters.save(trained.model, folder / "adapter")
    adapters.detach(trained.model)
    write_json(folder / "trained.json", {"seen": trained.seen, "files": hashes(folder, "adapter/")})
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _note_reference(lab: Lab, stage: Stage, reference: Reference) -> None:
    lab.display.say(f"{stage.name}: reference of {reference.reused} pairs reused, of {reference.computed} computed")
    lab.run.log("reference", stage=stage.name, reused=reference.reused, computed=reference.computed)


def _show_training(display: Display, run: Run, stage: str) -> Callable[[Progress], None]:
    show: list[Callable[..., None]] = []

    def on_step(progress: Progress) -> None:
        if not show:
            show.append(display.begin(f"{stage}: training", progress.steps))
        note = training_note(
            loss=progress.loss,
            margin=progress.margin,
            accuracy=progress.accuracy,
            pairs_per_s=progress.pairs_per_s,
            tokens_per_s=progress.tokens_per_s,
        )
        show[0](done=progress.step, note=note)
        if progress.step == progress.steps:
            run.log("trained", stage=stage, steps=progress.steps, pairs_per_s=round(progress.pairs_per_s, 2))

    return on_step


def _write_seen(run: Run, stage: str, seen: dict[str, int]) -> None:
    path = run.folder / "data" / "ledger.json"
    ledger = Ledger.from_record(read_json(path))
    write_json(path, ledger.with_stage(stage, ledgers.seen(ledger.stages[stage], seen)).record())


def _scores_at(lab: Lab, point: str, stack: Sequence[Path]) -> Scores:
    """Scores of all items at a point of the run; read where they are complete."""
    run = lab.run
    done = run.folder / "scores" / point / "done"
    if done.is_file():
        require_unchanged(done.parent, read_json(done)["files"], "score this point")
        return run.scores(point)
    run.log("evaluate", point=point)
    scores = _base(lab) if point == "base" else _measurement(lab).scores(lab.models.policy, stack)
    for task, records in scores.items():
        run.write_scores(point, task, records)
    write_json(done, {"files": hashes(done.parent)})
    return scores


def _measurement(lab: Lab) -> Measurement:
    recipe = lab.recipe
    return Measurement(
        lab.prepared.items, recipe.evaluation, lab.models.reward, recipe.model, recipe.seed, lab.store, lab.display
    )


def _base(lab: Lab, repeat: int = 0) -> Scores:
    """Scores of the base model, from the store where they are there; `repeat` > 0 measures it once more."""
    items = lab.prepared.items
    known = known_base_scores(lab.recipe, items, repeat=repeat)
    if known:
        lab.run.log("base scores reused", repeat=repeat)
        return known
    scores = _measurement(lab).scores(lab.models.policy, [], fresh=repeat)
    keep_base_scores(lab.recipe, items, scores, repeat=repeat)
    return scores


def _measure_again(lab: Lab, base: Scores) -> None:
    """Measure the base `evaluation.repeats` times in all: `repeats/` has the scores, `noise.json` what they say."""
    measured = [base]
    for repeat in range(1, lab.recipe.evaluation.repeats):
        folder = lab.run.folder / "repeats" / str(repeat)
        if not (folder / "done").is_file():
            lab.display.say(f"measuring the base again ({repeat + 1} of {lab.recipe.evaluation.repeats})")
            for task, records in _base(lab, repeat).items():
                write_lines(folder / f"{task}.jsonl", (score.record() for score in records))
            write_json(folder / "done", {"files": hashes(folder)})
        measured.append(read_scores(folder))
    found = noise_of(lab.recipe, measured)
    if found:
        write_json(lab.run.folder / "noise.json", {name: one.record() for name, one in found.items()})


def _decide(lab: Lab, stage: Stage, folder: Path, point: str, points: dict[str, Scores], kept: str) -> dict[str, Any]:
    """The gate's decision on the dev items, in gate.json; the stage is done when it is written."""
    path = folder / "gate.json"
    if (folder / "done").is_file():
        require_unchanged(folder, read_json(folder / "done")["files"], "train this stage")
    else:
        result = decide(gate_before(stage, points, kept), only(points[point], "dev"), stage.gate, seed=lab.recipe.seed)
        write_json(path, {"stage": point, "compared_with": stage.gate.against, "kept_before": kept, **result.record()})
        write_json(folder / "done", {"files": hashes(folder)})
    gate: dict[str, Any] = read_json(path)
    lab.run.log("gate", stage=stage.name, outcome=gate["outcome"], action=gate["action"])
    flag = " (kept all the same)" if gate["flagged"] else ""
    lab.display.say(f"gate {point}: {gate['outcome']} -> {gate['action']}{flag}")
    for reason in gate["reasons"]:
        lab.display.say(f"  {reason}")
    return gate


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
