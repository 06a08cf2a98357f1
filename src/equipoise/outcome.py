"""From item records to figures: comparisons, gates and the verdict.

Everything here is computed from score files alone, so that `equipoise verify` can compute it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from equipoise.evaluation.compare import compare
from equipoise.evaluation.noise import Noise, noise
from equipoise.recipe import Recipe, Stage
from equipoise.records import Comparison, Score, Split
from equipoise.run_folder import Run, read_scores

Scores = Mapping[str, list[Score]]


def only(scores: Scores, split: Split) -> dict[str, list[Score]]:
    """The scores of one split: gates look at `dev`, the verdict at `test`."""
    return {task: [score for score in records if score.split == split] for task, records in scores.items()}


def margins(recipe: Recipe, base: Scores) -> dict[str, float | None]:
    """Non-inferiority margin per domain: the task's own, else that of the last gate that holds it.

    A gate's percentage is taken of the base model's mean on the items of `base`; of a mean that is not above 0 there
    is none, and the domain has no margin.
    """
    found: dict[str, float | None] = dict.fromkeys(recipe.evaluation.tasks.chosen())
    for stage in recipe.stages:
        found |= {key: _in_points(margin, base.get(key, ())) for key, margin in stage.gate.hold.items() if key in found}
    own = {name: spec.margin for name, spec in recipe.evaluation.tasks.chosen().items() if spec.margin is not None}
    return {**found, **own}


def _in_points(margin: float | str, base: Sequence[Score]) -> float | None:
    if not isinstance(margin, str):
        return margin
    whole = mean([score.value for score in base if score.value is not None])
    return float(margin.removesuffix("%")) / 100 * whole if whole and whole > 0 else None


def noise_of(recipe: Recipe, measured: Sequence[Scores], split: Split | None = "test") -> dict[str, Noise]:
    """The instrument's noise by domain, from several measurements of the base model; nothing for fewer than two."""
    if len(measured) < 2:
        return {}
    sides = [only(scores, split) if split else dict(scores) for scores in measured]
    found = {
        name: noise([side[name] for side in sides], confidence=recipe.evaluation.confidence)
        for name in sides[0]
        if all(name in side for side in sides)
    }
    return {name: one for name, one in found.items() if one}


def noise_of_scores(measured: Sequence[Scores], *, confidence: float) -> dict[str, Any]:
    """noise.json of repeated measurements: {domain: {all | dev | test: what they say}}."""
    found: dict[str, Any] = {}
    for name in measured[0] if len(measured) > 1 else ():
        sides: dict[str, Sequence[Scores]] = {"all": measured}
        sides |= {side: [only(scores, side) for scores in measured] for side in ("dev", "test")}
        noises = {
            side: noise([scores[name] for scores in given], confidence=confidence) for side, given in sides.items()
        }
        found[name] = {side: one.record() for side, one in noises.items() if one}
    return found


def noise_in(recipe: Recipe, run: Run, base: Scores) -> dict[str, Noise]:
    """The same from the records of a run."""
    folders = sorted((run.folder / "repeats").glob("*"), key=lambda folder: int(folder.name))
    return noise_of(recipe, [base, *(read_scores(folder) for folder in folders)])


def compare_points(
    recipe: Recipe, base: Scores, after: Scores, found: Mapping[str, Noise] | None = None
) -> dict[str, Comparison]:
    """Base against a point on the test items, corrected for the number of domains.

    `found` is the noise of the instrument, by domain. Domains that could not be measured (see `unmeasured`) are left
    out.
    """
    left, right = only(base, "test"), only(after, "test")
    domains = [name for name in recipe.evaluation.tasks.chosen() if name not in unmeasured(left, right)]
    if not domains:
        return {}
    return compare(
        {name: left[name] for name in domains},
        {name: right[name] for name in domains},
        confidence=recipe.evaluation.confidence,
        margins=margins(recipe, left),
        seed=recipe.seed,
        noise={name: one.limit for name, one in (found or {}).items()},
        second_opinion=True,
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


def comparison_json(
    recipe: Recipe, points: Mapping[str, Scores], found: Mapping[str, Noise] | None = None
) -> dict[str, Any]:
    """comparison.json: {point: {domain: comparison}} for every point that was scored; `found` is the noise."""
    return {
        point: {domain: asdict(row) for domain, row in compare_points(recipe, points["base"], scores, found).items()}
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
    rows = comparisons.get(point, {})
    domains: dict[str, Any] = {domain: {field: row[field] for field in fields} for domain, row in rows.items()}
    for domain, row in rows.items():
        domains[domain] |= {"noise": row["noise"]} if row["noise"] is not None else {}
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
        "switched": mean([score.health.switched for score in records]),
        "words": mean([score.health.words for score in records]),
    }


def by_category(records: Sequence[Score]) -> dict[str, dict[str, Any]]:
    """Mean and count of the scored items of each category; an item of several (`a, b`) counts in each of them."""
    values: dict[str, list[float]] = {}
    for score in records:
        for name in score.category.split(", ") if score.value is not None and score.category else ():
            values.setdefault(name, []).append(score.value or 0.0)
    return {name: {"n": len(found), "mean": mean(found)} for name, found in sorted(values.items())}


def mean(values: Sequence[float]) -> float | None:
    """The mean, and None of nothing: nothing measured is not zero."""
    return math.fsum(values) / len(values) if values else None
