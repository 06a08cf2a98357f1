"""What README and docs/ show: commands with what stands below them, tables, recipes; and whether a command parses."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from equipoise import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", flags=re.MULTILINE | re.DOTALL)
BEFORE = r"(?:[A-Z_]+=\S+ |accelerate launch --config_file \S+ -m )?"
"""What may stand before a command: a setting of the environment, or the launcher of several processes."""
COMMAND = re.compile(rf"{BEFORE}(?:equipoise|make|python|pytest)\s.*")
SPAN = re.compile(r"`((?:equipoise|make|python|pytest)\s[^`]+)`")
MASKS = (
    (r"\d+(\.\d+)? (s|seconds|min|minutes|h)\b", "TIME"),
    (r"\d+(\.\d+)? (GiB|GB|MiB|MB)\b", "MEMORY"),
    (r"[\d,.]+ (pairs|tokens|steps)/s", "RATE"),
    (r"\s+", " "),
)
"""What differs from machine to machine, and what takes its place before two texts are compared."""


@dataclass(frozen=True)
class Command:
    """A command of a page, without its comment, and the output that the page shows below it."""

    page: str
    line: int
    text: str
    shown: str = ""

    @property
    def words(self) -> list[str]:
        """The command's words, without what stands before it."""
        return shlex.split(re.sub(rf"^{BEFORE}", "", self.text))

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {self.text}"


def commands(page: Path) -> list[Command]:
    """All commands in the page's blocks of commands, in their order."""
    return list(commands_of(page.read_text(), str(page.relative_to(ROOT))))


def commands_of(text: str, page: str) -> Iterator[Command]:
    """The same of a page's text."""
    for block in FENCE.finditer(text):
        if block["language"] in ("", "bash", "console", "sh"):
            first = text.count("\n", 0, block.start("text")) + 1
            yield from _console(page, first, block["text"].splitlines(), prompted=block["language"] == "console")


def _console(page: str, first: int, lines: Sequence[str], *, prompted: bool) -> Iterator[Command]:
    """Commands of one block; in a `console` block they begin with `$`, and what follows is their output."""
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ") or not prompted]
    for place, number in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else len(lines)
        said = lines[number].removeprefix("$ ")
        command = re.sub(r"\s+#.*", "", said).strip()
        if COMMAND.fullmatch(f"{command} "):
            yield Command(page, first + number, command, "\n".join(lines[number + 1 : end]) if prompted else "")


def mentioned(page: Path) -> list[Command]:
    """Commands that stand within the text, between single backticks."""
    text, name = page.read_text(), str(page.relative_to(ROOT))
    outside = FENCE.sub(lambda block: "\n" * block[0].count("\n"), text)
    return [
        Command(name, outside.count("\n", 0, found.start()) + 1, " ".join(found[1].split()))
        for found in SPAN.finditer(outside)
    ]


def require_parses(command: Command, *, whole: bool = True) -> None:
    """Fail where an option, a target, a program or a file that the command names is not there.

    `whole` asks for all needed arguments as well; a command within a sentence may leave them out.
    """
    program, *rest = command.words
    if program == "equipoise":
        _require_options(rest, whole)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text()
        for target in rest:
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{command}: no target {target}"
    else:
        _require_program(command, program, rest)


def _require_options(words: list[str], whole: bool) -> None:
    """Let the real command read its options; raises what it says of a wrong one."""
    group: Any = typer.main.get_command(cli.app)
    name, *rest = words
    assert name in group.commands, f"no command {name}"
    for word in rest:
        assert not word.startswith(("recipes/", "docs/", "tests/")) or (ROOT / word).exists(), f"{word} is absent"
    parser = group.commands[name]
    if whole:
        parser.make_context(name, list(rest))
    else:
        known = {option for one in parser.params for option in one.opts}
        unknown = [word for word in rest if word.startswith("--") and word.partition("=")[0] not in known]
        assert not unknown, f"equipoise {name}: no option {unknown}"


def _require_program(command: Command, program: str, words: list[str]) -> None:
    """`python FILE --option`, `python -m MODULE --option` and pytest: files are there, options stand in their text."""
    if words[:1] == ["-c"]:
        compile(words[1], str(command), "exec")
        return
    if program == "pytest" or words[:2] == ["-m", "pytest"]:
        files = [word for word in words if word.endswith(".py")]
        assert all((ROOT / name).is_file() for name in files), str(command)
        return
    module = words[:1] == ["-m"]
    place = ROOT / "src" / f"{words[1].replace('.', '/')}.py" if module else ROOT / words[0]
    assert place.is_file(), f"{command}: {place} is absent"
    source = place.read_text()
    if "compat/" not in words[0]:  # these hand their options to equipoise.compat, which a test lets read them
        for option in (word.partition("=")[0] for word in words if word.startswith("--")):
            assert f'"{option}"' in source, f"{command}: no option {option}"


def tables(text: str) -> list[list[list[str]]]:
    """The tables of a page in Markdown: rows of cells, the head first, without the line below it."""
    found = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.MULTILINE)
    split = [
        [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in one.splitlines()] for one in found
    ]
    return [[row for row in one if not all(re.fullmatch(r":?-+:?", cell) for cell in row)] for one in split]


def masked(text: str) -> str:
    """The same text without what differs from machine to machine: times, rates, memory, white space."""
    for pattern, instead in MASKS:
        text = re.sub(pattern, instead, text)
    return text.strip()
