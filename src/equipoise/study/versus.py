"""Every recipe against one of them: how much more it gained, domain by domain and in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from equipoise.evaluation.stats import holm
from equipoise.records import InputError
from equipoise.study.evidence import Effect, contrast
from equipoise.study.leaderboard import Board, overall_contrast


@dataclass(frozen=True)
class Difference:
    """How much more a recipe gained than another one; `p_holm` is corrected for the domains.

    `overall` is None where there is no overall score.
    """

    name: str
    domains: Mapping[str, Effect]
    p_holm: Mapping[str, float]
    overall: Effect | None


def versus(board: Board, name: str) -> list[Difference]:
    """Return the difference of every other recipe to `name`, in the order of the board.

    Runs of the same seed are compared, on the same items. Raises InputError where no recipe has this name.
    """
    known = [row.name for row in board.rows]
    if name not in known:
        raise InputError(f"--versus {name}: no such recipe here; there are {', '.join(known)}")
    against = board.row(name)
    found = []
    for row in board.rows:
        if row is against:
            continue
        domains = {
            domain: contrast(row.entrant.side(domain), against.entrant.side(domain), facts.groups, board.confidence)
            for domain, facts in board.entrants.domains.items()
        }
        corrected = holm({domain: effect.p_value for domain, effect in domains.items()})
        found.append(Difference(row.name, domains, corrected, overall_contrast(board, row, against)))
    return found


def versus_record(differences: list[Difference], name: str) -> dict[str, Any]:
    """Return the differences as JSON."""
    return {
        "to": name,
        "rows": [
            {
                "name": one.name,
                "overall": asdict(one.overall) if one.overall else None,
                "domains": {
                    domain: {**asdict(effect), "p_holm": one.p_holm[domain]} for domain, effect in one.domains.items()
                },
            }
            for one in differences
        ],
    }
