"""All recipes against each other: the feasible ones first, then the front, then one score over all domains.

Nothing here is decided by a mean alone: a recipe is refused, or beaten, only where that is shown at the stated
confidence on the items that all runs share. docs/studies.md says what each figure means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from equipoise.study import overall as scoring
from equipoise.study import pareto
from equipoise.study.entrants import Entrant, Entrants
from equipoise.study.evidence import Effect, matched
from equipoise.study.gains import Gain, compare_all, gains_of, lost


@dataclass(frozen=True)
class Row:
    """A recipe in the table; `dominated_by` are feasible recipes that are shown to be better.

    `overall` is None where no domain has a unit: there is no overall score then, and there are no ranks.
    """

    entrant: Entrant
    gains: Mapping[str, Gain]
    worse: tuple[str, ...]
    dominated_by: tuple[str, ...]
    letters: str
    overall: Effect | None
    ranks: scoring.Ranks | None

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.entrant.name

    @property
    def feasible(self) -> bool:
        """Whether no domain is shown to be worse than the base, and in none many answers lost their score."""
        return not self.worse

    @property
    def on_front(self) -> bool:
        """Whether it is feasible, and no feasible recipe is shown to be better."""
        return self.feasible and not self.dominated_by


@dataclass(frozen=True)
class Board:
    """The whole table: on the front first, then other feasible recipes, then the rest; each by overall score."""

    rows: tuple[Row, ...]
    entrants: Entrants
    units: Mapping[str, float]
    confidence: float
    better: pareto.Shown
    groups: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def row(self, name: str) -> Row:
        """The row of a recipe."""
        return next(row for row in self.rows if row.name == name)


def make_board(entrants: Entrants, *, confidence: float = 0.95) -> Board:
    """Compute the table; raises InputError where a domain has too few scored items to say anything."""
    units = {name: _unit(entrants, name) for name in entrants.domains}
    gains = {one.name: gains_of(one, entrants, units, confidence) for one in entrants.rows}
    better, worse = compare_all(entrants, confidence)
    losses = {
        one.name: tuple(name for name, gain in gains[one.name].items() if gain.verdict == "worse" or lost(one, name))
        for one in entrants.rows
    }
    feasible = [one.name for one in entrants.rows if not losses[one.name]]
    dominated = pareto.front(feasible, better, worse)
    scores = {one.name: _overall(one, entrants, units, confidence) for one in entrants.rows}
    standardised = {name: [gain.standardised for gain in gains[name].values()] for name in feasible}
    ranked = scoring.ranks({name: [z for z in found if z is not None] for name, found in standardised.items()})
    means = {name: found.difference if found else 0.0 for name, found in scores.items()}
    order = sorted(
        (one.name for one in entrants.rows),
        key=lambda name: (name not in feasible, bool(dominated.get(name)), -means[name], name),
    )
    groups = pareto.tied_groups(order, better)
    letters = pareto.letters(order, groups)
    by_name = {one.name: one for one in entrants.rows}
    rows = tuple(
        Row(
            entrant=by_name[name],
            gains=gains[name],
            worse=losses[name],
            dominated_by=tuple(dominated.get(name, ())),
            letters=letters[name],
            overall=scores[name],
            ranks=ranked.get(name),
        )
        for name in order
    )
    notes = [*entrants.notes, *_notes(entrants, units)]
    if not groups:
        notes.append(f"over {pareto.MOST_GROUPS} groups of recipes were not told apart: no letters are given")
    return Board(rows, entrants, units, confidence, better, tuple(map(tuple, groups)), tuple(notes))


def _unit(entrants: Entrants, domain: str) -> float:
    """The unit of a domain; where recipes start from several base models, the mean of their units."""
    found = [scoring.unit(domain, one.before[domain]) for one in entrants.rows]
    return sum(found) / len(found)


def _overall(one: Entrant, entrants: Entrants, units: Mapping[str, float], confidence: float) -> Effect | None:
    gains = {name: one.after[name] - one.before[name] for name in entrants.domains}
    groups = {name: domain.groups for name, domain in entrants.domains.items()}
    return scoring.overall(gains, units, groups, confidence) if any(units.values()) else None


def overall_contrast(board: Board, one: Row, other: Row) -> Effect | None:
    """How far the overall score of `one` is above that of `other`; None where there is no overall score."""
    gains = {}
    for name in board.entrants.domains:
        left, right = matched(one.entrant.side(name), other.entrant.side(name))
        gains[name] = (left.after - left.before) - (right.after - right.before)
    groups = {name: domain.groups for name, domain in board.entrants.domains.items()}
    return scoring.overall(gains, board.units, groups, board.confidence) if any(board.units.values()) else None


def _notes(entrants: Entrants, units: Mapping[str, float]) -> list[str]:
    notes = [
        f"{name}: all scores of the base are equal; the domain has no part in the overall score"
        for name, unit in units.items()
        if unit == 0
    ]
    if not any(units.values()):
        notes = ["in no domain do the base's scores differ between items: there is no overall score, and no ranks"]
    count = len(entrants.rows)
    if count > 2:
        pairs = count * (count - 1) // 2
        notes.append(
            f"front and letters are corrected for {pairs * len(units)} comparisons ({pairs} pairs of recipes, "
            f"{len(units)} {'domain' if len(units) == 1 else 'domains'}): --versus NAME, and fewer recipes in one "
            "leaderboard, see smaller differences"
        )
    single = [one.name for one in entrants.rows if len(one.seeds) == 1]
    if single:
        notes.append(f"one seed only, so intervals cover questions and not training: {', '.join(single)}")
    notes += [
        f"{one.name}: {name}: {lost(one, name):.0%} of the answers lost their score, which counts as worse"
        for one in entrants.rows
        for name in entrants.domains
        if lost(one, name)
    ]
    mixed = {one.name: set(one.kept) for one in entrants.rows if len(set(one.kept)) > 1}
    notes += [f"{name}: seeds ended at different points: {', '.join(sorted(points))}" for name, points in mixed.items()]
    return notes
