"""The winner of a search: chosen on dev items by the rule of `recommend`, reported on test items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equipoise.study.board_json import board_record
from equipoise.study.entrants import read_entrants
from equipoise.study.leaderboard import make_board
from equipoise.study.recommend import BALANCED, ready_recipe, recommend


def choose(
    rows: Sequence[Mapping[str, Any]], out: Path, *, priority: str = BALANCED, confidence: float = 0.95
) -> dict[str, Any]:
    """Return `winner`, why it won on dev items, and what test items say of it.

    There is none where no trial is feasible and passed its gates.

    `confirmed` says that on test items, too, no domain is worse and the gain by the priority is shown. Test items are
    read here for the first time, and of the winner alone. `recipe` is the winner's recipe as a file.
    """
    complete = {row["run"]: row for row in rows if row["state"] == "complete" and row["missed"] <= 0}
    here = [out / name for name in complete if (out / name / "done").is_file()]
    elsewhere = [f"{out / name}: not here; the trial was not considered" for name in complete if out / name not in here]
    nothing = {"winner": None, "why": [], "notes": elsewhere, "shown_on_dev": False, "test": None, "confirmed": False}
    if not here:
        return {**nothing, "recipe": None}
    dev = make_board(read_entrants(here, "dev"), confidence=confidence)
    found = recommend(dev, priority)
    chosen = found.row or found.candidate
    notes = [*elsewhere, *dev.notes]
    if chosen is None:
        return {**nothing, "why": list(found.why), "notes": notes, "recipe": None}
    folder = chosen.entrant.folders[0]
    test = make_board(read_entrants([folder], "test"), confidence=confidence)
    confirmation = recommend(test, priority)
    trial = complete[folder.name]
    return {
        "winner": {"number": trial["number"], "run": str(folder), "params": trial["params"]},
        "shown_on_dev": found.row is not None,
        "why": list(found.why),
        "not_distinguishable_on_dev": list(found.alike),
        "notes": notes,
        "test": board_record(test)["rows"][0],
        "confirmed": confirmation.row is not None,
        "recipe": ready_recipe(test, confirmation) if confirmation.row else None,
    }
