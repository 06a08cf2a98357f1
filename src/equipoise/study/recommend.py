"""Which recipe to ship: feasible, on the front, best by the priority, and shown to be better than no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from equipoise.evaluation.stats_words import with_interval
from equipoise.recipe import Recipe
from equipoise.recipe_file import fingerprint, parse_recipe
from equipoise.recipe_text import recipe_text
from equipoise.records import InputError
from equipoise.study.evidence import Effect
from equipoise.study.leaderboard import Board, Row, overall_contrast

BALANCED = "balanced"


@dataclass(frozen=True)
class Recommendation:
    """`row` is what to ship; None: keep the base model, and `candidate` (if any) is what came nearest.

    `alike` are other feasible recipes that were not shown to differ from the choice by the priority.
    """

    priority: str
    row: Row | None
    candidate: Row | None
    alike: tuple[str, ...]
    why: tuple[str, ...]
    costs: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "priority": self.priority,
            "recommended": self.row.name if self.row else None,
            "candidate": self.candidate.name if self.candidate else None,
            "runs": [str(folder) for folder in self.row.entrant.folders] if self.row else [],
            "why": list(self.why),
            "costs": list(self.costs),
            "domains": {name: asdict(gain.effect) for name, gain in self.row.gains.items()} if self.row else {},
            "not_distinguishable": list(self.alike),
        }


def recommend(board: Board, priority: str = BALANCED) -> Recommendation:
    """Choose by `priority`: a domain, or `balanced`, the overall score.

    Of the feasible recipes on the front, the one with the largest gain; it is recommended only where that gain
    itself is shown. Raises InputError for a domain that these runs did not evaluate.
    """
    if priority != BALANCED and priority not in board.units:
        known = ", ".join([BALANCED, *board.units])
        raise InputError(f"--priority {priority}: these runs do not share such a domain; one of: {known}")
    chosen = max(
        (row for row in board.rows if row.on_front), key=lambda row: _gain(row, priority).difference, default=None
    )
    if chosen is None:
        return Recommendation(priority, None, None, (), tuple(_refusals(board)), ())
    shown = _gain(chosen, priority).ci[0] > 0
    alike = tuple(_alike(board, chosen, priority))
    why = _why(board, chosen, priority, shown, alike)
    return Recommendation(
        priority, chosen if shown else None, chosen, alike, tuple(why), tuple(_costs(board, chosen, priority))
    )


def _gain(row: Row, priority: str) -> Effect:
    return row.overall if priority == BALANCED else row.gains[priority].effect


def _what(priority: str) -> str:
    return "overall score (standard deviations of the base)" if priority == BALANCED else priority


def _why(board: Board, row: Row, priority: str, shown: bool, alike: tuple[str, ...]) -> list[str]:
    gain = _gain(row, priority)
    feasible = [other for other in board.rows if other.feasible]
    on_front = [other for other in feasible if other.on_front]
    said = [
        f"{len(feasible)} of {len(board.rows)} recipes are feasible: in no domain are they shown to be worse than the "
        f"base at {board.confidence:.0%} confidence",
        f"{len(on_front)} of these are on the front: no other feasible one is shown to be better",
        f"{row.name} has the largest gain of them in {_what(priority)}: "
        f"{with_interval(gain.difference, gain.ci, board.confidence)} over {_over(gain)}",
    ]
    if not shown:
        said.append("that interval holds 0: it is not shown to be better than the base model, which stays")
    if row.ranks and priority == BALANCED:
        said.append(
            f"rank 1 under {row.ranks.first:.0%} of all weightings of the domains "
            f"(90% of them give rank {row.ranks.low} to {row.ranks.high})"
        )
    said += _refusals(board)
    return said


def _over(gain: Effect) -> str:
    seeds = f"{gain.seeds} seeds" if gain.seeds > 1 else "one seed (another training may differ)"
    return f"{gain.n} questions and {seeds}"


def _refusals(board: Board) -> list[str]:
    return [f"not feasible: {row.name}, worse in {', '.join(row.worse)}" for row in board.rows if not row.feasible]


def _costs(board: Board, row: Row, priority: str) -> list[str]:
    """What the choice does in the other domains."""
    return [
        f"{name}: {with_interval(gain.effect.difference, gain.effect.ci, board.confidence)}: {gain.verdict}"
        for name, gain in row.gains.items()
        if name != priority
    ]


def _alike(board: Board, chosen: Row, priority: str) -> list[str]:
    """Feasible recipes that were not shown to have gained less than the choice."""
    found = []
    for row in board.rows:
        if row.name == chosen.name or not row.feasible:
            continue
        if priority == BALANCED:
            told_apart = overall_contrast(board, chosen, row).ci[0] > 0
        else:
            told_apart = priority in board.better.get((chosen.name, row.name), ())
        found += [] if told_apart else [row.name]
    return found


def ready_recipe(board: Board, recommendation: Recommendation) -> str:
    """Return the recommended recipe as a file that `equipoise run` takes, with the reasons on top.

    Raises InputError where nothing is recommended.
    """
    row = recommendation.row
    if row is None:
        raise InputError("--out: no recipe is recommended, so there is none to write; the base model stays")
    question = f"Is {row.name} as good again as when it was recommended (priority: {recommendation.priority})?"
    about = [*recommendation.why, *(f"costs: {text}" for text in recommendation.costs)]
    if recommendation.alike:
        about.append(f"not told apart from it: {', '.join(recommendation.alike)}")
    return _as_file(row.entrant.recipe, question, about)


def _as_file(recipe: Recipe, question: str, about: Sequence[str]) -> str:
    """A recipe as text: what differs from the defaults where that reads back as the same recipe, else every key."""
    for short in (True, False):
        text = recipe_text(recipe.model_dump(mode="json", exclude_defaults=short), question, about)
        try:
            if fingerprint(parse_recipe(text)) == fingerprint(recipe):
                return text
        except InputError:
            continue
    raise InputError(f"{recipe.name}: this recipe cannot be written as a file that reads back as itself")
