"""The story of a study: what is done is skipped, what was begun goes on, what fails is a row and no end.

`study.json` is whole at every moment; it and the run folders are all that a study needs to go on.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equipoise.progress import Display, duration
from equipoise.records import InputError
from equipoise.run_folder import Run, read_json, write_json
from equipoise.study.events import spent_by
from equipoise.study.executor_local import Executor
from equipoise.study.plan_study import Entry
from equipoise.study.process import Ended

FILE = "study.json"


def run_study(entries: Sequence[Entry], out: Path, execute: Executor, display: Display) -> dict[str, Any]:
    """Run what is not done and return study.json: `rows`, one for each run, and `totals`.

    Rows that an earlier study in `out` left and that are not asked for now stay. Raises InputError where another
    process works on this study.
    """
    with _lock(out):
        study = _Study(out, entries, display)
        left = [entry for entry in entries if not Run(entry.folder).finished]
        try:
            execute(left, out / "logs", study.start, study.end)
        finally:
            study.interrupt()
        return study.record()


class _Study:
    """The rows of a study and their file."""

    def __init__(self, out: Path, entries: Sequence[Entry], display: Display) -> None:
        self._path, self._display = out / FILE, display
        before: dict[str, Any] = {}
        if self._path.is_file():
            before = {row["name"]: row for row in read_json(self._path)["rows"]}
        for name, row in before.items():
            if row["state"] == "running":  # that study was killed
                before[name] = {**row, "state": "interrupted"}
        asked = {entry.name: _row(entry, before.get(entry.name, {})) for entry in entries}
        self._rows = {**before, **asked}
        self._write()

    def start(self, entry: Entry) -> None:
        """A run begins, or goes on."""
        row = self._rows[entry.name]
        self._rows[entry.name] = {**row, "state": "running", "reason": "", "attempts": row["attempts"] + 1}
        self._write()
        self._display.say(f"{entry.name}: {'goes on' if Run(entry.folder).begun else 'starts'}")

    def end(self, entry: Entry, result: Ended) -> None:
        """The process of a run has ended, one way or the other."""
        row = self._rows[entry.name]
        seconds = row["seconds"] + result.seconds
        row = {**row, "state": "waiting", "reason": result.reason, "seconds": seconds, "node": result.node}
        row = _row(entry, row)
        self._rows[entry.name] = row if row["state"] == "done" else {**row, "state": "failed"}
        self._write()
        ended = sum(row["state"] in ("done", "failed") for row in self._rows.values())
        said = f"done, kept {row['kept_stage']}" if row["state"] == "done" else f"FAILED: {result.reason}"
        self._display.say(f"{entry.name}: {said} ({duration(result.seconds)}; {ended} of {len(self._rows)} runs)")

    def interrupt(self) -> None:
        """Whatever has not ended by now waits for the next time."""
        for name, row in self._rows.items():
            if row["state"] == "running":
                self._rows[name] = {**row, "state": "interrupted"}
        self._write()

    def record(self) -> dict[str, Any]:
        """What stands in study.json."""
        rows = list(self._rows.values())
        return {"rows": rows, "totals": totals(rows)}

    def _write(self) -> None:
        write_json(self._path, self.record())


def _row(entry: Entry, before: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a run from its folder, and what is known from `before`: seconds and attempts."""
    run = Run(entry.folder)
    used = spent_by(entry.folder)
    seconds = max(before.get("seconds", 0.0), used.elapsed)  # nobody took the time of a process that was killed
    gates = read_json(entry.folder / "verdict.json") if run.finished else {"gates": [], "kept_stage": None}
    refused = [gate["stage"] for gate in gates["gates"] if gate["action"] != "keep"]
    flagged = [gate["stage"] for gate in gates["gates"] if gate["outcome"] != "pass" and gate["action"] == "keep"]
    other = max(0.0, seconds - used.training - used.measuring)
    return {
        "name": entry.name,
        "recipe": entry.title,
        "file": entry.recipe.name,
        "seed": entry.seed,
        "state": "done" if run.finished else before.get("state", "waiting"),
        "kept_stage": gates["kept_stage"],
        "refused": refused,
        "flagged": flagged,
        "reason": "" if run.finished else before.get("reason", ""),
        "attempts": before.get("attempts", 0),
        "node": before.get("node", ""),
        "seconds": round(seconds, 2),
        "training_seconds": round(used.training, 2),
        "measuring_seconds": round(used.measuring, 2),
        "other_seconds": round(other, 2),
        "reference_reused": used.reference_reused,
        "reference_computed": used.reference_computed,
        "base_scores_computed": used.base_scores_computed,
    }


def totals(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sums over the rows; `overhead` is the share of all seconds outside training, generation and scoring."""
    summed = ("seconds", "training_seconds", "measuring_seconds", "other_seconds")
    counted = ("reference_reused", "reference_computed", "base_scores_computed")
    found: dict[str, Any] = {key: round(sum(row[key] for row in rows), 2) for key in summed}
    found |= {key: sum(row[key] for row in rows) for key in counted}
    states = [row["state"] for row in rows]
    return {
        "runs": len(rows),
        "done": states.count("done"),
        "failed": states.count("failed"),
        **found,
        "overhead": round(found["other_seconds"] / found["seconds"], 4) if found["seconds"] else None,
    }


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".study.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{out}: another process is working on this study; wait for it") from None
        yield
