"""The rows of verdict.json as comparisons, for a run whose comparison.json cannot be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from equipoise.evaluation.compare import health_figures
from equipoise.records import Comparison, Score
from equipoise.report import shape
from equipoise.report.reader import BAD


def rows_of(verdict: Mapping[str, Any]) -> dict[str, Comparison]:
    """Return the domains of a verdict that can be read.

    A verdict does not hold all of a comparison: margin, health and further figures are absent, and the p-value is the
    corrected one.
    """
    found = {}
    for name, row in verdict.items():
        if isinstance(row, dict) and "verdict" in row:
            told = {"unscored": 0, "margin": None, **row, "domain": name, "p_value": row.get("p_holm")}
            try:
                found[name] = shape.comparison(told)
            except BAD:
                continue
    return found


def completed(row: Comparison, sides: Sequence[tuple[Score, Score]]) -> Comparison:
    """Return the row with what the scores of both sides say beside it: health, further figures, lost scores."""
    if not sides:
        return row
    scored = [(one.value is not None, other.value is not None) for one, other in sides]
    lost = sum(before and not after for before, after in scored)
    unscored = sum(not (before and after) for before, after in scored)
    known = all(score.health is not shape.NO_HEALTH for pair in sides for score in pair)
    health = health_figures(sides) if known else {}
    return replace(row, lost=lost, unscored=unscored, health=health, metrics=_metrics(sides))


def _metrics(sides: Sequence[tuple[Score, Score]]) -> dict[str, tuple[float, float]]:
    values: dict[str, list[tuple[float, float]]] = {}
    for one, other in sides:
        for name in one.metrics.keys() & other.metrics.keys():
            values.setdefault(name, []).append((one.metrics[name], other.metrics[name]))
    return {name: (fmean(x for x, _ in both), fmean(y for _, y in both)) for name, both in sorted(values.items())}
