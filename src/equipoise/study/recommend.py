"""Which recipe to ship: feasible, on the front, best by the priority, and shown to be better than no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from equipoise.evaluation.stats_words import decimals, with_interval
from equipoise.recipe import Recipe
from equipoise.recipe_file import fingerprint, parse_recipe
from equipoise.recipe_text import recipe_text
from equipoise.records import InputError
from equipoise.study.evidence import Effect
from equipoise.study.gains import lost
from equipoise.study.leaderboard import Board, Row, overall_contrast

BALANCED = "balanced"
NO_OVERALL = "in no domain do the base's scores differ between items: there is no overall score to choose by"


@dataclass(frozen=True)
class Recommendation:
    """`row` is what to ship; None: keep the base model, and `candidate` (if any) is what came nearest.

    `alike` are other feasible recipes that were not shown to differ from the choice by the priority. `losses` are the
    undecided domains of `row` with the largest loss that the interval leaves open, `without_adapter` those of its runs
    whose kept adapter is not there any more.
    """

    priority: str
    row: Row | None
    candidate: Row | None
    alike: tuple[str, ...]
    why: tuple[str, ...]
    costs: tuple[str, ...]
    losses: Mapping[str, float] = field(default_factory=dict)
    without_adapter: tuple[str, ...] = ()

    @property
    def condition(self) -> str:
        """What who ships it accepts, as "if a possible loss in reddit (up to 0.9) is acceptable"; empty: nothing."""
        if not self.row or not self.losses:
            return ""
        ends = {name: self.row.gains[name].effect.ci for name in self.losses}
        said = [f"{name} (up to {loss:.{decimals(ends[name])}f})" for name, loss in self.losses.items()]
        listed = " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)
        return f"if a possible loss in {listed} is acceptable"

    @property
    def heading(self) -> str:
        """What `costs` are."""
        return "by domain" if self.priority == BALANCED else "in the other domains"

    def record(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "priority": self.priority,
            "recommended": self.row.name if self.row else None,
            "candidate": self.candidate.name if self.candidate else None,
            "runs": [str(folder) for folder in self.row.entrant.folders] if self.row else [],
            "condition": self.condition,
            "possible_losses": dict(self.losses),
            "without_adapter": list(self.without_adapter),
            "why": list(self.why),
            "costs_are": self.heading,
            "costs": list(self.costs),
            "domains": {name: asdict(gain.effect) for name, gain in self.row.gains.items()} if self.row else {},
            "not_distinguishable": list(self.alike),
        }


def recommend(board: Board, priority: str = BALANCED) -> Recommendation:
    """Choose by `priority`: a domain, or `balanced`, the overall score.

    Of the feasible recipes on the front whose gain is shown, the one with the largest. A domain's gain is shown where
    its verdict is `improved`, the overall score where its interval lies above 0. Where none is shown nothing is
    recommended. Raises InputError for a domain that these runs did not evaluate.
    """
    if priority != BALANCED and priority not in board.units:
        known = ", ".join([BALANCED, *board.units])
        raise InputError(f"--priority {priority}: these runs do not share such a domain; one of: {known}")
    gains = {row.name: gain for row in board.rows if row.on_front and (gain := gain_of(row, priority))}
    if not gains:
        missing = [] if any(board.units.values()) else [f"{NO_OVERALL}; name a domain with --priority"]
        return Recommendation(priority, None, None, (), (*missing, *_refusals(board)), ())
    best = max(gains, key=lambda name: (_shown(board.row(name), priority), gains[name].difference))
    chosen = board.row(best)
    shown = _shown(chosen, priority)
    return Recommendation(
        priority,
        chosen if shown else None,
        chosen,
        tuple(_alike(board, chosen, priority)),
        tuple(_why(board, chosen, priority, gains)),
        tuple(_costs(board, chosen, priority)),
        _losses(chosen) if shown else {},
        tuple(_without_adapter(chosen)) if shown else (),
    )


def gain_of(row: Row, priority: str) -> Effect | None:
    """The gain that a priority looks at; None where there is no overall score."""
    return row.overall if priority == BALANCED else row.gains[priority].effect


def _shown(row: Row, priority: str) -> bool:
    if priority == BALANCED:
        return row.overall is not None and row.overall.ci[0] > 0
    return row.gains[priority].verdict == "improved"


def _losses(row: Row) -> dict[str, float]:
    undecided = {name: gain.effect.ci[0] for name, gain in row.gains.items() if gain.verdict == "undecided"}
    return {name: -low for name, low in undecided.items() if low < 0}


def _without_adapter(row: Row) -> list[str]:
    """Its runs that kept a stage whose adapter is not there."""
    kept = zip(row.entrant.folders, row.entrant.kept, strict=True)
    adapters = {folder: folder / "stages" / stage / "adapter" for folder, stage in kept if stage != "base"}
    return [str(folder) for folder, adapter in adapters.items() if not any(adapter.rglob("adapter_config.json"))]


def _what(priority: str) -> str:
    return "overall score (standard deviations of the base)" if priority == BALANCED else priority


def _why(board: Board, row: Row, priority: str, gains: Mapping[str, Effect]) -> list[str]:
    gain = gains[row.name]
    larger = any(other.difference > gain.difference for other in gains.values())
    feasible = [other for other in board.rows if other.feasible]
    on_front = [other for other in feasible if other.on_front]
    said = [
        f"{len(feasible)} of {len(board.rows)} recipes are feasible: in no domain are they shown to be worse than the "
        f"base at {board.confidence:.0%} confidence",
        f"{len(on_front)} of these are on the front: no other feasible one is shown to be better",
        f"{row.name} has the largest {'gain that is shown' if larger else 'gain'} of them in {_what(priority)}: "
        f"{with_interval(gain.difference, gain.ci, board.confidence)} over {_over(gain)}",
    ]
    if not _shown(row, priority):
        unshown = "that interval is not above 0" if priority == BALANCED else _undecided(board, row, priority)
        said.append(f"{unshown}: it is not shown to be better than the base model, which stays")
    if row.ranks and priority == BALANCED:
        said.append(
            f"rank 1 under {row.ranks.first:.0%} of all weightings of the domains "
            f"(90% of them give rank {row.ranks.low} to {row.ranks.high})"
        )
    said += _refusals(board)
    return said


def _undecided(board: Board, row: Row, domain: str) -> str:
    """Why a gain in a domain is not shown."""
    gain = row.gains[domain]
    if gain.effect.ci[0] <= 0:
        why = "the interval is not above 0"
    elif gain.p_holm >= 1 - board.confidence:
        why = f"alone p = {gain.effect.p_value:.2g}, corrected for the number of domains {gain.p_holm:.2g}"
    elif lost(row.entrant, domain):
        why = "many answers lost their score"
    else:
        why = f"measuring the unchanged model again moves it by up to {row.entrant.noise[domain]:.2g}"
    return f"its verdict there is {gain.verdict} ({why})"


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
            apart = overall_contrast(board, chosen, row)
            told_apart = apart is not None and apart.ci[0] > 0
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
    about = [*recommendation.why, *(f"{recommendation.heading}: {text}" for text in recommendation.costs)]
    if recommendation.condition:
        about.append(f"ship it {recommendation.condition}")
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
