"""A recipe as text with a comment on every line, for someone who reads one for the first time. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.records import InputError
from equipoise.yaml_text import parse_yaml, plain

COLUMN = 44
"""Where comments begin; where there is no room for one beside its line it stands above."""
WIDTH = 120
_PLAIN = re.compile(r"[A-Za-z0-9_./~][A-Za-z0-9_./~+-]*")


@dataclass(frozen=True)
class Key:
    """A key of a recipe: its value (keys of its own make it a block) and what a newcomer should know of it."""

    name: str
    value: Any
    comment: str = ""


@dataclass(frozen=True)
class Entries:
    """A list whose entries are blocks."""

    blocks: Sequence[Sequence[Key]]


def written(head: Sequence[str], keys: Sequence[Key]) -> str:
    """The text of a recipe: lines of comment, then its keys."""
    blocks = ["\n".join(f"# {line}" for line in head)]
    for key in keys:
        block = "\n".join(_lines([key], ""))
        blocks.append(f"\n{block}" if "\n" in block else block)
    return "\n".join(blocks) + "\n"


def values(keys: Sequence[Key]) -> dict[str, Any]:
    """The same as plain values, for comparing them with what is read back."""
    return {key.name: _value(key.value) for key in keys}


def _value(value: Any) -> Any:
    if isinstance(value, Entries):
        return [values(block) for block in value.blocks]
    return values(value) if _is_block(value) else value


def _is_block(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(key, Key) for key in value)


def _lines(keys: Sequence[Key], indent: str) -> Iterator[str]:
    for key in keys:
        if isinstance(key.value, Entries):
            yield from _commented(f"{indent}{key.name}:", key.comment)
            for block in key.value.blocks:
                yield from _with_dash(list(_lines(block, f"{indent}    ")), len(indent))
        elif _is_block(key.value):
            yield from _commented(f"{indent}{scalar(key.name)}:", key.comment)
            yield from _lines(key.value, f"{indent}  ")
        else:
            yield from _commented(f"{indent}{scalar(key.name)}: {_flow(key.value)}", key.comment)


def _with_dash(lines: Sequence[str], indent: int) -> Iterator[str]:
    """The lines of a list's entry, with a dash before its first key."""
    begun = False
    for line in lines:
        if begun or line.lstrip().startswith("#"):
            yield line
        else:
            begun = True
            yield f"{line[: indent + 2]}- {line[indent + 4 :]}"


def _commented(line: str, comment: str) -> Iterator[str]:
    if not comment:
        yield line
    elif max(COLUMN, len(line) + 2) + 2 + len(comment) <= WIDTH:
        yield f"{line:<{max(COLUMN, len(line) + 2)}}# {comment}"
    else:
        indent = line[: len(line) - len(line.lstrip())]
        yield from (f"{indent}# {part}" for part in textwrap.wrap(comment, WIDTH - len(indent) - 2))
        yield line


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(name)}: {_flow(child)}" for name, child in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(child) for child in value) + "]"
    return scalar(value)


def scalar(value: str | int | float | bool) -> str:
    """A value as YAML reads it back; a text that would become something else is quoted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        mantissa, _, power = f"{value:e}".partition("e")
        return f"{float(mantissa):g}e{int(power)}" if 0 < value <= 1e-3 else f"{value:g}"
    if "${" in value:
        raise InputError(f"init: {value!r}: a recipe takes ${{...}} for an environment variable; give it another name")
    if _PLAIN.fullmatch(value) and plain(parse_yaml(value, "init")) == value:
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable() or plain(parse_yaml(f'"{escaped}"', "init")) != value:
        raise InputError(
            f"init: {value!r}: a recipe cannot say this (it would be read otherwise); give it another name"
        )
    return f'"{escaped}"'
