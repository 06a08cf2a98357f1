"""The runs below a folder, with what a list says about each. Runs are addressed by the ids that are found here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equipoise import watch_read
from equipoise.watch_read import Reader

DEPTH = 3
"""Runs lie in the folder, in a study of it, or in a search's folder below that."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the list; `verdicts` by domain, `took_s` in seconds, `started` in seconds since 1970.

    `changed`: the verdict is not the one that the run wrote.
    """

    id: str
    name: str
    question: str
    state: str
    seed: int | None
    verdicts: Mapping[str, str]
    changed: bool
    kept: str | None
    started: float | None
    took_s: float | None
    notes: tuple[str, ...]


class Listing:
    """The runs of a folder; what has not changed is not read again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reader = Reader()

    def folders(self) -> dict[str, Path]:
        """Run folders by their ids, in the order of their names; nothing else can be addressed."""
        found = {_id(self.root, folder): folder for folder in _runs(self.root, DEPTH)}
        return dict(sorted(found.items()))

    def entries(self) -> list[Entry]:
        """What the list says, the last begun run first."""
        found = [self._entry(id, folder) for id, folder in self.folders().items()]
        return sorted(found, key=lambda entry: (-(entry.started or 0.0), entry.id))

    def _entry(self, id: str, folder: Path) -> Entry:
        notes: list[str] = []
        life = watch_read.life(folder)  # before its files are read: of a finished run they are whole
        recipe: dict[str, Any] = self.reader.read(folder / "recipe.json", watch_read.recipe, {}, notes)
        verdict: dict[str, Any] = self.reader.read(folder / "verdict.json", watch_read.verdict, {}, notes)
        events: list[dict[str, Any]] = self.reader.read(folder / "events.jsonl", watch_read.events, [], notes)
        life = watch_read.told(life, events)
        changed = life.state == "finished" and watch_read.changed(folder, self.reader, notes)
        notes += watch_read.gaps(folder, life, changed)
        notes += [f"failed: {life.error}"] if life.state == "failed" else []
        return Entry(
            id=id,
            name=folder.resolve().name,
            question=self.reader.read(folder / "recipe.yaml", watch_read.question, "", []),
            state=life.state,
            seed=int(recipe.get("seed", 0)) if recipe else None,
            verdicts={name: str(row["verdict"]) for name, row in watch_read.rows_of(verdict).items()},
            changed=changed,
            kept=verdict.get("kept_stage"),
            started=events[0]["time"] if events else None,
            took_s=max(0.0, events[-1]["time"] - events[0]["time"]) if events else None,
            notes=tuple(notes),
        )


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    """Run folders at most so many levels down; inside of a run there is none."""
    if watch_read.traces(folder):
        yield folder
        return
    if depth == 0:
        return
    try:
        inside = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return  # it may not be read, or is gone
    for path in inside:
        yield from _runs(Path(path), depth - 1)


def _id(root: Path, folder: Path) -> str:
    """The path below the root; that of the root itself is its name. Bytes that are no text become `?`."""
    path = folder.relative_to(root).as_posix() if folder != root else root.resolve().name
    return path.encode("utf-8", "replace").decode("utf-8")
