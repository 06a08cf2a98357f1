"""The run folder: every file appears whole or not at all, `done` is written last.

The layout is a contract that people read without equipoise:

    recipe.yaml  recipe.json  provenance.json  data/  stages/<k>-<name>/  scores/<point>/
    comparison.json  verdict.json  report.html  events.jsonl  done
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from equipoise import holder
from equipoise.records import InputError, Score

PACKAGES = ("equipoise", "torch", "transformers", "peft", "accelerate", "tokenizers", "numpy", "scipy", "polars")

ASIDE = ".part"
"""How the names of files end that are not written to their end; they begin with a dot."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it appears whole or not at all: write aside, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=ASIDE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    finally:
        Path(aside).unlink(missing_ok=True)  # gone already, unless something went wrong
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of text in UTF-8; lone surrogates, which UTF-8 cannot hold, become `?`."""
    write_bytes(path, text.encode("utf-8", "replace"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of readable JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """`write_bytes` of one JSON object per line."""
    write_text(path, "".join(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n" for record in records))


def read_json(path: Path) -> Any:
    """Read a JSON file of a run; raises InputError with the place of the fault."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: missing; is this a run folder?") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON ({error}); the file was changed by hand or damaged") from None


def read_lines(path: Path, *, partial: bool = False) -> list[dict[str, Any]]:
    """Read a file of JSON lines; `partial` leaves out a last line that a kill cut in two."""
    records = []
    *lines, last = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): texts may hold U+2028
    lines += [last] if last and not partial else []
    for number, line in enumerate(lines, 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}: not JSON ({error}); the file was changed or damaged") from None
    return records


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hashes(folder: Path, below: str = "") -> dict[str, str]:
    """Hash of every file of a folder by its path in it; `below` takes only paths that begin so.

    Left out: what may still change when a folder is done (the log of events, the report), and locks.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ASIDE)
    names = {path.relative_to(folder).as_posix(): path for path in files}
    left_out = (".lock", "done", "events.jsonl", "report.html")
    return {name: sha256(path) for name, path in names.items() if name not in left_out and name.startswith(below)}


def require_unchanged(folder: Path, files: Mapping[str, str], remedy: str) -> None:
    """Raises InputError where a file is missing or is not what it was when its hash was written down."""
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            raise InputError(f"{path}: missing or changed since it was written; remove {folder} to {remedy} again")


def provenance(seed: int) -> dict[str, Any]:
    """Versions, git commit, machine, command line and seed of this execution; no user names or home paths."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "argv": [_without_home(argument) for argument in [Path(sys.argv[0]).name, *sys.argv[1:]]],
        "seed": seed,
        "versions": {"python": platform.python_version(), **versions},
        "git": _git_state(),
        "machine": {"system": platform.system(), "architecture": platform.machine(), "cores": os.cpu_count()},
    }


def _without_home(text: str) -> str:
    return text.replace(str(Path.home()), "~")


def _git_state() -> dict[str, Any] | None:
    """Commit of the source tree that runs, and whether it has changes (None outside a checkout)."""
    here = Path(__file__).parent
    commands = (["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "."])
    try:
        results = [subprocess.run(command, cwd=here, capture_output=True, text=True) for command in commands]
    except FileNotFoundError:
        return None
    if any(result.returncode for result in results):
        return None
    return {"commit": results[0].stdout.strip(), "changed": bool(results[1].stdout.strip())}


class Run:
    """Paths of one run folder, and typed reading and writing; nobody else joins these strings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open an existing run; raises InputError where the folder is none."""
        run = cls(Path(folder))
        if not (run.folder / "recipe.json").is_file():
            raise InputError(f"{folder}: not a run folder (it has no recipe.json): nothing was begun here")
        return run

    @property
    def name(self) -> str:
        """Name of the run: its folder's."""
        return self.folder.resolve().name

    @property
    def begun(self) -> bool:
        """Whether the folder holds anything."""
        return self.folder.exists() and any(path.name != ".lock" for path in self.folder.iterdir())

    @property
    def finished(self) -> bool:
        """Whether the run has reached its end."""
        return (self.folder / "done").is_file()

    def stage(self, number: int, name: str) -> Path:
        """Folder of a stage; stages count from 1."""
        return self.folder / "stages" / f"{number}-{name}"

    def score_file(self, point: str, task: str) -> Path:
        """Item records of a task at a point: `base` or `<k>-<stage>`."""
        return self.folder / "scores" / point / f"{task}.jsonl"

    def points(self) -> list[str]:
        """Points with scores: `base` first, then the stages in order."""
        found = [path.name for path in (self.folder / "scores").glob("*") if path.is_dir()]
        names = [name for name in found if name == "base" or name.partition("-")[0].isdigit()]
        return sorted(names, key=lambda name: (0 if name == "base" else int(name.partition("-")[0]), name))

    def write_scores(self, point: str, task: str, scores: Iterable[Score]) -> None:
        """Write the item records of a task, one line each."""
        write_scores(self.score_file(point, task).parent, {task: scores})

    def scores(self, point: str) -> dict[str, list[Score]]:
        """Read all item records of a point, by task."""
        return read_scores(self.folder / "scores" / point)

    def log(self, event: str, **details: Any) -> None:
        """Append to events.jsonl what happened and when."""
        record = {"time": round(time.time(), 3), "event": event, **details}
        with (self.folder / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def repair_logs(self) -> None:
        """Cut a last line that a kill left unfinished, so that appending goes on cleanly."""
        path = self.folder / "events.jsonl"
        if path.is_file():
            write_lines(path, read_lines(path, partial=True))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; raises InputError when another process works on it.

        What a killed process left half-written is removed; a folder in which nothing was begun does not stay behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"{self.folder}: another process is working on this run; wait for it") from None
            _say(file, holder.mark())  # for who watches: a lock cannot be looked at without taking it
            for path in self.folder.rglob(f".*{ASIDE}"):
                path.unlink()
            try:
                yield
            finally:
                _say(file, {})
                if not self.begun:
                    shutil.rmtree(self.folder)


def _say(file: TextIO, mark: Mapping[str, Any]) -> None:
    """Put a mark into a lock file, in place: the lock is that of this very file."""
    file.truncate(0)
    file.write(json.dumps(mark))
    file.flush()


def write_scores(folder: Path, scores: Mapping[str, Iterable[Score]]) -> None:
    """Write item records as `<task>.jsonl`, one line each."""
    for task, records in scores.items():
        write_lines(folder / f"{task}.jsonl", (score.record() for score in records))


def read_scores(folder: Path) -> dict[str, list[Score]]:
    """Read a folder of `<task>.jsonl` score files; raises InputError as `read_score_file` does."""
    return {path.stem: read_score_file(path) for path in sorted(folder.glob("*.jsonl"))}


def read_score_file(path: Path, split: str | None = None) -> list[Score]:
    """Read one score file, or its items of one split alone.

    Raises InputError with file and line for what is no score, no finite number or there twice.
    """
    lines: dict[str, int] = {}
    scores = []
    for number, record in enumerate(read_lines(path), 1):
        try:
            if split is not None and record["split"] != split:
                continue
            score = Score.from_record(record)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}:{number}: not a score: {error}; the file was changed or damaged") from None
        for name, value in (("value", score.value), *score.metrics.items()):
            if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
                said = f"{name} is {value!r}, not a finite number"
                raise InputError(f"{path}:{number}: {said}; give a number, or value null with `unscored`")
        first = lines.setdefault(score.id, number)
        if first != number:
            raise InputError(f"{path}:{number}: item {score.id} stands in line {first} already; keep one of the two")
        scores.append(score)
    return scores


def noise_limits(path: Path, split: str) -> dict[str, float]:
    """What a `noise.json` says by domain: that of a run is about its test items, that of `eval` about each split.

    Raises InputError where the file is not one.
    """
    try:
        return {domain: float(record.get(split, record)["limit"]) for domain, record in read_json(path).items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: not what `eval --repeats` or a run writes; it was changed or damaged") from None
