"""The story of a run: pairs -> mix -> (train -> evaluate -> gate) for every stage -> verdict.

Each step leaves a file that is whole or absent; a run that was killed skips what is there and goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from equipoise.data import ledger as ledgers
from equipoise.data.ledger import Ledger
from equipoise.data.tables import write_pairs
from equipoise.dpo.distributed import ALONE, Team
from equipoise.dpo.job import Job, Watch, require_shardable, train_adapter
from equipoise.dpo.optimizer import require_optimizer
from equipoise.dpo.packing import padded_length
from equipoise.dpo.proof import refusal
from equipoise.dpo.reference import Reference
from equipoise.dpo.trackers import open_trackers, require_trackers
from equipoise.dpo.train import Progress
from equipoise.evaluation.gate import decide, vacuous
from equipoise.measure import keep_base_scores, known_base_scores, load_reward, measure
from equipoise.model import adapters
from equipoise.model.generate import instrument
from equipoise.model.load import Loaded, load_policy, policy_tokenizer
from equipoise.model.reward import RewardModel
from equipoise.outcome import Scores, comparison_json, gate_before, only, unmeasured, verdict_json
from equipoise.preparation import Prepared, StageData, prepare
from equipoise.progress import Display, training_note
from equipoise.recipe import Recipe, Stage
from equipoise.recipe_file import changed_fields, fingerprint, resolved, stored_recipe
from equipoise.records import InputError, Split, content_id
from equipoise.run_folder import (
    Run,
    hashes,
    provenance,
    read_json,
    require_unchanged,
    write_json,
    write_lines,
    write_text,
)
from equipoise.store import Store


@dataclass(frozen=True)
class Outcome:
    """How a run ended: the verdict as in verdict.json, and whether every gate passed.

    A stage that is undecided and kept (`on_undecided: continue`) counts as passed, flagged everywhere.
    """

    run: Run
    verdict: dict[str, Any]
    passed: bool


@dataclass
class Lab:
    """What the steps of a run share."""

    recipe: Recipe
    run: Run
    store: Store
    display: Display
    prepared: Prepared
    policy: Loaded
    reward: RewardModel | None
    team: Team


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
        _require_same_recipe(recipe, run)
        if run.finished:
            return _read_outcome(run)
        lab = _begin(recipe, text, run, display, team)
        points = {"base": _scores_at(lab, "base", [])}
        _require_measurable(points["base"])
        for stage in recipe.stages:
            for sentence in vacuous(only(points["base"], "dev"), stage.gate):
                display.say(f"warning: stage {stage.name}: gate {sentence}")
        kept = "base"
        stack: list[Path] = []
        gates: list[dict[str, Any]] = []
        for number, stage in enumerate(recipe.stages, 1):
            point = f"{number}-{stage.name}"
            folder = run.stage(number, stage.name)
            _train(lab, stage, lab.prepared.stages[number - 1], folder, stack, seed=stage_seed(recipe.seed, number))
            points[point] = _scores_at(lab, point, [*stack, folder / "adapter"])
            gate = _decide(lab, stage, folder, point, points, kept)
            gates.append(gate)
            if gate["action"] == "keep":
                kept, stack = point, [*stack, folder / "adapter"]
            elif gate["action"] == "stop":
                display.say(f"stage {point}: the gate ends the run")
                break
        return _finish(lab, points, gates, kept, report)


def _begin(recipe: Recipe, text: str, run: Run, display: Display, team: Team) -> Lab:
    """Everything that can fail because of the user's input happens here, before the first expensive step."""
    require_trackers(recipe.trackers)
    display.say("preparing the pairs of every stage")
    prepared = prepare(recipe, policy_tokenizer(recipe.model), display)
    store = Store()
    reward = load_reward(recipe.reward, store, display)
    policy = load_policy(recipe.model)
    for number, stage in enumerate(recipe.stages):
        adapters.require_targets(policy.model, stage.lora, f"stages.{number}")
        refusal(policy.model, longest=max(map(padded_length, prepared.stages[number].encoded)))
        require_shardable(team, recipe.model, stage, f"stages.{number}")
        require_optimizer(stage.optim, f"stages.{number}.optim", policy.device)
    circumstances = _circumstances(prepared, policy, reward)
    if (run.folder / "provenance.json").is_file():
        _require_same_input(circumstances, run)
    else:  # recipe.json comes first: from then on the folder is a run that can be resumed
        write_json(run.folder / "recipe.json", resolved(recipe))
        write_text(run.folder / "recipe.yaml", text)
        write_json(run.folder / "provenance.json", {**provenance(recipe.seed), **circumstances})
    run.repair_logs()
    run.log("begin", recipe=recipe.name, resumed=(run.folder / "scores").is_dir())
    for name, items in prepared.items.items():
        write_lines(run.folder / "items" / f"{name}.jsonl", (asdict(item) for item in items))
    for name, pairs in prepared.pools.items():
        write_pairs(run.folder / "data" / f"{name}.parquet", pairs)
    if not (run.folder / "data" / "ledger.json").is_file():
        write_json(run.folder / "data" / "ledger.json", prepared.ledger.record())
    for sentence in ledgers.problems(prepared.ledger):
        display.say(f"warning: {sentence}")
    return Lab(recipe, run, store, display, prepared, policy, reward, team)


def _require_measurable(base: Scores) -> None:
    """Raises InputError where the base model's answers could not be scored, before any training."""
    uses: dict[Split, str] = {"dev": "gates", "test": "the verdict"}
    for side, use in uses.items():
        scores = only(base, side)
        for task, why in unmeasured(scores, scores).items():
            raise InputError(f"evaluation.tasks.{task}: nothing can be said for {use}: {why}")


def _require_same_recipe(recipe: Recipe, run: Run) -> None:
    path = run.folder / "recipe.json"
    if path.is_file() and read_json(path)["fingerprint"] != fingerprint(recipe):
        changes = changed_fields(stored_recipe(read_json(path)), recipe)
        raise InputError("\n".join([f"{run.folder}: the recipe has changed since this run began:", *changes]))


def _require_same_input(now: Mapping[str, Any], run: Run) -> None:
    """A run goes on only with the model and the data with which it began."""
    before = read_json(run.folder / "provenance.json")
    changed = [f"the {name}" for name in ("model", "reward", "instrument") if before[name] != now[name]]
    for kind, found in now["data"].items():
        changed += [f"{kind} {name}" for name, value in found.items() if before["data"][kind].get(name) != value]
    if changed:
        raise InputError(
            f"{run.folder}: changed since this run began: {', '.join(changed)}; put it back, or begin a new run"
        )


def stage_seed(seed: int, number: int) -> int:
    """Seed of a stage: no two of (seed, stage) share one, as they would if the numbers were added."""
    return int(content_id(["stage", seed, number])[:8], 16)


def _circumstances(prepared: Prepared, policy: Loaded, reward: RewardModel | None) -> dict[str, Any]:
    """What a result depends on beside the recipe, known only once data and models are there."""
    return {
        "device": policy.device.type,
        "instrument": instrument(policy.device),
        "model": policy.identity,
        "reward": reward.identity if reward else None,
        "data": {
            "sources": {name: content_id([pair.id for pair in pairs]) for name, pairs in prepared.pools.items()},
            "tasks": {name: content_id([item.content for item in items]) for name, items in prepared.items.items()},
        },
    }


def _train(lab: Lab, stage: Stage, data: StageData, folder: Path, stack: Sequence[Path], *, seed: int) -> None:
    """Train a stage's adapter on top of `stack`; `trained.json`, written last, says that `adapter/` is complete."""
    if (folder / "trained.json").is_file():
        require_unchanged(folder, read_json(folder / "trained.json")["files"], "train this stage")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of a run that was killed just before that
        return
    run, display = lab.run, lab.display
    run.log("stage", stage=stage.name, pairs=len(data.pairs), start=[path.parent.name for path in stack])
    write_pairs(folder / "pairs.parquet", data.pairs)
    write_json(folder / "start.json", {"stack": [path.parent.name for path in stack], "reference": stage.reference})
    spec = lab.recipe.model  # `auto` would mean another precision where a process loads on another device
    if spec.dtype == "auto" and not spec.quantization:
        spec = spec.model_copy(update={"dtype": str(lab.policy.model.dtype).removeprefix("torch.")})
    job = Job(spec, stage, data.encoded, [path.resolve() for path in stack], folder.resolve(), seed)
    trackers = open_trackers(
        lab.recipe.trackers, folder=run.folder, run_name=f"{run.name}-{folder.name}", config=resolved(lab.recipe)
    )
    watch = Watch(display, partial(_note_reference, lab, stage), _show_training(display, run, stage.name), trackers.log)
    try:
        with lab.team.working(job):
            trained = train_adapter(job, lab.policy, lab.team, lab.store, watch)
    finally:
        trackers.finish()
    lab.policy = trained.policy
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
    recipe, run = lab.recipe, lab.run
    done = run.folder / "scores" / point / "done"
    if done.is_file():
        require_unchanged(done.parent, read_json(done)["files"], "score this point")
        return run.scores(point)
    run.log("evaluate", point=point)
    known = known_base_scores(recipe, lab.prepared.items) if point == "base" else None
    if known:
        run.log("base scores reused")
    scores = known or measure(
        lab.policy,
        stack,
        lab.prepared.items,
        lab.reward,
        recipe.evaluation,
        thinking=recipe.model.thinking,
        seed=recipe.seed,
        store=lab.store,
        display=lab.display,
    )
    if point == "base" and known is None:
        keep_base_scores(recipe, lab.prepared.items, scores)
    for task, records in scores.items():
        run.write_scores(point, task, records)
    write_json(done, {"files": hashes(done.parent)})
    return scores


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
    comparisons = comparison_json(lab.recipe, points)
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
