"""What the page shows of each domain: the verdict, its way over the stages, what stands behind the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from equipoise.records import Comparison
from equipoise.report import plots, words
from equipoise.report.figures import Concern, Figure, concerns
from equipoise.report.read import RunFiles
from equipoise.report.text import places_for


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
        mark = plots.Mark(name, row.difference, row.ci, row.verdict)
        border = None if row.margin is None else -row.margin
        places = places_for(row.ci)
        views.append(
            DomainView(
                name,
                row,
                f"{row.before:.{places}f}",
                f"{row.after:.{places}f}",
                words.domain_sentence(row, files.confidence),
                plots.interval(mark, border=border, border_name="hold margin"),
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
    """Mean scores of a category of questions."""

    name: str
    n: int
    before: str
    after: str
    plot: str


def categories(files: RunFiles) -> list[tuple[str, list[Category]]]:
    """For each domain whose questions have categories, the means before and after."""
    found = []
    for name in files.compared:
        values: dict[str, list[tuple[float, float]]] = {}
        for one, other in files.sides(name):
            if one.value is not None and other.value is not None:
                for category in one.category.split(", "):
                    values.setdefault(category, []).append((one.value, other.value))
        if len(values) < 2:
            continue
        found.append((name, _rows(values, places_for(files.compared[name].ci))))
    return found


def _rows(values: Mapping[str, Sequence[tuple[float, float]]], places: int) -> list[Category]:
    means = {key: tuple(sum(side) / len(both) for side in zip(*both, strict=True)) for key, both in values.items()}
    low, high = min(min(pair) for pair in means.values()), max(max(pair) for pair in means.values())
    return [
        Category(
            key or "(none)",
            len(values[key]),
            f"{before:.{places}f}",
            f"{after:.{places}f}",
            plots.dumbbell(before, after, low, high),
        )
        for key, (before, after) in sorted(means.items())
    ]
