"""Which adapters make up a point of a run: those of the stages that it was trained on, and its own on top."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise import watch_read
from equipoise.records import InputError
from equipoise.run_folder import read_json
from equipoise.watch_read import Reader


@dataclass(frozen=True)
class Tuned:
    """A point that can be talked to: its name, and what became of its stage."""

    point: str
    said: str


def tuned_points(folder: Path) -> list[Tuned]:
    """The points of a run with an adapter, the kept one first, then from the last to the first."""
    reader, notes = Reader(), list[str]()
    kept = kept_point(folder)
    found = []
    for stage in _stages(folder):
        gate: dict[str, Any] | None = reader.read(stage / "gate.json", watch_read.gate, None, notes)
        said = "kept at the end" if stage.name == kept else f"gate: {gate['action']}" if gate else "no gate yet"
        found.append(Tuned(stage.name, said))
    found.reverse()
    return sorted(found, key=lambda tuned: tuned.point != kept)


def kept_point(folder: Path) -> str | None:
    """The point that the run kept at its end, else that of its last kept stage; None where that is the base."""
    reader, notes = Reader(), list[str]()
    verdict: dict[str, Any] = reader.read(folder / "verdict.json", watch_read.verdict, {}, notes)
    if verdict.get("kept_stage"):
        return str(verdict["kept_stage"])
    kept = None
    for stage in _stages(folder):
        gate: dict[str, Any] | None = reader.read(stage / "gate.json", watch_read.gate, None, notes)
        kept = stage.name if gate and gate["action"] == "keep" else kept
    return kept


def stack_of(folder: Path, point: str) -> list[Path]:
    """The adapter folders of a point, the lowest first; raises InputError where one is not there."""
    stages = {stage.name: stage for stage in _stages(folder)}
    if point not in stages:
        raise InputError(f"{folder}: {point}: no stage with an adapter")
    start = read_json(stages[point] / "start.json")
    below = start.get("stack") if isinstance(start, dict) else None
    if not isinstance(below, list):
        raise InputError(f"{stages[point] / 'start.json'}: it does not say which adapters lie below this one")
    lost = [name for name in below if name not in stages]
    if lost:
        raise InputError(f"{folder}: the adapter of {lost[0]}, on which {point} was trained, is not there")
    return [stages[name] / "adapter" for name in [*below, point]]


def _stages(folder: Path) -> list[Path]:
    """Folders of the stages that have an adapter, or one for each domain, in order."""
    found = [path.parent for path in folder.glob("stages/*/adapter") if any(path.rglob("adapter_config.json"))]
    return sorted(found, key=lambda path: (_number(path.name), path.name))


def _number(name: str) -> int:
    number = name.partition("-")[0]
    return int(number) if number.isdecimal() else 0
