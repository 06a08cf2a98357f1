"""The same story as `stages.py`, told beforehand: counts, tokens, steps, memory, time, effects, problems."""

from __future__ import annotations

import math
import statistics
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from equipoise.beginning import stage_seed
from equipoise.data import ledger as ledgers
from equipoise.dpo import schedule
from equipoise.dpo.cost import Rates, measure_rates, operations, seconds
from equipoise.dpo.forecast import StageForecast
from equipoise.dpo.optimizer import require_optimizer
from equipoise.dpo.packing import token_budget
from equipoise.dpo.trackers import require_trackers
from equipoise.draw import StageData
from equipoise.evaluation.gate import vacuous
from equipoise.evaluation.items import splits
from equipoise.evaluation.stats import smallest_effect
from equipoise.measure import Measurement, keep_base_scores, known_base_scores, load_reward, measure_model
from equipoise.model.generate import CPU_ROWS
from equipoise.model.load import default_device, model_config, model_folder, policy_tokenizer
from equipoise.model.memory import Shape, lora_parameters, machine_memory, shape_of
from equipoise.outcome import only
from equipoise.pools import ranking_of
from equipoise.preparation import Preparation, Prepared
from equipoise.progress import Display
from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import PREFERENCE, kind_of
from equipoise.recipe_sources import Generated, MtBenchStyleSource
from equipoise.records import Item
from equipoise.store import Store

FLIPPED = 0.10
"""Assumed share of exact-match items whose score changes, where no spread is known."""
CORRELATION = 0.5
"""Assumed correlation of before and after, where only the spread of the base model is known."""
START_SECONDS = 10
"""Imports and loading."""
GENERATION_SHARE = 0.25
"""Share of a matrix product's speed that generation reaches."""
WITHIN_GROUP = 0.2
"""Assumed correlation of the differences of items that share a document."""
SMALL = 20_000_000
"""Parameters up to which the base model is scored for the plan without being asked."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where training is to run: `cpu` or `cuda`, with so many bytes of memory."""

    device: str
    available: int


def make_plan(recipe: Recipe, *, measure: bool, display: Display, gpu: float | None = None) -> dict[str, Any]:
    """Return the plan as JSON; raises InputError for what would stop the run.

    `gpu` forecasts memory for a CUDA GPU of so many GiB instead of this machine; times stay those of this machine.
    """
    target = Target("cuda", int(gpu * 2**30)) if gpu else Target(default_device().type, machine_memory())
    require_trackers(recipe.trackers)
    if gpu is None:
        for number, stage in enumerate(recipe.stages):
            require_optimizer(stage.optim, f"stages.{number}.optim")
    folder = model_folder(recipe.model.id, recipe.model.revision, what="model.id")
    config = model_config(folder, "model.id", trust_remote_code=recipe.model.trust_remote_code)
    shape = shape_of(config, trust_remote_code=recipe.model.trust_remote_code)
    tokenizer, rough = _tokenizer(recipe, folder)
    store = Store()
    prepared = Preparation(recipe, tokenizer, display, store).begin()
    weights = bool(list(folder.glob("*.safetensors")))
    scores = known_base_scores(recipe, prepared.items) if weights else None
    if scores is None and weights and (measure or shape.parameters <= SMALL):
        reward = load_reward(recipe.reward, store, display)
        asked = (prepared.items, recipe.evaluation, reward, recipe.model, recipe.seed, store, display)
        scores = measure_model(Measurement(*asked), [])[0]
        keep_base_scores(recipe, prepared.items, scores)
    rates = measure_rates(default_device(), _dtype(recipe, default_device().type))
    stages = [
        _stage(recipe, number, data, config, shape, rates, target)
        for number, data in enumerate(prepared.stages)
        if data
    ]
    problems = ledgers.problems(prepared.ledger)
    problems += _memory_problems(stages, target) + _position_problems(recipe, config)
    notes = ["tokens are estimated at 4 characters each: the folder has no tokenizer"] if rough else []
    notes += _memory_notes(stages) + _assumed_notes(prepared) + _stage_notes(recipe)
    notes += [] if weights else ["the folder has no weights: a run would stop; everything else is planned"]
    if scores is None:
        notes.append("the base model was not scored: use --measure to see its floors, ceilings and spreads")
    else:
        rules = [(stage.name, stage.gate) for stage in recipe.stages]
        problems += [
            f"stage {name}: gate {text}" for name, gate in rules for text in vacuous(only(scores, "dev"), gate)
        ]
    return {
        "recipe": recipe.name,
        "model": {
            "id": recipe.model.id,
            "architecture": (config.architectures or [type(config).__name__])[0],
            "parameters": shape.parameters,
            "layers": shape.layers,
            "hidden": shape.hidden,
            "vocabulary": shape.vocabulary,
        },
        "ledger": prepared.ledger.record(),
        "stages": stages,
        "evaluation": {name: _task(recipe, name, items, scores) for name, items in prepared.items.items()},
        "evaluations": len(recipe.stages) + 1,
        "seconds": round(
            sum(stage["seconds"] for stage in stages)
            + _evaluation_seconds(recipe, prepared, shape, GENERATION_SHARE * rates.products)
            + _answer_seconds(recipe, prepared, shape, GENERATION_SHARE * rates.products),
            1,
        ),
        "memory": {"available": target.available, "device": target.device},
        "problems": problems,
        "notes": notes,
    }


def _tokenizer(recipe: Recipe, folder: Path) -> tuple[Any, bool]:
    """The folder's tokenizer, or one that counts four characters as a token."""
    if (folder / "tokenizer_config.json").is_file() or (folder / "tokenizer.json").is_file():
        return policy_tokenizer(recipe.model), False
    return RoughTokenizer(), True


class RoughTokenizer:
    """Stands in for the tokenizer of a folder that holds a configuration alone: four characters a token."""

    eos_token, eos_token_id, chat_template = "<end>", -1, ""
    all_special_ids: Sequence[int] = ()

    def apply_chat_template(self, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
        """ChatML-like text."""
        text = "".join(f"<start>{message['role']}\n{message['content']}<end>\n" for message in messages)
        return text + "<start>assistant\n" * bool(options.get("add_generation_prompt"))

    def __call__(self, text: str, **options: Any) -> dict[str, list[int]]:
        """One id for every four characters."""
        return {"input_ids": [zlib.crc32(text[i : i + 4].encode()) for i in range(0, len(text), 4)]}


def _stage(
    recipe: Recipe, number: int, data: StageData, config: Any, shape: Shape, rates: Rates, target: Target
) -> dict[str, Any]:
    stage = recipe.stages[number]
    loras = [lora_parameters(shape, earlier.lora) for earlier in recipe.stages[: number + 1]]
    forecast = StageForecast(
        config,
        shape,
        recipe.model,
        stage,
        data.encoded,
        seed=stage_seed(recipe.seed, number + 1),
        dtype=_dtype(recipe, target.device),
        device=target.device,
        earlier=loras[:-1],
    )
    plan = forecast.forecast(target.available)
    work = operations(shape, config, data.encoded, plan, stage.optim.epochs)
    return {
        "name": stage.name,
        "pairs": len(data.encoded),
        "by_source": dict(Counter(pair.source for pair in data.encoded)),
        "pairs_seen": schedule.pairs_to_see(len(data.encoded), stage.optim.epochs),
        "tokens": sum(pair.tokens for pair in data.encoded),
        "tokens_seen": plan.plain_tokens,
        "stream_tokens": plan.tokens,
        "refused": plan.refused,
        "longest": forecast.longest,
        "steps": schedule.steps(len(data.encoded), stage.optim.epochs, stage.optim.batch_size),
        "micro_batches": plan.micro_batches,
        "micro_batch_tokens": plan.choice.tokens,
        "asked_tokens": token_budget(stage.optim.micro_batch_tokens, target.device),
        "checkpointing": plan.choice.checkpointing,
        "fits": plan.choice.fits,
        "lora_parameters": loras[-1],
        "memory": plan.parts.total,
        "memory_parts": asdict(plan.parts),
        "operations": asdict(work),
        "seconds": round(seconds(work, plan, rates, stage.optim.epochs), 1),
    }


def _dtype(recipe: Recipe, device: str) -> torch.dtype:
    auto = torch.bfloat16 if device == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(recipe.model.dtype, auto)


def _evaluation_seconds(recipe: Recipe, prepared: Prepared, shape: Shape, rate: float) -> float:
    """Generation one token at a time, half of the longest answer on average, at every point of the run."""
    generation = recipe.evaluation.generation
    rows = min(generation.batch_size, CPU_ROWS) if default_device().type == "cpu" else generation.batch_size
    seconds = 0.0
    for name, items in prepared.items.items():
        turns = 1 + max((len(item.follow_ups) for item in items), default=0)
        steps = math.ceil(len(items) / rows) * generation.longest(name) / 2 * turns
        seconds += steps * _step_seconds(shape, min(len(items), rows), rate)
    return seconds * (len(recipe.stages) + 1) + START_SECONDS


def _answer_seconds(recipe: Recipe, prepared: Prepared, shape: Shape, rate: float) -> float:
    """The same for the answers that sources do not have yet: one prompt for each pair that is asked for."""
    seconds = 0.0
    for key, line in prepared.ledger.sources.items():
        name, _, made_for = key.partition("@")
        spec = recipe.sources[name]
        if not line.assumed or not isinstance(spec, Generated):
            continue
        ranking = ranking_of(spec)
        prompts = max(
            stage.sources[name].asked
            for stage_name, stage in prepared.ledger.stages.items()
            if name in stage.sources and made_for in ("", stage_name)
        )
        answers = len(spec.policies) if isinstance(spec, MtBenchStyleSource) else spec.sampling.samples
        rows = min(ranking.batch_size, CPU_ROWS) if default_device().type == "cpu" else ranking.batch_size
        steps = math.ceil(prompts / rows) * answers * ranking.max_new_tokens / 2
        seconds += steps * _step_seconds(shape, min(prompts, rows), rate)
    return seconds


def _step_seconds(shape: Shape, rows: int, rate: float) -> float:
    """One token for each of `rows` answers."""
    return shape.layers * 0.002 + 2 * shape.parameters * rows / rate


def _task(recipe: Recipe, name: str, items: Sequence[Item], scores: Mapping[str, Any] | None) -> dict[str, Any]:
    """Items and the smallest effect that the verdict can see (80 % power)."""
    parts = splits([item.group for item in items], recipe.evaluation.dev_share)
    test = sum(parts[item.group] == "test" for item in items)
    values = [score.value for score in (scores or {}).get(name, []) if score.value is not None]
    mean = statistics.fmean(values) if values else None
    base_spread = statistics.stdev(values) if len(values) > 1 else 0.0
    if kind_of(name) == PREFERENCE:
        spread, assumed = 0.5, "every pair's margin goes one way or the other; the base's are 0 by definition"
    elif name == "tatqa" or (values and set(values) <= {0.0, 1.0}):
        spread, assumed = math.sqrt(FLIPPED), f"one answer in {1 / FLIPPED:.0f} changes between right and wrong"
    elif base_spread > 0:
        spread = base_spread * math.sqrt(2 * (1 - CORRELATION))
        assumed = f"before and after correlate by {CORRELATION}, with the spread of the base model"
    else:
        spread, assumed = 1.0, "in standard deviations of the difference"
    groups = len({item.group for item in items if parts[item.group] == "test"})
    # Items of one group say partly the same: the design effect of Kish (1965), 1 + (size - 1) * correlation.
    independent = round(test / (1 + (test / groups - 1) * WITHIN_GROUP))
    effect = smallest_effect(spread, max(2, independent), confidence=recipe.evaluation.confidence)
    if groups < test:
        assumed += f"; questions of one group correlate by {WITHIN_GROUP}"
    return {
        "items": len(items),
        "dev": len(items) - test,
        "test": test,
        "test_groups": groups,
        "base_mean": mean,
        "detectable": round(effect, 4),
        "assuming": assumed,
    }


def _memory_problems(stages: Sequence[Mapping[str, Any]], target: Target) -> list[str]:
    return [
        f"stage {stage['name']}: about {stage['memory'] / 2**30:.1f} GiB are needed, even for the longest pair alone "
        f"and with layers recomputed; there are {target.available / 2**30:.1f}: lower dpo.max_length or "
        f"lora.rank, or take a smaller model"
        for stage in stages
        if not stage["fits"]
    ]


def _assumed_notes(prepared: Prepared) -> list[str]:
    """Which sources have no answers yet, and what is assumed of them."""
    return [
        f"source {name}: its answers are not generated yet; {line.available} questions are there, and every answer is "
        "assumed to be as long as it may be"
        for name, line in prepared.ledger.sources.items()
        if line.assumed
    ]


def _stage_notes(recipe: Recipe) -> list[str]:
    """What the time does not count, and what is a control."""
    notes = []
    for stage in recipe.stages:
        if stage.gate.retry:
            notes.append(
                f"stage {stage.name}: up to {stage.gate.retry.max} further trainings where its gate fails; the time "
                "counts none of them"
            )
        if stage.gate.scales:
            notes.append(
                f"stage {stage.name}: up to {len(stage.gate.scales)} further evaluations on dev items where its gate "
                "fails; the time counts none of them"
            )
        if stage.flipped:
            notes.append(f"stage {stage.name}: {stage.flipped:.0%} of its preferences are turned round: a control")
    return notes


def _memory_notes(stages: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a stage does otherwise than asked, because of memory or of the model."""
    notes = []
    for stage in stages:
        if stage["micro_batch_tokens"] < stage["asked_tokens"]:
            notes.append(
                f"stage {stage['name']}: {stage['micro_batch_tokens']} tokens per forward pass fit into memory, not "
                f"{stage['asked_tokens']}"
            )
        if stage["checkpointing"]:
            notes.append(f"stage {stage['name']}: layers are computed again in the backward pass, to save memory")
        if stage["refused"]:
            notes.append(f"stage {stage['name']}: prompts are not shared between two answers: {stage['refused']}")
    return notes


def _position_problems(recipe: Recipe, config: Any) -> list[str]:
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return [
        f"stage {stage.name}: dpo.max_length {stage.dpo.max_length} is above the model's {positions} positions"
        for stage in recipe.stages
        if positions and stage.dpo.max_length > positions
    ]
