"""Scores of a model at one point: the base, or the base with adapters on top of each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.evaluation.evaluate import evaluate, task_version
from equipoise.model.adapters import attach, detach, stack_identity
from equipoise.model.generate import TransformersGenerator, instrument
from equipoise.model.load import Loaded, classifier_identity, default_device, load_policy, policy_identity
from equipoise.model.reward import VERSION as reward_version
from equipoise.model.reward import RewardModel
from equipoise.progress import Display, labelled
from equipoise.recipe import Recipe
from equipoise.recipe_evaluation import Evaluation
from equipoise.recipe_parts import ModelSpec, RewardSpec
from equipoise.records import Item, Score, content_id
from equipoise.store import Store

KIND = "base-scores"
GENERATORS = {"transformers": TransformersGenerator}
"""What can run a model, by its name in a recipe."""
Items = Mapping[str, Sequence[Item]]


def measure(
    policy: Loaded,
    stack: Sequence[Path],
    items: Items,
    reward: RewardModel | None,
    evaluation: Evaluation,
    *,
    thinking: bool,
    seed: int,
    store: Store,
    display: Display,
) -> dict[str, list[Score]]:
    """Generate and score with the adapters of `stack` on top of `policy`; leaves the policy without adapters."""
    generator = GENERATORS[evaluation.generation.backend](
        Loaded(attach(policy, stack), policy.tokenizer, policy.identity, policy.device),
        identity=stack_identity(policy, stack),
        batch_size=evaluation.generation.batch_size,
        store=store,
        thinking=thinking,
    )
    scores = evaluate(
        {name: list(task) for name, task in items.items()},
        generator,
        reward,
        generation=evaluation.generation,
        dev_share=evaluation.dev_share,
        seed=seed,
        thinking=thinking,
        progress=labelled(display),
    )
    detach(generator.loaded.model)
    return scores


def measure_model(
    model: ModelSpec,
    stack: Sequence[Path],
    items: Items,
    reward: RewardSpec | None,
    evaluation: Evaluation,
    *,
    seed: int,
    display: Display,
) -> dict[str, list[Score]]:
    """The same for a model that is not loaded yet."""
    store = Store()
    judge = load_reward(reward, store, display)
    policy, thinking = load_policy(model), model.thinking
    return measure(policy, stack, items, judge, evaluation, thinking=thinking, seed=seed, store=store, display=display)


def load_reward(spec: RewardSpec | None, store: Store, display: Display) -> RewardModel | None:
    """The reward model that a recipe names, its sanity checked before anything expensive."""
    if spec is None:
        return None
    reward = RewardModel(spec, store=store)
    reward.require_sanity()
    if not reward.calibration.calibrated:
        display.say("warning: the reward model has no calibration.json: its 0-10 values are only an order")
    return reward


def known_base_scores(recipe: Recipe, items: Items) -> dict[str, list[Score]] | None:
    """The stored scores of the base model, or None where it was not scored yet."""
    found = Store().get(KIND, _base_identity(recipe, items))
    if set(found) != set(items):
        return None
    return {name: [Score.from_record(record) for record in found[name]] for name in items}


def keep_base_scores(recipe: Recipe, items: Items, scores: Mapping[str, Sequence[Score]]) -> None:
    """Keep the base model's scores: computed once per model, items and settings, they cannot drift."""
    records = {name: [score.record() for score in scores[name]] for name in items}
    Store().put(KIND, _base_identity(recipe, items), records)


def _base_identity(recipe: Recipe, items: Items) -> str:
    """All that the base model's scores depend on, by content."""
    device = default_device()
    generation = recipe.evaluation.generation
    return content_id(
        [
            instrument(device),
            policy_identity(recipe.model, device),
            classifier_identity(recipe.reward, device) if recipe.reward else None,
            generation.model_dump(mode="json"),
            [recipe.evaluation.dev_share, recipe.seed, recipe.model.thinking, reward_version],
            {
                name: [task_version(name), [[item.id, item.content, item.group, item.category] for item in task]]
                for name, task in items.items()
            },
        ]
    )
