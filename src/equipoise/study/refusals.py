"""What the gates of a run said, as a search sees it: was a stage refused, and by how much were rules missed?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equipoise.recipe import Gate, Recipe
from equipoise.run_folder import Run, read_json


def refused_stage(run: Run) -> str | None:
    """Return the first stage that a gate did not keep, None where there is none (yet)."""
    for folder in _judged(run):
        gate = read_json(folder / "gate.json")
        if gate["action"] in ("rollback", "stop"):
            return str(gate["stage"])
    return None


def violations(run: Run, recipe: Recipe) -> list[float]:
    """Return by how much each rule of each gate was missed (0 or less: it was not), one number for each rule.

    A rule is missed as its gate means it: by the whole interval, or, where undecided is refused as well, by a part of
    it. Rules of stages that were not reached count as 0.
    """
    found: list[float] = []
    seen = {str(gate["stage"]).partition("-")[2]: gate for gate in (read_json(f / "gate.json") for f in _judged(run))}
    for stage in recipe.stages:
        rules = len(stage.gate.improve) + len(stage.gate.hold) + len(stage.gate.health)
        rows = seen[stage.name]["rows"] if stage.name in seen else []
        found += [_missed(row, stage.gate) for row in rows] or [0.0] * rules
    return found or [0.0]


def _missed(row: Mapping[str, Any], gate: Gate) -> float:
    if row["kind"] == "health":
        return float(row["figure"] - row["threshold"])
    if row["ci"] is None:  # too few items to say anything
        return 0.0 if gate.on_undecided == "continue" else 1.0
    border = row["threshold"] if row["kind"] == "improve" else -row["threshold"]
    return float(border - row["ci"][1 if gate.on_undecided == "continue" else 0])


def _judged(run: Run) -> list[Path]:
    folders = [path.parent for path in (run.folder / "stages").glob("*/done")]
    return sorted(folders, key=lambda folder: int(folder.name.partition("-")[0]))
