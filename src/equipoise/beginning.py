"""The beginning of a run: what its steps share, and everything that can fail because of the user's input.

A stage whose own start answers its questions gets its data later, when that start is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from equipoise.data import ledger as ledgers
from equipoise.data.kept import Pool
from equipoise.data.ledger import Ledger
from equipoise.data.tables import write_pairs
from equipoise.dpo.distributed import Team
from equipoise.dpo.job import require_shardable
from equipoise.dpo.optimizer import require_optimizer
from equipoise.dpo.packing import padded_length
from equipoise.dpo.proof import refusal
from equipoise.dpo.trackers import require_trackers
from equipoise.draw import StageData
from equipoise.model import adapters
from equipoise.model.generate import instrument
from equipoise.model.load import Loaded, policy_tokenizer
from equipoise.models import Models, require_reward
from equipoise.preparation import Preparation, Prepared
from equipoise.progress import Display
from equipoise.recipe import Recipe
from equipoise.recipe_file import changed_fields, fingerprint, resolved, stored_recipe, told_changes
from equipoise.records import InputError, content_id
from equipoise.run_folder import Run, provenance, read_json, write_json, write_lines, write_text
from equipoise.store import Store


@dataclass
class Lab:
    """What the steps of a run share."""

    recipe: Recipe
    run: Run
    store: Store
    display: Display
    preparation: Preparation
    prepared: Prepared
    models: Models
    team: Team


def begin(recipe: Recipe, text: str, run: Run, display: Display, team: Team) -> Lab:
    """Everything that can fail because of the user's input happens here, before the first expensive step."""
    require_trackers(recipe.trackers)
    if recipe.evaluation.generation.backend == "openai":
        raise InputError(
            "evaluation.generation.backend: openai: the server does not have the adapters that a run trains; use "
            "transformers or vllm here, and openai for `equipoise eval`"
        )
    display.say("preparing the pairs of every stage")
    store = Store()
    models = Models(recipe, store, display, partial(_require_trainable, recipe, team))
    preparation = Preparation(recipe, policy_tokenizer(recipe.model), display, store, models)
    require_reward(recipe.reward, "reward", weights=True)
    preparation.check()
    with _kept_recipe(recipe, text, run):
        prepared = preparation.begin()
        for data in prepared.stages:
            _require_served(models, data)
        circumstances = _circumstances(prepared, models)
    if (run.folder / "provenance.json").is_file():
        _require_same_input(circumstances, run)
    else:
        write_json(run.folder / "provenance.json", {**provenance(recipe.seed), **circumstances})
    if models.reward:
        write_json(run.folder / "calibration.json", models.reward.record())
    run.repair_logs()
    run.log("begin", recipe=recipe.name, resumed=(run.folder / "scores").is_dir())
    for name, items in prepared.items.items():
        write_lines(run.folder / "items" / f"{name}.jsonl", (asdict(item) for item in items))
    _write_pools(run, prepared.pools)
    for name, pool in prepared.gathered.items():
        if pool.held_out:
            write_pairs(run.folder / "data" / "held_out" / f"{name}.parquet", pool.held_out)
    if not (run.folder / "data" / "ledger.json").is_file():
        write_json(run.folder / "data" / "ledger.json", prepared.ledger.record())
    for sentence in ledgers.problems(prepared.ledger):
        display.say(f"warning: {sentence}")
    return Lab(recipe, run, store, display, preparation, prepared, models, team)


@contextmanager
def _kept_recipe(recipe: Recipe, text: str, run: Run) -> Iterator[None]:
    """Within, the folder is a run that can be resumed: models may answer for hours.

    Where the input turns out to be wrong it is none again, so that the same command goes on once that is mended.
    """
    resolved_recipe, as_written = run.folder / "recipe.json", run.folder / "recipe.yaml"
    new = not resolved_recipe.is_file()
    if new:  # recipe.json comes first and goes last: with it a folder is a run
        write_json(resolved_recipe, resolved(recipe))
        write_text(as_written, text)
    try:
        yield
    except InputError:
        if new:
            as_written.unlink()
            resolved_recipe.unlink()
        raise


def _require_trainable(recipe: Recipe, team: Team, policy: Loaded) -> None:
    """Raises InputError where a stage cannot be trained with this model, these processes or these libraries."""
    for number, stage in enumerate(recipe.stages):
        adapters.require_targets(policy.model, stage.lora, f"stages.{number}")
        require_shardable(team, recipe.model, stage, f"stages.{number}")
        require_optimizer(stage.optim, f"stages.{number}.optim", policy.device)


def _require_served(models: Models, data: StageData | None) -> None:
    """Raises InputError where the model has no room for a stage's pairs."""
    if data is not None:
        refusal(models.policy.model, longest=max(map(padded_length, data.encoded)))


def _write_pools(run: Run, pools: Mapping[str, Pool]) -> None:
    for name, pool in pools.items():
        write_pairs(run.folder / "data" / f"{name}.parquet", pool.pairs)


def require_same_recipe(recipe: Recipe, run: Run) -> None:
    """Raises InputError where a run that was begun has another recipe, with the fields that differ."""
    path = run.folder / "recipe.json"
    if not path.is_file():
        return
    before = stored_recipe(read_json(path))
    if fingerprint(before) != fingerprint(recipe):
        changes = changed_fields(before, recipe)
        raise InputError(
            "\n".join([f"{run.folder}: the recipe has changed since this run began:", *told_changes(changes)])
        )


def _require_same_input(now: Mapping[str, Any], run: Run) -> None:
    """A run goes on only with the model and the data with which it began."""
    before = read_json(run.folder / "provenance.json")
    changed = [f"the {name}" for name in ("model", "reward", "instrument") if before.get(name) != now[name]]
    known = before.get("data", {})
    for kind, found in now["data"].items():
        changed += [f"{kind} {name}" for name, value in found.items() if known.get(kind, {}).get(name) != value]
    if changed:
        raise InputError(
            f"{run.folder}: changed since this run began: {', '.join(changed)}; put it back, or begin a new run"
        )


def stage_seed(seed: int, number: int) -> int:
    """Seed of a stage: no two of (seed, stage) share one, as they would if the numbers were added."""
    return int(content_id(["stage", seed, number])[:8], 16)


def _circumstances(prepared: Prepared, models: Models) -> dict[str, Any]:
    """What a result depends on beside the recipe, known only once data and models are there.

    Of answers that a later stage's own start will give, the questions are known.
    """
    reward, policy = models.reward, models.policy
    known = {name: pool.pairs for name, pool in {**prepared.gathered, **prepared.pools}.items()}
    return {
        "device": policy.device.type,
        "instrument": instrument(policy.device),
        "model": policy.identity,
        "reward": reward.identity if reward else None,
        "data": {
            "sources": {name: content_id([pair.id for pair in pairs]) for name, pairs in known.items()},
            "tasks": {name: content_id([item.content for item in items]) for name, items in prepared.items.items()},
        },
    }


def stage_data(lab: Lab, number: int, stack: Sequence[Path]) -> StageData:
    """The data of a stage (from 0); where its own start must answer first, it does so now."""
    data = lab.prepared.stages[number]
    if data is None:
        stage = lab.recipe.stages[number]
        lab.run.log("answers", stage=stage.name, start=[path.parent.name for path in stack])
        try:
            lab.prepared = lab.preparation.with_stage(lab.prepared, number, stack)
        except InputError as error:
            raise InputError(
                f"{error}\nthis run's recipe cannot change any more: mend it and begin a new run with another --name; "
                "base scores, answers and pairs of this one are kept in the store and come from there"
            ) from None
        data = lab.prepared.stages[number]
        assert data is not None
        _require_served(lab.models, data)
        _write_pools(lab.run, {key: pool for key, pool in lab.prepared.pools.items() if key.endswith(f"@{stage.name}")})
        path = lab.run.folder / "data" / "ledger.json"
        ledger = Ledger.from_record(read_json(path))
        own = {key: line for key, line in lab.prepared.ledger.sources.items() if key.endswith(f"@{stage.name}")}
        ledger = replace(ledger, sources={**ledger.sources, **own})
        write_json(path, ledger.with_stage(stage.name, lab.prepared.ledger.stages[stage.name]).record())
    return data
