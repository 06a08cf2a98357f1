"""`--stage N`: goes on from the run of stage N-1 under the same tag, so that nothing is trained twice.

Stages belong to one run: its report and verdict speak of all of them. So `--stage 2` begins a run of stages 1 and 2 and
puts into it what the run of stage 1 has finished (adapter, scores, gate); the run then goes on as one that was resumed.
The run of stage 1 stays as it is.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from equipoise.data.ledger import Ledger
from equipoise.data.tables import read_pairs
from equipoise.model.load import default_device, policy_identity, policy_tokenizer
from equipoise.models import Models
from equipoise.preparation import Preparation
from equipoise.progress import Display
from equipoise.recipe import Recipe
from equipoise.recipe_file import changed_fields, stored_recipe, told_changes
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json, require_unchanged, write_json
from equipoise.store import Store

CARRIED = ("stages", "scores")
"""Folders of a run that hold what its stages have finished."""


def earlier_run(out: Path, name: str, stage: int) -> Run:
    """The run of the stage before `stage`, there or not, by the name `<tag>-stage<N>` of the run that is to be."""
    return Run(out / f"{name.removesuffix(f'-stage{stage}')}-stage{stage - 1}")


def require_finished(run: Run, stage: int) -> None:
    """Raises InputError where `stage` cannot go on from the run of the stage before it.

    There is none, it is not finished, its gate ended it, or its files are not what they were.
    """
    before = f"--stage {stage}"
    if not (run.folder / "recipe.json").is_file():
        raise InputError(f"{before}: there is no {run.folder}; run --stage {stage - 1} first, with the same --exp_tag")
    if not run.finished:
        raise InputError(f"{before}: {run.folder} is not finished; give the command of --stage {stage - 1} again")
    verdict = read_json(run.folder / "verdict.json")
    stopped = [gate["stage"] for gate in verdict["gates"] if gate["action"] == "stop"]
    if stopped:
        raise InputError(f"{before}: the gate of {stopped[0]} ended {run.folder}; see its report.html for the reasons")
    require_unchanged(run.folder, read_json(run.folder / "done")["files"], f"run --stage {stage - 1}")


def require_continuation(before: Run, recipe: Recipe) -> None:
    """Raises InputError where `recipe` asks for anything else than the run before, beside a further stage.

    So it does where the model is another one now, under the same name.
    """
    stored = stored_recipe(read_json(before.folder / "recipe.json"))
    shared = {name: spec for name, spec in recipe.sources.items() if name in stored.sources}
    same = recipe.model_copy(update={"stages": recipe.stages[: len(stored.stages)], "sources": shared})
    changes = changed_fields(stored, same)
    if changes:
        told = "; ".join(told_changes(changes))
        raise InputError(f"{before.folder} was run with other values ({told}); give the same, or another --exp_tag")
    if read_json(before.folder / "provenance.json")["model"] != policy_identity(recipe.model, default_device()):
        raise InputError(
            f"{before.folder}: the model {recipe.model.id} has changed since; put it back, or give another --exp_tag"
        )


def carry_over(before: Run, run: Run, recipe: Recipe, display: Display) -> bool:
    """Make the folder of `run` of what `before` has finished, whole or not at all; returns whether that was possible.

    It cannot where another stage changes what the earlier ones draw (two stages that share a source whose answers
    are generated): the stages are then trained again.
    """
    store = Store()
    models = Models(recipe, store, display)
    prepared = Preparation(recipe, policy_tokenizer(recipe.model), display, store, models).begin()
    finished = stored_recipe(read_json(before.folder / "recipe.json")).stages
    known = Ledger.from_record(read_json(before.folder / "data" / "ledger.json"))
    ledger = prepared.ledger
    for number, (stage, data) in enumerate(zip(finished, prepared.stages, strict=False), 1):
        if data is None or read_pairs(before.stage(number, stage.name) / "pairs.parquet") != data.pairs:
            return False
        ledger = ledger.with_stage(stage.name, known.stages[stage.name])
    aside = run.folder.with_name(f".{run.name}.part")
    shutil.rmtree(aside, ignore_errors=True)  # of a command that was killed
    for name in CARRIED:
        shutil.copytree(before.folder / name, aside / name)
    write_json(aside / "data" / "ledger.json", ledger.record())
    aside.rename(run.folder)
    return True
