"""From item records to figures: comparisons, gates and the verdict.

Everything here is computed from score files alone, so that `equipoise verify` can compute it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    """Base against a point on the test items, corrected for the number of domains.

    Domains that could not be measured (see `unmeasured`) are left out.
    """
    left, right = only(base, "test"), only(after, "test")
    domains = [name for name in recipe.evaluation.tasks.chosen() if name not in unmeasured(left, right)]
    if not domains:
        return {}
    return compare(
        {name: left[name] for name in domains},
        {name: right[name] for name in domains},
        confidence=recipe.evaluation.confidence,
        margins=margins(recipe),
        seed=recipe.seed,
    )


def unmeasured(before: Scores, after: Scores) -> dict[str, str]:
    """Domains of which nothing can be said, with the reason: fewer than two groups with a score on both sides."""
    found = {}
    for name, records in sorted(before.items()):
        scored = {score.id for score in after.get(name, []) if score.value is not None}
        groups = {score.group for score in records if score.value is not None and score.id in scored}
        if len(groups) < 2:
            reasons = sorted({score.unscored for score in [*records, *after.get(name, [])] if score.unscored})
            found[name] = f"{len(groups)} groups scored before and after ({'; '.join(reasons) or 'no items'})"
    return found


def comparison_json(recipe: Recipe, points: Mapping[str, Scores]) -> dict[str, Any]:
    """comparison.json: {point: {domain: comparison}} for every point that was scored."""
    return {
        point: {domain: asdict(row) for domain, row in compare_points(recipe, points["base"], scores).items()}
        for point, scores in points.items()
        if point != "base"
    }


def verdict_json(
    comparisons: Mapping[str, Any], points: Mapping[str, Scores], gates: list[dict[str, Any]], kept: str
) -> dict[str, Any]:
    """verdict.json: one entry per domain, the gates, and the point that was kept.

    Where no stage was kept the domains describe the last stage that was refused (`point` says which): that
    is the evidence, while `kept_stage` says that the base model stays.
    """
    point = kept if kept != "base" else max(comparisons, key=lambda name: int(name.partition("-")[0]), default="base")
    fields = ("before", "after", "difference", "ci", "p_holm", "n", "detectable", "verdict")
    domains = {domain: {field: row[field] for field in fields} for domain, row in comparisons.get(point, {}).items()}
    left_out = unmeasured(only(points["base"], "test"), only(points[point], "test"))
    return {**domains, "gates": gates, "kept_stage": kept, "point": point, "unmeasured": left_out}


def gate_before(stage: Stage, points: Mapping[str, Scores], kept: str) -> dict[str, list[Score]]:
    """The dev scores that a stage's gate compares with."""
    return only(points["base" if stage.gate.against == "base" else kept], "dev")


def summary(records: Sequence[Score]) -> dict[str, Any]:
    """Figures of one task at one point: the mean value, further figures and health, with the counts behind them."""
    values = [score.value for score in records if score.value is not None]
    metrics = sorted({name for score in records for name in score.metrics})
    return {
        "n": len(values),
        "unscored": len(records) - len(values),
        "mean": mean(values),
        **{name: mean([score.metrics[name] for score in records if name in score.metrics]) for name in metrics},
        "empty": mean([score.health.empty for score in records]),
        "cut_off": mean([score.health.cut_off for score in records]),
        "repeated": mean([score.health.repeated for score in records]),
        "words": mean([score.health.words for score in records]),
    }


def mean(values: Sequence[float]) -> float | None:
    """The mean, and None of nothing: nothing measured is not zero."""
    return math.fsum(values) / len(values) if values else None
