"""Which kind of source a file is, by the names and the first values of its columns. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equipoise.recipe_sources import Columns, PromptColumns

Row = Mapping[str, Any]
Named = Mapping[str, str | list[str]]
ORCA = ("system", "question", "chosen", "rejected")
FINANCE = ("system", "user", "assistant")
REDDIT = ("id", "subreddit", "title", "selftext", "body")
REDDIT_SCORES = ("comment_normalized_score", "combined_score", "normalized_score", "z_score")
RANKED = (
    ("chosen", "rejected"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen_answer", "rejected_answer"),
    ("preferred", "dispreferred"),
    ("better", "worse"),
    ("good", "bad"),
)
LABELLED = (
    ("response1", "response2"),
    ("response_1", "response_2"),
    ("output_1", "output_2"),
    ("output1", "output2"),
    ("answer1", "answer2"),
    ("answer_1", "answer_2"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("first", "second"),
)
LABELS = re.compile(r"label|preference|preferred|winner|better|choice|annotator_?\d+")
PROMPTS: tuple[tuple[str, ...], ...] = (
    ("prompt",),
    ("instruction", "input"),
    ("instruction", "context"),
    ("question",),
    ("instruction",),
    ("conversations",),
    ("conversation",),
    ("messages",),
    ("query",),
    ("input",),
    ("context",),
    ("post",),
)
ANSWERS = ("completion", "response", "answer", "output")
"""Columns of the one answer of a row."""
COLUMN_KEYS = tuple(Columns.model_fields)


@dataclass(frozen=True)
class Layout:
    """How a file is read: a kind of source and further keys of it; `words` say it to a reader."""

    kind: str
    words: str
    options: Mapping[str, Any] = field(default_factory=dict)


def recognise(rows: Sequence[Row]) -> Layout | None:
    """The layout of a file by its first rows; None where its columns say nothing that is known."""
    names = dict.fromkeys(name for row in rows for name in row)
    if all(name in names for name in ORCA):
        return of_kind("orca", names)
    if all(name in names for name in REDDIT) and any(score in names for score in REDDIT_SCORES):
        return of_kind("reddit", names)
    prompt = _prompt(names)
    ranked = next((pair for pair in RANKED if all(side in names for side in pair)), None)
    if ranked == ("chosen", "rejected") and prompt is None and _starts(rows, "chosen", "Human:"):
        return of_kind("hh", names)
    if ranked and prompt is None and _whole_conversations(rows, ranked):
        return _table({"prompt": ranked[0], "chosen": ranked[0], "rejected": ranked[1]}, names)
    if ranked and prompt is not None:
        return _table({"prompt": prompt, **_system(names, prompt), "chosen": ranked[0], "rejected": ranked[1]}, names)
    sides = next((pair for pair in LABELLED if all(side in names for side in pair)), None)
    labels = [name for name in names if LABELS.fullmatch(name) and _holds(rows, name, (1, 2))]
    if sides and labels and prompt is not None:
        first, second = sides
        label = {"first": first, "second": second, "label": labels[0] if len(labels) == 1 else labels}
        return _table({"prompt": prompt, **_system(names, prompt), **label}, names)
    if all(name in names for name in FINANCE):
        return of_kind("finance_instruct", names)
    if prompt is not None and not ranked and not sides:
        return Layout("on_policy", "prompts without pairs", {"columns": {"prompt": prompt, **_system(names, prompt)}})
    return None


def singly_labelled(rows: Sequence[Row]) -> bool:
    """Whether each row is a prompt with one answer that is said to be good or bad (`label`: true or false)."""
    names = {name for row in rows for name in row}
    labels = {str(row.get("label")).strip().lower() for row in rows}
    return _prompt(dict.fromkeys(names)) is not None and not names.isdisjoint(ANSWERS) and labels <= {"true", "false"}


def of_kind(kind: str, names: Mapping[str, Any]) -> Layout:
    """The layout of a kind that knows its own columns."""
    said = {
        "orca": f"the columns {', '.join(ORCA)}",
        "hh": "whole dialogues in chosen and rejected",
        "reddit": "scored comments of posts, one row a comment",
        "finance_instruct": "questions with one answer each",
        "mt_bench_style": "questions in categories",
    }
    scores = [score for score in REDDIT_SCORES if score in names]
    options: dict[str, Any] = {}
    if kind == "reddit" and scores and scores[0] != REDDIT_SCORES[0]:
        options = {"score": scores[0], **({"rule": "original"} if scores[0] == "z_score" else {})}
    return Layout(kind, said.get(kind, f"kind {kind}"), options)


def of_columns(columns: Named) -> Layout:
    """The layout that named columns make: a table of pairs, or prompts alone."""
    if set(columns) <= set(PromptColumns.model_fields):
        return Layout("on_policy", "prompts without pairs", {"columns": dict(columns)})
    return _table(columns, {})


def _whole_conversations(rows: Sequence[Row], sides: tuple[str, str]) -> bool:
    """Whether both sides are conversations with their prompt, which stands in no column of its own."""
    found = [row.get(side) for row in rows for side in sides]
    return bool(found) and all(isinstance(side, list) and len(side) > 1 for side in found)


def _table(columns: Named, names: Mapping[str, Any]) -> Layout:
    group = {"group": "group"} if "group" in names else {}
    words = "pairs with a label" if "label" in columns else "chosen and rejected answers"
    return Layout("table", words, {"columns": {**columns, **group}})


def _prompt(names: Mapping[str, Any]) -> str | list[str] | None:
    found = next((columns for columns in PROMPTS if all(name in names for name in columns)), None)
    return None if found is None else found[0] if len(found) == 1 else list(found)


def _system(names: Mapping[str, Any], prompt: str | list[str]) -> dict[str, str]:
    if isinstance(prompt, str) and prompt in ("conversations", "conversation", "messages"):
        return {}  # a conversation has its own system message
    return next(({"system": name} for name in ("system", "system_prompt") if name in names), {})


def _starts(rows: Sequence[Row], name: str, mark: str) -> bool:
    texts = [row[name] for row in rows if isinstance(row.get(name), str)]
    return bool(texts) and all(text.lstrip().startswith(mark) for text in texts)


def _holds(rows: Sequence[Row], name: str, values: tuple[int, ...]) -> bool:
    """Whether some row has one of the values that a label may have."""
    wanted = {str(value) for value in values} | {f"{value}.0" for value in values}
    return any(str(row.get(name)).strip() in wanted for row in rows)
