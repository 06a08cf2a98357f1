"""Kind `table`: any table whose columns the recipe names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from equipoise.data.built import Built, Dropped, collect, column, optional_text, pair, text, turns
from equipoise.data.read import source_rows
from equipoise.recipe import Columns, PromptColumns, TableSource
from equipoise.records import Message, Pair, Role, canonical

Row = Mapping[str, Any]
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def build(name: str, spec: TableSource) -> Built:
    """One pair per row that says which answer is better; ties are dropped and counted."""
    rows = source_rows(name, spec, list(column_names(spec.columns)), None)
    return collect(name, spec, rows, lambda row: convert(row, name, spec))


def convert(row: Row, name: str, spec: TableSource) -> Pair:
    """The pair of one row; raises Dropped where it has none."""
    columns = spec.columns
    better, worse = _sides(row, columns)
    whole = columns.prompt in (columns.chosen, columns.first)
    prompt = _shared_prompt(row, better, worse) if whole else prompt_of(row, columns)
    chosen, rejected = _answer(row, better), _answer(row, worse)
    group = None if columns.group is None else group_of(column(row, columns.group))
    return pair(prompt, chosen, rejected, spec=spec, name=name, group=group)


def column_names(columns: Columns | PromptColumns) -> Iterator[str]:
    """Every column that a recipe names."""
    for name in columns.model_dump(exclude_none=True).values():
        yield from name if isinstance(name, list) else [name]


def _sides(row: Row, columns: Columns) -> tuple[str, str]:
    """Names of the columns that hold the better and the worse answer."""
    if columns.label is None:
        return str(columns.chosen), str(columns.rejected)
    better = verdict(row, [columns.label] if isinstance(columns.label, str) else columns.label)
    first, second = str(columns.first), str(columns.second)
    return (first, second) if better == 1 else (second, first)


def verdict(row: Row, names: list[str]) -> int:
    """1 or 2, whichever more than half of the given votes say; raises Dropped for a tie or no vote at all."""
    votes = [_vote(row[name]) for name in names if row.get(name) is not None]
    if not votes:
        raise Dropped("missing value", ", ".join(names))
    winner, count = Counter(votes).most_common(1)[0]
    if winner == 0 or 2 * count <= len(votes):
        raise Dropped("tie", malformed=False)
    return winner


def _vote(value: Any) -> int:
    """1, 2, or 0 for anything else; CSV and Parquet give labels as text or as floats."""
    written = value.strip() if isinstance(value, str) else value
    if isinstance(written, bool):
        return 0
    return 1 if written in (1, "1", "1.0") else 2 if written in (2, "2", "2.0") else 0


def prompt_of(row: Row, columns: Columns | PromptColumns) -> tuple[Message, ...]:
    """The prompt of a row; raises Dropped where it has none."""
    system = optional_text(row, columns.system) if columns.system else ""
    if isinstance(columns.prompt, str) and isinstance(row.get(columns.prompt), list):
        said = [_message(message, columns.prompt) for message in row[columns.prompt]]
    elif isinstance(columns.prompt, str):
        said = [("user", text(column(row, columns.prompt), columns.prompt))]
    else:
        parts = [optional_text(row, name) for name in columns.prompt]
        said = [("user", "\n\n".join(part for part in parts if part))]
    if system and said and said[0][0] == "system":
        raise Dropped("turns out of order", "a system column beside a system message")
    return turns([("system", system), *said] if system else said)


def _shared_prompt(row: Row, better: str, worse: str) -> tuple[Message, ...]:
    """What two whole conversations say before their answers; raises Dropped where that is not the same."""
    found = []
    for name in (better, worse):
        value = column(row, name)
        if not isinstance(value, list) or len(value) < 2:
            raise Dropped("wrong type", f"{name}: no conversation of a prompt and an answer")
        found.append(turns(_message(message, name) for message in value[:-1]))
    if found[0] != found[1]:
        raise Dropped("prompts differ", f"{better} and {worse} say different things before the answer")
    return found[0]


def _answer(row: Row, name: str) -> str:
    """Text, one assistant message, or a conversation whose last message is the answer."""
    value = column(row, name)
    if isinstance(value, list) and value:
        value = value[-1]
    if not isinstance(value, Mapping):
        return text(value, name)
    role, content = _message(value, name)
    if role != "assistant":
        raise Dropped("wrong type", f"{name}: a message of the {role} where an answer belongs")
    return content


def _message(value: Any, name: str) -> tuple[Role, str]:
    """One message, as `{role, content}` or `{from, value}`."""
    if not isinstance(value, Mapping):
        raise Dropped("wrong type", f"{name}: {type(value).__name__} where a message belongs")
    said, content = (value.get("role", value.get("from")), value.get("content", value.get("value")))
    role = _ROLES.get(said) if isinstance(said, str) else None
    if role is None:
        raise Dropped("wrong type", f"{name}: a message of {str(said)[:20]!r}; known: {', '.join(_ROLES)}")
    if content is None:
        raise Dropped("missing value", f"{name}: a message without text")
    return role, text(content, name)


def group_of(value: Any) -> str:
    """The name of a group; raises Dropped where it is neither a name nor a number."""
    if isinstance(value, str):
        return text(value, "group")
    if not isinstance(value, int | float) or (isinstance(value, float) and math.isinf(value)):
        raise Dropped("wrong type", f"group: {type(value).__name__} where a name or number belongs")
    return canonical(value)
