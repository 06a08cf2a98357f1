"""Reads the files of a run that may be written at this moment, may be damaged, or may come from another version.

Nothing here writes or locks. What cannot be read becomes a sentence; what has not changed is not read again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from equipoise import holder
from equipoise.evaluation.gate import Action, Outcome
from equipoise.records import InputError
from equipoise.report import shape
from equipoise.run_folder import read_json, sha256

T = TypeVar("T")
Stamp = tuple[int, int, int]
CHANGED = "verdict.json has changed since the run ended: it is not what the run found (equipoise verify says more)"
NO_RECIPE = "recipe.json is missing: the stages of this run and its settings are not known"
STEP = ("step", "loss", "margin", "accuracy", "pairs")
"""The figures of a line of train.jsonl that are shown."""
Steps = tuple[list[dict[str, float]], int]
NO_STEPS: Steps = ([], 0)
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
                fault = f"{place(path)} cannot be read and is left out ({said})"
                known = (stamp, otherwise, fault)
            self._known[key] = known
        if known[2]:
            notes.append(known[2])
        return known[1]


def place(path: Path) -> str:
    """A file's name, and the folder of the stage or point that it belongs to."""
    parts = path.parts[-3:] if path.parts[-3:-2] in (("stages",), ("scores",)) else path.parts[-1:]
    return "/".join(parts)


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


def steps(path: Path) -> Steps:
    """The steps of a training (number, loss, margin, accuracy as a share of pairs, pairs), and how many lines are none.

    A last line without its end is being written, or was cut by a kill: it counts as neither.
    """
    found = []
    lines = path.read_bytes().split(b"\n")[:-1]
    for line in lines:
        with suppress(ValueError):  # InputError is one
            step = shape.mapping(json.loads(line))
            found.append({key: shape.number(step.get(key), key) for key in STEP})
    return found, len(lines) - len(found)


def scored(path: Path) -> dict[str, Any]:
    """Mean and number of the scored items of a task: those that gates look at (`dev`), where there are any.

    `lines` are all items that stand there, scored or not, of both sides.
    """
    values: dict[str, list[float]] = {"dev": [], "all": []}
    lines = [line for line in json_lines(path) if isinstance(line, dict)]
    for line in lines:
        if line.get("value") is not None:
            value = shape.number(line["value"], "value")
            values["all"].append(value)
            values.setdefault(str(line.get("split")), []).append(value)
    items = "dev" if values["dev"] else "all"
    seen = values[items]
    mean = sum(seen) / len(seen) if seen else None
    return {"mean": mean, "n": len(seen), "items": items, "lines": len(lines)}


def count(path: Path) -> int:
    """How many items a file of items has."""
    return sum(isinstance(line, dict) for line in json_lines(path))


def sealed(path: Path) -> dict[str, str]:
    """The hashes in a run's `done`, by file; raises InputError."""
    return {name: str(hash) for name, hash in shape.mapping(shape.mapping(read_json(path)).get("files", {})).items()}


def changed(folder: Path, reader: Reader, notes: list[str]) -> bool:
    """Whether the verdict of a run that has ended is not the one that it wrote; False where `done` does not say."""
    files: dict[str, str] = reader.read(folder / "done", sealed, {}, notes)
    written = files.get("verdict.json")
    return written is not None and reader.read(folder / "verdict.json", sha256, written, []) != written


def gaps(folder: Path, life: Life, verdict_differs: bool) -> list[str]:
    """What a run should have and has not, as sentences."""
    said = [] if (folder / "recipe.json").is_file() or not traces(folder) else [NO_RECIPE]
    if life.state == "finished" and not (folder / "verdict.json").is_file():
        said.append("verdict.json is missing: how the run ended is not known")
    return [*said, CHANGED] if verdict_differs else said


def traces(folder: Path) -> bool:
    """Whether a run was begun in a folder: it has its recipe, or, where that was lost, something that a run writes."""
    return any((folder / name).is_file() for name in ("recipe.json", "events.jsonl", "verdict.json"))


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
    """How a run is: `finished`, `running`, `stopped` (its process is gone), `failed` or `silent` (nobody knows).

    `last` is when it last wrote something, in seconds since 1970; 0 where it wrote nothing. `error` is why it failed;
    `sure` says that its process was seen alive.
    """

    state: str
    last: float
    error: str = ""
    sure: bool = False


def life(folder: Path, now: float | None = None) -> Life:
    """How a run is, seen from outside."""
    last = _changed(folder / "events.jsonl")
    if (folder / "done").is_file():
        return Life("finished", last)
    last = max(last, *map(_changed, _growing(folder)), 0.0)
    lives = holder.lives(folder / ".lock")
    if lives is not None:
        return Life("running" if lives else "stopped", last, sure=lives)
    last = last or _changed(folder / "recipe.json")
    return Life("running" if (now or time.time()) - last < QUIET else "silent", last)


def told(life: Life, events: Sequence[Mapping[str, Any]]) -> Life:
    """The same, or `failed` where the last thing that the run wrote is why it ended; a resumed one writes anew."""
    if life.state == "finished" or life.sure or not events or events[-1]["event"] != "failed":
        return life
    return Life("failed", life.last, str(events[-1].get("error", "its events do not say why"))[:300])


def _growing(folder: Path) -> list[Path]:
    """What grows or gets new files while a run works."""
    return [*folder.glob("stages/*/train.jsonl"), *folder.glob("stages/*"), *folder.glob("scores/*")]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
