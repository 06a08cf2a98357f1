"""Reads the files of a run that may be written at this moment, may be damaged, or may come from another version.

Nothing here writes or locks. What cannot be read becomes a sentence; what has not changed is not read again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from equipoise import holder
from equipoise.evaluation.gate import Action, Outcome
from equipoise.records import InputError
from equipoise.report import shape
from equipoise.run_folder import read_json

T = TypeVar("T")
Stamp = tuple[int, int, int]
QUIET = 600.0
"""Seconds without a new byte after which a run whose process cannot be seen from here is called silent."""


class Reader:
    """Keeps what it has read for as long as the file stays the same."""

    def __init__(self) -> None:
        self._known: dict[tuple[Path, str], tuple[Stamp, Any, str]] = {}

    def read(self, path: Path, parse: Callable[[Path], T], otherwise: T, notes: list[str]) -> T:
        """What `parse` makes of a file; `otherwise` of one that is absent, or cannot be read (a note says so)."""
        stamp = stamp_of(path)
        if stamp is None:
            return otherwise
        key = (path, parse.__name__)
        known: tuple[Stamp, T, str] | None = self._known.get(key)
        if known is None or known[0] != stamp:
            try:
                known = (stamp, parse(path), "")
            except FileNotFoundError:
                return otherwise  # it was there a moment ago
            except (InputError, OSError, ValueError, KeyError, TypeError) as error:
                said = str(error).removeprefix(f"{path}: ") or type(error).__name__
                fault = f"{path.name} cannot be read and is left out ({said})"
                known = (stamp, otherwise, fault)
            self._known[key] = known
        if known[2]:
            notes.append(known[2])
        return known[1]


def stamp_of(path: Path) -> Stamp | None:
    """What changes when a file does; None where there is none."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def recipe(path: Path) -> dict[str, Any]:
    """A resolved recipe, its parts where they belong; raises InputError."""
    return shape.recipe(read_json(path))


def verdict(path: Path) -> dict[str, Any]:
    """A verdict whose rows have the figures that are shown; raises InputError."""
    found = shape.verdict(read_json(path))
    for name, row in rows_of(found).items():
        shape.numbers(row, "before", "after", "difference", "n")
        if len([shape.number(end, f"{name}.ci") for end in row["ci"]]) != 2:
            raise InputError(f"{name}.ci is not an interval")
    for gate in found.get("gates", []):
        shape.mapping(gate, "gates")
    return found


def rows_of(verdict: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The domains of a verdict."""
    return {name: row for name, row in verdict.items() if isinstance(row, dict) and "verdict" in row}


def gate(path: Path) -> dict[str, Any]:
    """A gate's decision with its reasons; raises InputError."""
    found = shape.mapping(read_json(path))
    outcome, action = found["outcome"], found["action"]
    if outcome not in get_args(Outcome) or action not in get_args(Action):
        raise InputError(f"{outcome!r} -> {action!r} is no decision of a gate")
    reasons = [str(reason) for reason in found.get("reasons", [])]
    return {"outcome": outcome, "action": action, "flagged": bool(found.get("flagged")), "reasons": reasons}


def events(path: Path) -> list[dict[str, Any]]:
    """The events that can be read, in order: each has a `time` and a word that says what it is."""
    found = [line for line in json_lines(path) if isinstance(line, dict)]
    return [line for line in found if isinstance(line.get("event"), str) and _is_time(line.get("time"))]


def _is_time(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < 2**33


def steps(path: Path) -> list[dict[str, float]]:
    """The steps of a training: number, loss, margin, accuracy (share of pairs) and pairs of each."""
    keys = ("step", "loss", "margin", "accuracy", "pairs")
    found = [shape.mapping(line) for line in json_lines(path)]
    return [{key: shape.number(line.get(key), key) for key in keys} for line in found]


def scored(path: Path) -> dict[str, Any]:
    """Mean and number of the scored items of a task: those that gates look at (`dev`), where there are any."""
    values: dict[str, list[float]] = {"dev": [], "all": []}
    for line in json_lines(path):
        if line.get("value") is not None:
            value = shape.number(line["value"], "value")
            values["all"].append(value)
            values.setdefault(str(line.get("split")), []).append(value)
    items = "dev" if values["dev"] else "all"
    seen = values[items]
    return {"mean": sum(seen) / len(seen) if seen else None, "n": len(seen), "items": items}


def question(path: Path) -> str:
    """The first comment line of a recipe as it was written: the question that it asks."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = file.readline(2000).strip()
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def json_lines(path: Path) -> Iterable[Any]:
    """The lines of a file that are JSON; one that is being written, or was damaged, is left out."""
    for line in path.read_bytes().split(b"\n"):
        try:
            yield json.loads(line)
        except ValueError:
            continue


@dataclass(frozen=True, slots=True)
class Life:
    """How a run is: `finished`, `running`, `stopped` (its process is gone) or `silent` (nobody knows).

    `last` is when it last wrote something, in seconds since 1970; 0 where it wrote nothing.
    """

    state: str
    last: float


def life(folder: Path, now: float | None = None) -> Life:
    """How a run is, seen from outside."""
    last = _changed(folder / "events.jsonl")
    if (folder / "done").is_file():
        return Life("finished", last)
    last = max(last, *map(_changed, _growing(folder)), 0.0)
    lives = holder.lives(folder / ".lock")
    if lives is not None:
        return Life("running" if lives else "stopped", last)
    last = last or _changed(folder / "recipe.json")
    return Life("running" if (now or time.time()) - last < QUIET else "silent", last)


def _growing(folder: Path) -> list[Path]:
    """What grows or gets new files while a run works."""
    return [*folder.glob("stages/*/train.jsonl"), *folder.glob("stages/*"), *folder.glob("scores/*")]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
