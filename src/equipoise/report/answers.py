"""Answers side by side: most improved, most damaged, and some at random."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from equipoise.records import Score
from equipoise.report.changed import Pieces, changed
from equipoise.report.read import RunFiles
from equipoise.report.shape import NO_HEALTH
from equipoise.report.text import short, shorten

EACH = 4
"""So many answers of each kind and domain are shown."""
_PER_TURN = 900
_TURNS = 6
_GOLD = 400
_NAME = 120
_GIST = 90

Text = tuple[str, int]
"""The beginning of a text, and how many characters were left out."""


@dataclass(frozen=True)
class Side:
    """The answers of one model to one question, in pieces that the other one has or not, with what is left out."""

    score: str
    notes: str
    turns: list[tuple[Pieces, int]]


@dataclass(frozen=True)
class Example:
    """One question with both answers; `gist` is what it asks, in a line."""

    kind: str
    id: str
    gist: str
    category: str
    change: str
    question: list[tuple[str, Text]]
    expected: Text
    before: Side
    after: Side


def examples(files: RunFiles) -> list[tuple[str, list[Example]]]:
    """For each domain the questions worth reading."""
    found = []
    for name in files.domains:
        sides = files.sides(name)
        if sides:
            chosen = _choose(sides, random.Random(f"{files.seed}/{name}"))
            found.append((name, [_example(kind, pair, files.questions) for kind, pair in chosen]))
    return found


def _choose(sides: Sequence[tuple[Score, Score]], chance: random.Random) -> list[tuple[str, tuple[Score, Score]]]:
    """Most improved, most damaged, random: no question twice."""
    by_change = sorted((pair for pair in sides if _change(pair) is not None), key=lambda pair: _change(pair) or 0.0)
    damaged = [pair for pair in by_change[:EACH] if (_change(pair) or 0.0) < 0]
    improved = [pair for pair in reversed(by_change[-EACH:]) if (_change(pair) or 0.0) > 0]
    taken = {one.id for one, _ in [*damaged, *improved]}
    rest = [pair for pair in sides if pair[0].id not in taken]
    drawn = chance.sample(rest, min(EACH, len(rest)))
    kinds = (("most improved", improved), ("most damaged", damaged), ("random", drawn))
    return [(kind, pair) for kind, pairs in kinds for pair in pairs]


def _change(pair: tuple[Score, Score]) -> float | None:
    before, after = pair[0].value, pair[1].value
    return None if before is None or after is None else after - before


def _example(kind: str, pair: tuple[Score, Score], questions: Mapping[tuple[str, str], Mapping[str, Any]]) -> Example:
    one, other = pair
    change = _change(pair)
    item = questions.get((one.task, one.id), {})
    gold = shorten(json.dumps(item["gold"], ensure_ascii=False) if item.get("gold") else "", _GOLD)
    said = "unscored" if change is None else f"{change:+.3g}" if change else "no change"
    before, after = _turns(one.answers, other.answers)
    name, category = shorten(one.id, _NAME)[0], shorten(one.category, _NAME)[0]
    return Example(
        kind, name, _gist(item), category, said, _question(item), gold, _side(one, before), _side(other, after)
    )


def _turns(before: Sequence[str], after: Sequence[str]) -> tuple[list[tuple[Pieces, int]], list[tuple[Pieces, int]]]:
    """Both sides' answers turn by turn, compared in the part of them that is shown."""
    sides: tuple[list[tuple[Pieces, int]], list[tuple[Pieces, int]]] = ([], [])
    for one, other in list(zip_longest(before, after, fillvalue=""))[:_TURNS]:
        (left, left_out), (right, right_out) = shorten(one), shorten(other)
        for side, pieces, out in zip(sides, changed(left, right), (left_out, right_out), strict=True):
            side.append((pieces, out))
    return sides


def _gist(item: Mapping[str, Any]) -> str:
    """The last line of a question: what comes before it is often a table or a document."""
    said = [message for message in item.get("prompt") or [] if isinstance(message, dict)]
    lines = str(said[-1].get("content", "")).strip().splitlines() if said else []
    gist, left = shorten(lines[-1].strip() if lines else "", _GIST)
    return f"{gist} …" if left else gist


def _question(item: Mapping[str, Any]) -> list[tuple[str, Text]]:
    """The turns of a question, where the run keeps it."""
    prompt = [message for message in item.get("prompt") or [] if isinstance(message, dict)]
    turns = [(str(message.get("role", "")), str(message.get("content", ""))) for message in prompt]
    turns += [("follow-up", str(text)) for text in item.get("follow_ups") or []]
    return [(role, shorten(text, _PER_TURN)) for role, text in turns[:_TURNS]]


def _side(score: Score, turns: list[tuple[Pieces, int]]) -> Side:
    shown = "unscored: " + (score.unscored or "") if score.value is None else short(score.value)
    health = score.health
    notes = [f"{name} {short(value)}" for name, value in score.metrics.items()]
    if health is NO_HEALTH:
        return Side(shown, ", ".join(notes), turns)
    marks = {
        "empty": health.empty,
        "cut off": health.cut_off,
        "repeated": health.repeated,
        "in another language": health.switched,
    }
    notes += [name for name, on in marks.items() if on]
    notes.append(f"{health.words} words")
    return Side(shown, ", ".join(notes), turns)
