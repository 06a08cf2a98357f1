"""Scores of the base model, kept in the store: computed once per model, items and settings, so they cannot drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from equipoise.model.load import default_device, folder_identity, model_folder
from equipoise.outcome import Scores
from equipoise.progress import Display
from equipoise.recipe import Recipe
from equipoise.records import Item, Score, content_id
from equipoise.store import Store

KIND = "base-scores"
Items = Mapping[str, Sequence[Item]]


def identity(recipe: Recipe, items: Items) -> str:
    """What the base model's scores depend on, all of it by content."""
    model = model_folder(recipe.model.id, recipe.model.revision, what="model.id")
    judge = recipe.reward and model_folder(recipe.reward.id, recipe.reward.revision, what="reward.id", embedded="reward")
    return content_id(
        [
            folder_identity(model),
            recipe.model.model_dump(mode="json", exclude={"id", "revision"}),
            judge and [folder_identity(judge), recipe.reward and recipe.reward.max_length],
            recipe.evaluation.generation.model_dump(mode="json"),
            [recipe.evaluation.dev_share, recipe.seed, default_device().type],
            {name: [[item.id, item.content, item.group, item.category] for item in task] for name, task in items.items()},
        ]
    )


def known_base_scores(recipe: Recipe, items: Items) -> dict[str, list[Score]] | None:
    """The stored scores of the base model, or None where it was not scored yet."""
    found = Store().get(KIND, identity(recipe, items))
    if set(found) != set(items):
        return None
    return {name: [Score.from_record(record) for record in found[name]] for name in items}


def keep_base_scores(recipe: Recipe, items: Items, scores: Scores) -> None:
    """Put the scores of the base model into the store."""
    Store().put(KIND, identity(recipe, items), {name: [score.record() for score in scores[name]] for name in items})


def measure_base_scores(recipe: Recipe, items: Items, display: Display) -> dict[str, list[Score]]:
    """Score the base model now, and keep the result."""
    from equipoise import api

    scores = api.evaluate(
        recipe.model, recipe.evaluation, reward=recipe.reward, seed=recipe.seed, display=display
    )
    keep_base_scores(recipe, items, scores)
    return scores
