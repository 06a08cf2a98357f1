"""The leaderboard, the recommendations and the plots of the study page, as its templates show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from equipoise.report import plots_study as plots
from equipoise.report.plots_study import Reach, Spot
from equipoise.report.study_read import StudyRun
from equipoise.report.study_settings import Setting, settings
from equipoise.report.text import listed, places_for, signed
from equipoise.study.evidence import Effect
from equipoise.study.leaderboard import Board, Row
from equipoise.study.recommend import BALANCED, Recommendation, gain_of, recommend

SHOWN = 12
"""So many settings have a plot; the others are named."""
LETTERS = 4
"""So many letters of ties are shown of a recipe."""
NAMED = 6
"""So many names stand in a sentence; the others are counted."""


@dataclass(frozen=True)
class Cell:
    """A recipe in a domain."""

    verdict: str
    gain: str
    interval: str


@dataclass(frozen=True)
class TableRow:
    """A recipe in the leaderboard; the figures of `overall` are empty where there is no overall score."""

    number: int
    name: str
    kind: str
    standing: str
    overall: str
    interval: str
    plot: str
    letters: str
    alike: int
    rank: str
    ranks: str
    cells: list[Cell]
    runs: int
    seconds: float | None


@dataclass(frozen=True)
class Advice:
    """What to ship by one priority; `nearest` is what came nearest where that is the base model."""

    priority: str
    ship: str
    nearest: str
    gain: str
    condition: str
    alike: tuple[str, ...]
    shown: bool


@dataclass(frozen=True)
class Effects:
    """A setting with its plot."""

    setting: Setting
    plot: str


def reach(effect: Effect) -> Reach:
    """An effect as plots take it."""
    return (effect.difference, *effect.ci)


def said(effect: Effect) -> tuple[str, str]:
    """An effect in figures, and its interval, with as many decimals as it can bear."""
    places = places_for(effect.ci)
    low, high = (signed(end, places) for end in effect.ci)
    return signed(effect.difference, places), f"{low} to {high}"


def kind(row: Row) -> str:
    """`front`, `feasible` or `worse`."""
    return "front" if row.on_front else "feasible" if row.feasible else "worse"


def table(board: Board, runs: Sequence[StudyRun]) -> list[TableRow]:
    """The leaderboard in its order."""
    seconds = {run.folder: run.seconds for run in runs}
    scale = plots.axis([reach(row.overall) for row in board.rows if row.overall], 4.0, 154.0)
    apart: dict[str, set[str]] = {row.name: set() for row in board.rows}
    for one, other in board.better:
        apart[one].add(other)
        apart[other].add(one)
    return [_row(board, number, row, len(apart[row.name]), seconds, scale) for number, row in enumerate(board.rows)]


def _row(
    board: Board, number: int, row: Row, apart: int, seconds: Mapping[Path, float | None], scale: plots.Axis
) -> TableRow:
    overall, interval = said(row.overall) if row.overall else ("", "")
    plot = f"{row.name}: {overall}, interval {interval}"
    times = [seconds.get(folder) for folder in row.entrant.folders]
    known = [value for value in times if value is not None]
    few = len(row.letters) <= LETTERS
    return TableRow(
        number=number,
        name=row.name,
        kind=kind(row),
        standing=_standing(row),
        overall=overall,
        interval=interval,
        plot=plots.forest(reach(row.overall), scale, plot) if row.overall else "",
        letters=row.letters if few else f"{row.letters[:LETTERS]}…",
        alike=len(board.rows) - 1 - apart,
        rank=str(row.ranks.rank) if row.ranks else "",
        ranks=f"{row.ranks.low} to {row.ranks.high}" if row.ranks else "",
        cells=[Cell(gain.verdict, *said(gain.effect)) for gain in row.gains.values()],
        runs=len(row.entrant.seeds),
        seconds=sum(known) if len(known) == len(times) else None,
    )


def _standing(row: Row) -> str:
    if not row.feasible:
        return f"worse in {listed(row.worse)}"
    return f"below {few(row.dominated_by, 2)}" if row.dominated_by else ""


def few(names: Sequence[str], most: int = NAMED) -> str:
    """The first names, and how many more there are."""
    more = [f"{len(names) - most} more"] if len(names) > most else []
    return listed([*names[:most], *more])


def advice(board: Board) -> list[tuple[Advice, Recommendation]]:
    """What to ship, balanced first, then by each domain."""
    found = []
    for priority in (BALANCED, *board.units):
        one = recommend(board, priority)
        chosen = one.row or one.candidate
        effect = gain_of(chosen, priority) if chosen else None
        advised = Advice(
            priority=priority,
            ship=one.row.name if one.row else "the base model",
            nearest=chosen.name if chosen and not one.row else "",
            gain="{} ({})".format(*said(effect)) if effect else "",
            condition=one.condition,
            alike=one.alike,
            shown=one.row is not None,
        )
        found.append((advised, one))
    return found


def hover(board: Board) -> list[str]:
    """What every mark of a recipe says."""
    return [
        "\n".join(
            [
                f"{row.name}: {_standing(row) or 'on the front'}",
                *(["overall {} ({})".format(*said(row.overall))] if row.overall else []),
                *("{}: {} ({}), {}".format(name, *said(gain.effect), gain.verdict) for name, gain in row.gains.items()),
            ]
        )
        for row in board.rows
    ]


def front_plot(board: Board) -> str:
    """The first two domains against each other; nothing where there is one alone."""
    names = list(board.units)
    if len(names) < 2:
        return ""
    texts = hover(board)
    spots = [
        Spot(number, texts[number], kind(row), *(reach(row.gains[name].effect) for name in names[:2]))
        for number, row in enumerate(board.rows)
    ]
    return plots.front(spots, (names[0], names[1]), edge([(s.x[0], s.y[0]) for s in spots if s.kind != "worse"]))


def edge(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other one reaches in both figures, from left to right."""
    found: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found[::-1]


def parallel_plot(board: Board) -> str:
    """All domains beside each other, in standard deviations of the base; domains without a unit are left out."""
    names = [name for name, unit in board.units.items() if unit > 0]
    texts = hover(board)
    rows = [
        (number, texts[number], kind(row), [row.gains[name].standardised or 0.0 for name in names])
        for number, row in enumerate(board.rows)
    ]
    return plots.parallel(names, rows[::-1]) if len(names) > 1 else ""


def effects(board: Board) -> tuple[list[Effects], list[Setting]]:
    """Settings that differ with their plots, and those without one.

    The plots show the overall score by value; where there is none, the gain in the first domain.
    """
    found = settings([row.entrant.recipe for row in board.rows])
    texts = hover(board)
    return [Effects(one, _effect(board, one, texts)) for one in found[:SHOWN]], found[SHOWN:]


def _first(row: Row) -> Effect:
    return row.overall or next(iter(row.gains.values())).effect


def _effect(board: Board, setting: Setting, texts: Sequence[str]) -> str:
    scale: plots.Axis | None = None
    ticks: list[tuple[float, str]] = []
    if setting.numbers is not None:
        scale, where, ticks = plots.effect_scale(setting.numbers, setting.logarithmic)
    else:
        where = [float(setting.places.index(value)) for value in setting.values]
    spots = [
        Spot(number, f"{setting.key}: {value}\n{text}", kind(row), (x, x, x), reach(_first(row)))
        for number, (row, value, text, x) in enumerate(zip(board.rows, setting.values, texts, where, strict=True))
    ]
    return plots.effect(f"Gain by {setting.key}", spots, setting.places, scale, ticks, setting.only)
