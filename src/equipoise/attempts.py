"""One stage of a run: trained, measured, judged, and where its gate fails shrunk or trained again.

The folder of a stage always holds its last attempt. Earlier ones lie whole in `attempts/<n>/`, with their
scores and their line of the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from equipoise import shrink
from equipoise.beginning import Lab
from equipoise.evaluation.gate import GateResult, may_shrink
from equipoise.outcome import Scores
from equipoise.recipe import Stage
from equipoise.remedies import gate_record, in_attempt, judge
from equipoise.run_folder import Run, hashes, read_json, require_unchanged, write_json
from equipoise.scoring import scores_at
from equipoise.training import stage_line, train


def run_stage(
    lab: Lab, number: int, points: Mapping[str, Scores], kept: str, stack: Sequence[Path]
) -> tuple[Scores, dict[str, Any]]:
    """Train stage `number` (from 1) on top of `stack` until its gate keeps it or gives it up.

    Returns the scores of its point and its gate.json; the stage is done when `done` is written.
    """
    spec = lab.recipe.stages[number - 1]
    folder = lab.run.stage(number, spec.name)
    if (folder / "done").is_file():
        require_unchanged(folder, read_json(folder / "done")["files"], "train this stage")
        return scores_at(lab, folder.name, [*stack, folder / "adapter"]), _told(lab, read_json(folder / "gate.json"))
    while True:
        _put_aside(lab.run, spec, folder)
        attempt = 1 + len(earlier_attempts(folder))
        scores, gate = _attempt(lab, number, folder, points, kept, stack, attempt)
        write_json(folder / "gate.json", gate)
        _told(lab, gate)
        if gate["action"] != "retry":
            break
    write_json(folder / "done", {"files": hashes(folder)})
    return scores, gate


def _attempt(
    lab: Lab,
    number: int,
    folder: Path,
    points: Mapping[str, Scores],
    kept: str,
    stack: Sequence[Path],
    attempt: int,
) -> tuple[Scores, dict[str, Any]]:
    """Train, measure and judge once; a refused adapter is shrunk where the gate says so."""
    stage = in_attempt(lab.recipe.stages[number - 1], attempt)

    def judged(after: Scores) -> GateResult:
        return judge(lab.recipe, stage, attempt, points, kept, after)

    known = shrink.found(folder)
    if known and known[0] is not None:
        shrink.fold(folder, stage.lora, known[0])  # a kill may have come between two of its files
    train(lab, number, stage, folder, stack, attempt)
    if known is None:
        whole = judged(scores_at(lab, folder.name, [*stack, folder / "adapter"]))
        if may_shrink(whole.outcome, stage.gate):
            known = shrink.search(lab, stage, folder, stack, whole, judged)
    scale, tries = known or (None, [])
    if scale is not None:
        scores = shrink.take(lab, stage, folder, scale, stack)
    else:
        scores = scores_at(lab, folder.name, [*stack, folder / "adapter"])
    return scores, gate_record(
        folder.name,
        stage,
        kept,
        judged(scores),
        attempt=attempt,
        scale=1.0 if scale is None else scale,
        tries=tries,
        stopped=read_json(folder / "trained.json")["stopped"],
        attempts=[read_json(path / "gate.json") for path in earlier_attempts(folder)],
    )


def earlier_attempts(folder: Path) -> list[Path]:
    """The folders of a stage's earlier attempts, the first one first."""
    found = [path for path in (folder / "attempts").glob("*") if path.name.isdigit()]
    return sorted(found, key=lambda path: int(path.name))


def _put_aside(run: Run, stage: Stage, folder: Path) -> None:
    """Move an attempt that is to be followed by another into `attempts/<n>`; one that a kill interrupted goes on.

    gate.json moves last, and the folder gets its name when all is in it: what is half moved is told from what is whole.
    """
    name = str(1 + len(earlier_attempts(folder)))
    place = folder / "attempts" / f"{name}.moving"
    gate = folder / "gate.json"
    if gate.is_file() and read_json(gate)["action"] == "retry":
        place.mkdir(parents=True, exist_ok=True)
        write_json(place / "ledger.json", asdict(stage_line(run, stage.name)))
        scores = run.folder / "scores" / folder.name
        if scores.exists():
            scores.rename(place / "scores")
        for path in sorted(folder.iterdir()):
            if path.name not in ("attempts", "gate.json"):
                path.rename(place / path.name)
        gate.rename(place / "gate.json")
    if place.exists():
        place.rename(folder / "attempts" / name)


def _told(lab: Lab, gate: dict[str, Any]) -> dict[str, Any]:
    """Say and log what the gate decided."""
    stage = gate["stage"].partition("-")[2]
    lab.run.log("gate", stage=stage, outcome=gate["outcome"], action=gate["action"], attempt=gate["attempt"])
    flag = " (kept all the same)" if gate["flagged"] else ""
    scaled = f" at {gate['scale']:g} of its size" if gate["scale"] != 1.0 else ""
    lab.display.say(f"gate {gate['stage']}{scaled}: {gate['outcome']} -> {gate['action']}{flag}")
    for reason in gate["reasons"]:
        lab.display.say(f"  {reason}")
    return gate
