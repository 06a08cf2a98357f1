"""From item records to figures: comparisons, gates and the verdict.

Everything here is computed from score files alone, so that `equipoise verify` can compute it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from equipoise.evaluation.compare import compare
from equipoise.recipe import Recipe, Stage
from equipoise.records import Comparison, Score, Split

Scores = Mapping[str, list[Score]]


def only(scores: Scores, split: Split) -> dict[str, list[Score]]:
    """The scores of one split: gates look at `dev`, the verdict at `test`."""
    return {task: [score for score in records if score.split == split] for task, records in scores.items()}


def margins(recipe: Recipe) -> dict[str, float | None]:
    """Non-inferiority margin per domain: the task's own, else that of the last gate that holds it."""
    found: dict[str, float | None] = dict.fromkeys(recipe.evaluation.tasks.chosen())
    for stage in recipe.stages:
        found |= {key: margin for key, margin in stage.gate.hold.items() if key in found}
    own = {name: spec.margin for name, spec in recipe.evaluation.tasks.chosen().items() if spec.margin is not None}
    return {**found, **own}


def compare_points(recipe: Recipe, base: Scores, after: Scores) -> dict[str, Comparison]:
    """Base against a point on the test items, corrected for the number of domains."""
    return compare(
        only(base, "test"),
        only(after, "test"),
        confidence=recipe.evaluation.confidence,
        margins=margins(recipe),
        seed=recipe.seed,
    )


def comparison_json(recipe: Recipe, points: Mapping[str, Scores]) -> dict[str, Any]:
    """comparison.json: {point: {domain: comparison}} for every point that was scored."""
    return {
        point: {domain: asdict(row) for domain, row in compare_points(recipe, points["base"], scores).items()}
        for point, scores in points.items()
        if point != "base"
    }


def verdict_json(comparisons: Mapping[str, Any], gates: list[dict[str, Any]], kept: str) -> dict[str, Any]:
    """verdict.json: one entry per domain, the gates, and the point that was kept.

    Where no stage was kept the domains describe the last stage that was refused (`point` says which): that
    is the evidence, while `kept_stage` says that the base model stays.
    """
    point = kept if kept != "base" else max(comparisons, key=lambda name: int(name.partition("-")[0]), default="base")
    fields = ("before", "after", "difference", "ci", "p_holm", "n", "detectable", "verdict")
    domains = {domain: {field: row[field] for field in fields} for domain, row in comparisons.get(point, {}).items()}
    return {**domains, "gates": gates, "kept_stage": kept, "point": point}


def gate_before(stage: Stage, points: Mapping[str, Scores], kept: str) -> dict[str, list[Score]]:
    """The dev scores that a stage's gate compares with."""
    return only(points["base" if stage.gate.against == "base" else kept], "dev")
