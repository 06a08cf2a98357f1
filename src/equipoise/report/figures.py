"""What stands behind a score: further metrics and health of the same answers, each with its interval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from equipoise.evaluation import stats
from equipoise.records import Comparison, Score
from equipoise.report.read import RunFiles
from equipoise.report.shape import NO_HEALTH
from equipoise.report.text import percent, places_for, signed

NOTICED = 0.01
"""A figure that moves by less than this for the worse, or a share by less than a point, is not mentioned."""
LONGER = 1.5
"""Answers that grew by this factor are mentioned beside a better score."""

State = Literal["", "worse", "unclear"]
HEALTH = {
    "empty": "empty answers",
    "cut_off": "cut-off answers",
    "repeated": "repeated text",
    "switched": "answers in another language",
}


@dataclass(frozen=True)
class Figure:
    """A figure of a domain before and after.

    `state`: it is worse and its interval excludes zero; worse on these items but inside the noise; or neither.
    """

    key: str
    name: str
    before: str
    after: str
    change: str
    state: State


@dataclass(frozen=True)
class Concern:
    """What became worse in the answers beside a score; `clear` where the interval excludes zero."""

    said: str
    clear: bool


def figures(files: RunFiles) -> dict[str, list[Figure]]:
    """For each compared domain its score, its further metrics and the health of its answers."""
    return {name: _figures(files, name, row) for name, row in files.compared.items()}


def _figures(files: RunFiles, name: str, row: Comparison) -> list[Figure]:
    places, sides = places_for(row.ci), files.sides(name)
    change = _said(row.difference, row.ci)
    state: State = "worse" if row.verdict == "worse" else ""
    found = [Figure("score", "score", f"{row.before:.{places}f}", f"{row.after:.{places}f}", change, state)]
    for metric, (before, after) in row.metrics.items():
        change, state = _change(files, sides, partial(_metric, metric), after - before, down=True)
        found.append(Figure(metric, metric, f"{before:.3g}", f"{after:.3g}", change, state))
    for key, title in HEALTH.items():
        if key not in row.health:  # written by another version: not known, which is not zero
            continue
        before, after = row.health[key]
        change, state = _change(files, sides, partial(_health, key), after - before, down=False)
        found.append(Figure(key, title, percent(before), percent(after), change, state))
    if "length" not in row.health:
        return found
    before, after = row.health["length"]
    times = after / before if before else 1.0
    state = "worse" if times >= LONGER and row.verdict == "improved" else ""
    return [*found, Figure("length", "words per answer", f"{before:.1f}", f"{after:.1f}", f"{times:.2f} times", state)]


def _metric(name: str, score: Score) -> float | None:
    return score.metrics.get(name)


def _health(name: str, score: Score) -> float | None:
    return None if score.health is NO_HEALTH else float(getattr(score.health, name))


def _change(
    files: RunFiles,
    sides: Sequence[tuple[Score, Score]],
    value: Callable[[Score], float | None],
    difference: float,
    *,
    down: bool,
) -> tuple[str, State]:
    """The change with its interval, and whether it is one for the worse; without enough items the change alone."""
    if difference == 0:
        return "none", ""
    both = [(one, value(one), value(other)) for one, other in sides]
    rows = [(score.group, float(x), float(y)) for score, x, y in both if x is not None and y is not None]
    loss = -difference if down else difference
    unclear: State = "unclear" if loss >= NOTICED else ""
    try:
        result = stats.paired(
            [x for _, x, _ in rows],
            [y for _, _, y in rows],
            clusters=[group for group, _, _ in rows],
            seed=files.seed,
            confidence=files.confidence,
        )
    except ValueError:  # too few items for an interval
        return f"{difference:+.4g}", unclear
    clear = result.ci[1] < 0 if down else result.ci[0] > 0
    scale = 1 if down else 100  # shares of answers are shown in percent, so they change in points
    low, high = (scale * end for end in result.ci)
    said = _said(scale * result.difference, (low, high)) + ("" if down else " points")
    return said, "worse" if clear else unclear


def _said(difference: float, ci: tuple[float, float]) -> str:
    places = places_for(ci)
    low, high = (signed(end, places) for end in ci)
    return f"{signed(difference, places)} ({low} to {high})"


def concerns(row: Comparison, known: Sequence[Figure]) -> list[Concern]:
    """What speaks against the score: everything where it improved, else only what is clear."""
    found = []
    for figure in known:
        if figure.key == "length" and figure.state:
            found.append(Concern(f"answers became {figure.change.replace(' times', '')} times as long", True))
        elif figure.key in ("correct", *HEALTH) and figure.state:
            fell = figure.key == "correct"
            verb = "fell" if fell else "rose"
            noise = "" if figure.state == "worse" else " (inside the noise)"
            name = "correctness" if fell else figure.name
            found.append(Concern(f"{name} {verb} from {figure.before} to {figure.after}{noise}", not noise))
    return found if row.verdict == "improved" else [concern for concern in found if concern.clear]
