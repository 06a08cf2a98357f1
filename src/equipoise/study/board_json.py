"""A leaderboard as JSON: what `--json` prints and the console shows."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from equipoise.study.leaderboard import Board, Row
from equipoise.study.overall import FORMULA


def board_record(board: Board) -> dict[str, Any]:
    """Return the table as JSON."""
    return {
        "split": board.entrants.split,
        "confidence": board.confidence,
        "formula": FORMULA,
        "domains": {
            name: {"items": len(domain.ids), "unit": board.units[name]}
            for name, domain in board.entrants.domains.items()
        },
        "rows": [_record(row) for row in board.rows],
        "tied_groups": [list(group) for group in board.groups],
        "shown_better": [
            {"better": one, "than": other, "in": list(domains)} for (one, other), domains in board.better.items()
        ],
        "notes": list(board.notes),
    }


def _record(row: Row) -> dict[str, Any]:
    one = row.entrant
    return {
        "name": row.name,
        "runs": [str(folder) for folder in one.folders],
        "seeds": list(one.seeds),
        "kept": list(one.kept),
        "feasible": row.feasible,
        "worse_in": list(row.worse),
        "on_front": row.on_front,
        "dominated_by": list(row.dominated_by),
        "letters": row.letters,
        "overall": asdict(row.overall) if row.overall else None,
        "ranks": asdict(row.ranks) if row.ranks else None,
        "domains": {
            name: {
                **asdict(gain.effect),
                "p_holm": gain.p_holm,
                "verdict": gain.verdict,
                "standardised": gain.standardised,
            }
            for name, gain in row.gains.items()
        },
    }
