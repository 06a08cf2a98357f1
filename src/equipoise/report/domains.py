"""What the page shows of each domain: the verdict, its way over the stages, what stands behind the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from equipoise.evaluation import stats
from equipoise.records import Comparison, Score
from equipoise.report import plots, plots_change, verdict
from equipoise.report.figures import Concern, Figure, concerns
from equipoise.report.read import RunFiles
from equipoise.report.text import places_for, shorten, signed

_NAME = 120
"""A longer name of a category is cut."""


@dataclass(frozen=True)
class DomainView:
    """A domain on the first screen."""

    name: str
    row: Comparison
    before: str
    after: str
    sentence: str
    plot: str
    concerns: list[Concern]


def domains(files: RunFiles, known: Mapping[str, Sequence[Figure]]) -> list[DomainView]:
    """The domains of the verdict."""
    views = []
    for name, row in files.compared.items():
        places = places_for(row.ci)
        views.append(
            DomainView(
                name,
                row,
                f"{row.before:.{places}f}",
                f"{row.after:.{places}f}",
                verdict.domain_sentence(row, files.confidence),
                plots_change.before_after(row),
                concerns(row, known.get(name, [])),
            )
        )
    return views


def paths(files: RunFiles) -> list[tuple[str, str]]:
    """For each domain the differences from the base after every stage, where there is more than one."""
    if len(files.comparisons) < 2:
        return []
    refused = {stage.point for stage in files.stages if stage.gate is not None and not stage.kept}
    found = []
    for name in files.domains:
        at = {point: rows[name] for point, rows in files.comparisons.items() if name in rows}
        marks = [
            plots.Mark(_point_name(point, point in refused), row.difference, row.ci, row.verdict)
            for point, row in at.items()
        ]
        margin = next((row.margin for row in at.values()), None)
        found.append((name, plots.path(marks, margin=margin, title=f"{name}: difference from the base by stage")))
    return found


def _point_name(point: str, refused: bool) -> str:
    number = point.partition("-")[0]
    return f"{number} refused" if refused else number


@dataclass(frozen=True)
class Category:
    """Mean scores of a category of questions; `change` has an interval where there are enough of them."""

    name: str
    n: int
    before: str
    after: str
    change: str
    plot: str


def categories(files: RunFiles) -> list[tuple[str, list[Category]]]:
    """For each domain whose questions have categories, the means before and after."""
    found = []
    for name in files.compared:
        by_name: dict[str, list[tuple[Score, Score]]] = {}
        for one, other in files.sides(name):
            if one.value is not None and other.value is not None:
                for category in one.category.split(", "):
                    by_name.setdefault(category, []).append((one, other))
        if len(by_name) > 1:
            found.append((name, _rows(files, by_name, places_for(files.compared[name].ci))))
    return found


def _rows(files: RunFiles, by_name: Mapping[str, Sequence[tuple[Score, Score]]], places: int) -> list[Category]:
    sides = {
        key: ([one.value or 0.0 for one, _ in both], [other.value or 0.0 for _, other in both])
        for key, both in sorted(by_name.items())
    }
    means = {key: (fmean(before), fmean(after)) for key, (before, after) in sides.items()}
    low, high = min(min(pair) for pair in means.values()), max(max(pair) for pair in means.values())
    return [
        Category(
            shorten(key, _NAME)[0] or "(none)",
            len(before),
            f"{means[key][0]:.{places}f}",
            f"{means[key][1]:.{places}f}",
            _change(before, after, [one.group for one, _ in by_name[key]], files),
            plots.dumbbell(*means[key], low, high),
        )
        for key, (before, after) in sides.items()
    ]


def _change(before: Sequence[float], after: Sequence[float], groups: Sequence[str], files: RunFiles) -> str:
    try:
        result = stats.paired(before, after, clusters=groups, seed=files.seed, confidence=files.confidence)
    except ValueError:  # too few questions for an interval
        return f"{fmean(after) - fmean(before):+.3g}"
    places = places_for(result.ci)
    low, high = (signed(end, places) for end in result.ci)
    return f"{signed(result.difference, places)} ({low} to {high})"
