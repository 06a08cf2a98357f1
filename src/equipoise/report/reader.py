"""Reads single files of a run folder so that the fault of one never hides the others, and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from equipoise.records import InputError
from equipoise.run_folder import Run, read_json

T = TypeVar("T")
BAD = (InputError, KeyError, TypeError, ValueError, AttributeError, RecursionError)
"""What reading a file raises that was edited, damaged, or written by another version."""


@dataclass
class Reader:
    """Reads files of `run`; each fault becomes a sentence in `missing`."""

    run: Run
    missing: list[str]

    def tried(self, path: Path, read: Callable[[], T], otherwise: T, without: str = "") -> T:
        """What `read` returns, else `otherwise`; `without` says what the page lacks where the file is not there."""
        name = path.relative_to(self.run.folder)
        if not path.exists():
            if without:
                self.missing.append(f"{name} is missing: {without}")
            return otherwise
        try:
            return read()
        except (*BAD, OSError) as error:
            said = _short(error).replace(str(self.run.folder), self.run.name)
            self.missing.append(f"{name} cannot be read and is left out ({said})")
            return otherwise

    def text(self, name: str, without: str) -> str:
        """A file as text."""
        path = self.run.folder / name
        return self.tried(path, lambda: path.read_text(encoding="utf-8"), "", without)

    def json(self, name: str, check: Callable[[Any], dict[str, Any]], without: str) -> dict[str, Any]:
        """A file of one JSON object."""
        path = self.run.folder / name
        return self.tried(path, lambda: check(read_json(path)), {}, without)

    def lines(self, path: Path, check: Callable[[Any], T]) -> list[T]:
        """The lines of a file that can be read; how many cannot is said, with the first of them."""
        found: list[T] = []
        bad: list[str] = []

        def read() -> None:
            *lines, cut = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): texts may hold U+2028
            for number, line in enumerate([*lines, cut] if cut else lines, 1):
                try:
                    found.append(check(json.loads(line)))
                except BAD as error:
                    if number <= len(lines):  # a last line without an end is one that a kill cut in two
                        bad.append(f"line {number}: {_short(error)}")

        self.tried(path, read, None)
        if bad:
            lines = "1 line cannot be read and is" if len(bad) == 1 else f"{len(bad)} lines cannot be read and are"
            self.missing.append(f"{path.relative_to(self.run.folder)}: {lines} left out ({bad[0]})")
        return found


def _short(error: BaseException) -> str:
    """What is wrong, in a line that no file can make long."""
    said = str(error) or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]} …"
