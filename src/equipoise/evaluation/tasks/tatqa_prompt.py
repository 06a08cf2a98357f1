"""Prompt and answer format of the table task: one document and one question in, one final `Answer:` line out.

Two layouts. `markdown` is for real models: a Markdown table, the passages, the question and the instruction to end
with an `Answer:` line. `cells` writes each cell with its row and column name, which a tiny model can look up by
continuing the cell's name; it carries no instruction, because the pocket model has learnt the format itself.
Pure standard library: the world's generator and the evaluation share this file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

SCALES = ("thousand", "million", "billion", "percent")
LAYOUTS = ("markdown", "cells")
INSTRUCTION = (
    "Answer the question from the table and the text. Think in a few short sentences, then finish with one line "
    "`Answer: <answer>`. Write the scale word (thousand, million, billion or percent) after the number where it "
    "applies, and separate several answers with `; `."
)
_ANSWER = re.compile(r"answer\s*:[ \t]*([^\n]*)", re.IGNORECASE)
_SCALED = re.compile(r"^(.*\d.*?)\s*\b(thousand|million|billion|percent)s?\.?$", re.IGNORECASE)


def render(document: Mapping[str, Any], question: Mapping[str, Any], *, layout: str = "markdown") -> str:
    """The user message for one question.

    Args:
        document: a TAT-QA document: `table.table` is a list of rows of strings, `paragraphs` a list with `text`.
        question: one of its questions; only `question` is read, never the answer.
        layout: `markdown` or `cells`.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}, known: {', '.join(LAYOUTS)}")
    rows = [[_one_line(cell) for cell in row] for row in document["table"]["table"]]
    passages = [_one_line(p["text"]) for p in sorted(document["paragraphs"], key=lambda p: int(p["order"]))]
    asked = _one_line(question["question"])
    if layout == "cells":
        return "\n ".join([*_cell_lines(rows), *passages, asked])
    text = "\n\n".join(passages)
    return f"### Table\n\n{_markdown(rows)}\n\n### Text\n\n{text}\n\n### Question\n\n{asked}\n\n{INSTRUCTION}"


def parse_answer(text: str) -> tuple[str | list[str], str]:
    """The answer and its scale from the last `Answer:` line (without one: from the last line that is not empty).

    `; ` separates several answers, which come back as a list; a trailing scale word after a number is the scale.
    """
    found = _ANSWER.findall(text)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = found[-1].strip() if found else (lines[-1] if lines else "")
    last = last.strip("`* ")
    parts = [part.strip() for part in last.split(";") if part.strip()]
    if len(parts) > 1:
        return _shared_scale(parts)
    return _split_scale(parts[0] if parts else "")


def _shared_scale(parts: Sequence[str]) -> tuple[list[str], str]:
    """Several answers carry one scale: the one that stands after each or after the last of them."""
    pairs = [_split_scale(part) for part in parts]
    return [answer for answer, _ in pairs], pairs[-1][1]


def _split_scale(part: str) -> tuple[str, str]:
    match = _SCALED.match(part)
    if match:
        return match.group(1).strip(), match.group(2).lower()
    return part, ""


def _one_line(text: str) -> str:
    return " ".join(str(text).split())


def _header(rows: Sequence[Sequence[str]]) -> int:
    """Index of the first row that names columns (has text right of its first cell); -1 for none."""
    return next((i for i, row in enumerate(rows) if any(row[1:])), -1)


def _cell_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """`| row column: value |` per cell, one line per row; a row without values stands alone."""
    top = _header(rows)
    names = rows[top] if top >= 0 else []
    lines: list[str] = []
    for i, row in enumerate(rows):
        label = row[0] if row else ""
        if i == top or not any(row[1:]):
            if label:
                lines.append(f"| {label} |")
            continue
        cells = [
            f"{' '.join(part for part in (label, names[j] if j < len(names) else '') if part)}: {value}"
            for j, value in enumerate(row)
            if j > 0 and value
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; short rows are filled, a bar inside a cell is escaped."""
    width = max((len(row) for row in rows), default=0)
    if not width:
        return "(empty)"
    filled = [[cell.replace("|", "\\|") for cell in row] + [""] * (width - len(row)) for row in rows]
    lines = ["| " + " | ".join(row) + " |" for row in filled]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])
