"""Reads single files of a run folder so that the fault of one never hides the others, and says what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
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
    _bad: list[tuple[str, int, int, str]] = field(default_factory=list)
    """Of each file with lines that cannot be read: name, how many, the first of them, and what is wrong with it."""

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
        bad: list[tuple[int, str]] = []

        def read() -> None:
            *lines, cut = path.read_text(encoding="utf-8").split("\n")  # not splitlines(): texts may hold U+2028
            for number, line in enumerate([*lines, cut] if cut else lines, 1):
                try:
                    found.append(check(json.loads(line)))
                except BAD as error:
                    if number <= len(lines):  # a last line without an end is one that a kill cut in two
                        bad.append((number, _short(error)))

        self.tried(path, read, None)
        if bad:
            self._bad.append((str(path.relative_to(self.run.folder)), len(bad), *bad[0]))
        return found

    def say_lines(self) -> None:
        """Say which lines could not be read; files of one folder with the same fault share a sentence."""
        together: dict[tuple[str, str], list[tuple[str, int, int]]] = {}
        for name, count, first, why in self._bad:
            together.setdefault((name.partition("/")[0], why), []).append((name, count, first))
        for (_, why), files in together.items():
            name, _, first = files[0]
            count = sum(one for _, one, _ in files)
            lines = "1 line cannot be read and is" if count == 1 else f"{count:,} lines cannot be read and are"
            others = len(files) - 1
            more = f" and {others} other file{'s' if others > 1 else ''}" if others else ""
            self.missing.append(f"{name}{more}: {lines} left out (line {first}: {why})")


def _short(error: BaseException) -> str:
    """What is wrong in plain words, in a line that no file can make long."""
    said = str(error).partition("\n")[0]
    if isinstance(error, KeyError):
        said = f"it has no {said}"
    elif isinstance(error, (TypeError, AttributeError, RecursionError)) or not said:
        said = "not of the form that this version of equipoise reads"
    return said if len(said) <= 300 else f"{said[:300]} …"
