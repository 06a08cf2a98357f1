"""Scores of the points of a run: each is measured once, and read where it is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from equipoise import run_folder
from equipoise.beginning import Lab
from equipoise.evaluation.gate import require_percentages, vacuous
from equipoise.evaluation.items import splits
from equipoise.measure import Measurement, keep_base_scores, known_base_scores, turn_at_the_base
from equipoise.outcome import Scores, noise_of, only, unmeasured
from equipoise.records import InputError, Item, Split
from equipoise.run_folder import hashes, read_json, read_scores, require_unchanged, write_json


def base_scores(lab: Lab) -> Scores:
    """Scores of the base model, measured `evaluation.repeats` times.

    Raises InputError for what would make every gate or the verdict meaningless, before any training.
    """
    base = scores_at(lab, "base", [])
    _require_measurable(base)
    _measure_again(lab, base)
    for stage in lab.recipe.stages:
        require_percentages(only(base, "dev"), stage.gate)
        for sentence in vacuous(only(base, "dev"), stage.gate):
            lab.display.say(f"warning: stage {stage.name}: gate {sentence}")
    return base


def scores_at(lab: Lab, point: str, stack: Sequence[Path]) -> Scores:
    """Scores of all items at a point of the run; read where they are complete."""
    run = lab.run
    folder = run.folder / "scores" / point
    known = scores_in(folder)
    if known is not None:
        return known
    run.log("evaluate", point=point)
    scores = _base(lab) if point == "base" else measured(lab, stack)
    write_scores(folder, scores)
    return scores


def scores_in(folder: Path) -> Scores | None:
    """The scores of a folder that is complete; None of another. Raises InputError where a file was changed."""
    if not (folder / "done").is_file():
        return None
    require_unchanged(folder, read_json(folder / "done")["files"], "score this point")
    return read_scores(folder)


def write_scores(folder: Path, scores: Scores) -> None:
    """Write scores, one file for each task; `done` comes last."""
    run_folder.write_scores(folder, scores)
    write_json(folder / "done", {"files": hashes(folder)})


def measured(lab: Lab, stack: Sequence[Path], side: Split | None = None) -> Scores:
    """Generate and score with the adapters of `stack`; all items, or those of one side alone."""
    share = lab.recipe.evaluation.dev_share
    sides = {task: splits((item.group for item in items), share) for task, items in lab.prepared.items.items()}
    asked: dict[str, list[Item]] = {
        task: [item for item in items if side is None or sides[task][item.group] == side]
        for task, items in lab.prepared.items.items()
    }
    scores = _measurement(lab, asked).scores(lab.models.policy, stack)
    # Which side an item is on depends on all items of its task, not on those that are asked for now.
    return {
        task: [replace(score, split=sides[task][score.group]) for score in records] for task, records in scores.items()
    }


def _require_measurable(base: Scores) -> None:
    """Raises InputError where the base model's answers could not be scored, before any training."""
    uses: dict[Split, str] = {"dev": "gates", "test": "the verdict"}
    for side, use in uses.items():
        scores = only(base, side)
        for task, why in unmeasured(scores, scores).items():
            raise InputError(f"evaluation.tasks.{task}: nothing can be said for {use}: {why}")


def _measurement(lab: Lab, items: dict[str, list[Item]]) -> Measurement:
    recipe = lab.recipe
    return Measurement(items, recipe.evaluation, lab.models.reward, recipe.model, recipe.seed, lab.store, lab.display)


def _base(lab: Lab, repeat: int = 0) -> Scores:
    """Scores of the base model, from the store where they are there; `repeat` > 0 measures it once more."""
    items = lab.prepared.items
    with turn_at_the_base(lab.recipe, items, repeat=repeat):
        known = known_base_scores(lab.recipe, items, repeat=repeat)
        if known:
            lab.run.log("base scores reused", repeat=repeat)
            return known
        scores = _measurement(lab, items).scores(lab.models.policy, [], fresh=repeat)
        keep_base_scores(lab.recipe, items, scores, repeat=repeat)
        return scores


def _measure_again(lab: Lab, base: Scores) -> None:
    """Measure the base `evaluation.repeats` times in all: `repeats/` has the scores, `noise.json` what they say."""
    found = [base]
    for repeat in range(1, lab.recipe.evaluation.repeats):
        folder = lab.run.folder / "repeats" / str(repeat)
        if not (folder / "done").is_file():
            lab.display.say(f"measuring the base again ({repeat + 1} of {lab.recipe.evaluation.repeats})")
            write_scores(folder, _base(lab, repeat))
        found.append(read_scores(folder))
    noises = noise_of(lab.recipe, found)
    if noises:
        write_json(lab.run.folder / "noise.json", {name: one.record() for name, one in noises.items()})
