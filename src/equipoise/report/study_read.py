"""Reads runs and folders of runs for the study page: every run gets a row, whatever state its folder is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from equipoise.records import InputError
from equipoise.report.reader import BAD
from equipoise.run_folder import Run, read_json, read_lines
from equipoise.study.entrants import Finished, Reader
from equipoise.study.events import spent_by
from equipoise.study.plan_study import locked

RECORDS = {"study.json": "rows", "search.json": "trials"}
"""What a study and a search write about their runs, and the key of the rows."""
BEGUN = ("recipe.json", "recipe.yaml", "events.jsonl", "scores", "stages")
"""A folder with any of these is a run, in whatever state."""


@dataclass(frozen=True)
class StudyRun:
    """One run as its folder shows it; seconds are None where they are not known.

    `state`: done, failed, pruned, running, unfinished, or damaged. `reason` says why it is not done, `there` what an
    unfinished run has, `note` what else is to be known.
    """

    name: str
    folder: Path
    state: str
    recipe: str = ""
    seed: str = ""
    kept: str = ""
    refused: tuple[str, ...] = ()
    reason: str = ""
    there: str = ""
    note: str = ""
    seconds: float | None = None
    training: float | None = None
    measuring: float | None = None
    pairs: int | None = None
    reused: int | None = None
    computed: int | None = None

    @property
    def other(self) -> float | None:
        """Seconds that were neither training nor measuring."""
        if self.seconds is None or self.training is None or self.measuring is None:
            return None
        return max(0.0, self.seconds - self.training - self.measuring)


@dataclass(frozen=True)
class StudyFiles:
    """All runs, those of them that are finished and whole, and sentences about what could not be read."""

    name: str
    runs: tuple[StudyRun, ...]
    finished: tuple[Finished, ...]
    notes: tuple[str, ...]


def read_study(places: Sequence[Path]) -> StudyFiles:
    """Read run folders, and folders of runs, in the order named; test items alone.

    Raises InputError for a place that is neither.
    """
    found: dict[Path, Mapping[str, Any]] = {}
    notes: list[str] = []
    for place in places:
        told = _told(place, notes)
        folders = [place] if is_run(place) else _inside(place, told)
        if not folders:
            raise InputError(f"{place}: not a run folder and no folder of runs: nothing was begun here")
        beside = _told(place.parent, []) if folders == [place] else told
        for folder in folders:
            found.setdefault(folder.resolve(), {"folder": folder, **beside.get(folder.name, {})})
    read = Reader("test")
    rows = [_run(told["folder"], told, read) for told in found.values()]
    name = places[0].resolve().name if len(places) == 1 else f"{len(rows)} runs"
    finished = tuple(whole for _, whole in rows if whole)
    return StudyFiles(name, tuple(run for run, _ in rows), finished, tuple(notes))


def is_run(folder: Path) -> bool:
    """Whether a run was begun here."""
    return any((folder / name).exists() for name in BEGUN)


def _inside(place: Path, told: Mapping[str, Any]) -> list[Path]:
    """Run folders of a study, and those that its record names although they are not there."""
    names = {path.name for path in place.glob("*") if path.is_dir() and is_run(path)} if place.is_dir() else set()
    return [place / name for name in sorted(names | told.keys())]


def _told(place: Path, notes: list[str]) -> dict[str, Mapping[str, Any]]:
    """What a study or search in `place` wrote about its runs, by their names."""
    found: dict[str, Mapping[str, Any]] = {}
    for file, key in RECORDS.items():
        path = place / file
        if path.is_file():
            try:
                found |= {str(row.get("name") or row["run"]): row for row in read_json(path)[key]}
            except BAD as error:
                notes.append(f"{path.name} cannot be read and is left out ({str(error) or type(error).__name__})")
    return found


@dataclass
class _Seen:
    """What single files of a run say; the fault of one is a note and hides no other."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    failure: str = ""
    """Why its last process ended, where that wrote it down."""

    def json(self, name: str) -> Mapping[str, Any]:
        """A JSON object; empty where the file is missing or damaged."""
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            found = read_json(path)
            return found if isinstance(found, dict) else {}
        except InputError:
            self.notes.append(f"{name} cannot be read")
            return {}

    def times(self, run: StudyRun) -> StudyRun:
        """The run with its seconds and counts."""
        try:
            used = spent_by(self.folder)
            path = self.folder / "events.jsonl"
            events = read_lines(path, partial=True) if path.is_file() else []
            pairs = sum(int(event["pairs"]) for event in events if event.get("event") == "stage")
            if events and events[-1].get("event") == "failed":
                self.failure = str(events[-1].get("error") or "")
        except BAD:
            self.notes.append("events.jsonl cannot be read: times are not known")
            return run
        if not events:
            return run
        return replace(
            run,
            seconds=used.elapsed,
            training=used.training,
            measuring=used.measuring,
            pairs=pairs,
            reused=used.reference_reused,
            computed=used.reference_computed,
        )


def _run(folder: Path, told: Mapping[str, Any], read: Reader) -> tuple[StudyRun, Finished | None]:
    """The row of a run, and the run itself where it is finished and whole."""
    seen = _Seen(folder)
    recipe, verdict = seen.json("recipe.json"), seen.json("verdict.json")
    gates = verdict.get("gates")
    refused = (
        [gate for gate in gates if isinstance(gate, dict) and gate.get("action") != "keep"]
        if isinstance(gates, list)
        else []
    )
    run = StudyRun(
        name=folder.name,
        folder=folder,
        state="unfinished",
        recipe=str(recipe.get("name") or told.get("recipe") or ""),
        seed=str(recipe.get("seed", told.get("seed", ""))),
        kept=str(verdict.get("kept_stage") or ""),
        refused=tuple(str(gate.get("stage", "?")) for gate in refused),
        there=_there(folder, recipe),
    )
    run = seen.times(run)
    whole = None
    if not Run(folder).finished:
        run = _unfinished(run, told, seen.failure)
    else:
        try:
            whole = read(folder)
            run = replace(run, state="done", there="")
        except (*BAD, OSError) as error:
            run = replace(run, state="damaged", reason=_one_line(error, folder))
    if told.get("seconds") and run.seconds is not None:
        run = replace(run, seconds=max(run.seconds, float(told["seconds"])))
    return replace(run, note="; ".join(seen.notes)), whole


def _unfinished(run: StudyRun, told: Mapping[str, Any], failure: str) -> StudyRun:
    """The run with its state and the reason: the study's, else what the run itself wrote down."""
    said, state = str(told.get("reason") or ""), str(told.get("state") or "")
    if state == "pruned":
        return replace(run, state="pruned", reason=said)
    if state in ("failed", "fail"):
        return replace(run, state="failed", reason=said or failure or "no reason was written down")
    if run.folder.is_dir() and locked(run.folder):
        return replace(run, state="running", reason="a process is working on it")
    if not run.folder.is_dir():
        return replace(run, reason="its folder is not there", there="nothing")
    why = failure or state
    run = replace(run, state="failed" if failure else run.state)
    return replace(run, reason=f"{why}; continue it with: equipoise run --resume {run.name}".removeprefix("; "))


def _there(folder: Path, recipe: Mapping[str, Any]) -> str:
    """What an unfinished run has, in words."""
    stages = recipe.get("stages")
    trained = len(list((folder / "stages").glob("*/done")))
    points = Run(folder).points()
    said = [f"{trained} of {len(stages)} stages done"] if isinstance(stages, list) else ["no recipe.json"]
    said += [f"scored: {', '.join(points)}"] if points else ["nothing scored"]
    return "; ".join(said)


def _one_line(error: BaseException, folder: Path) -> str:
    said = str(error).partition("\n")[0] or type(error).__name__
    return said.replace(f"{folder}/", "").replace(str(folder), folder.name)
