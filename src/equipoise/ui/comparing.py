"""Two or more chosen runs, compared by the package's own functions: on the test items that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from equipoise import api
from equipoise.evaluation.stats_words import sentence
from equipoise.records import InputError
from equipoise.study.board_json import board_record
from equipoise.study.entrants import read_entrants
from equipoise.study.leaderboard import make_board

MOST = 40
"""Runs that are compared at a time: every pair of them is."""


@dataclass(frozen=True)
class Pair:
    """The first run against another: a row with interval for each domain; `sentences` say it in words."""

    first: str
    other: str
    rows: Sequence[Mapping[str, Any]]
    sentences: Sequence[str]


def compare_runs(chosen: Mapping[str, Path]) -> dict[str, Any]:
    """Return the `board` of the chosen runs (None with the `reason` where it cannot be had) and the `pairs`.

    Raises InputError for fewer than two runs or too many, one that is not finished, and runs that share no items.
    """
    if not 2 <= len(chosen) <= MOST:
        raise InputError(f"{len(chosen)} runs are chosen: choose 2 to {MOST} in the list")
    (first, place), *others = chosen.items()
    pairs = [_pair(first, place, other, folder) for other, folder in others]
    try:
        return {"board": board_record(make_board(read_entrants(list(chosen.values())))), "reason": "", "pairs": pairs}
    except InputError as error:
        return {"board": None, "reason": str(error), "pairs": pairs}


def _pair(first: str, place: Path, other: str, folder: Path) -> Pair:
    found = api.compare(place, folder, split="test")
    return Pair(first, other, [asdict(row) for row in found.values()], [sentence(row) for row in found.values()])
