"""Item by item: what every run scored on every question, packed for the page, and answers where runs differ most."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equipoise.records import Score
from equipoise.report.reader import BAD
from equipoise.report.text import short, shorten, visible
from equipoise.run_folder import read_lines
from equipoise.study.entrants import Entrants, Finished
from equipoise.study.evidence import Floats
from equipoise.study.leaderboard import Board

PER_DOMAIN = 25
"""Answers are shown for at most so many questions of a domain."""
ANSWERS = 3_000_000
"""So many characters of answers a page holds at most."""
LONGEST = 700
"""So many characters of an answer or a question are shown."""
LISTED = 10
"""So many questions stand in the list that needs no script."""


@dataclass(frozen=True)
class Member:
    """A run in the list that two are chosen from: its recipe's number in the table, and which of its seeds."""

    label: str
    row: int
    seed: int
    run: Finished


@dataclass(frozen=True)
class Count:
    """On how many questions of a domain one run is better than the other; `told` says what is shown of the recipes."""

    domain: str
    one: int
    other: int
    same: int
    unscored: int
    told: str


@dataclass(frozen=True)
class Differing:
    """A question on which two runs differ: their scores, and the base's."""

    domain: str
    item: str
    base: str
    one: str
    other: str
    change: str


def members(board: Board, finished: Sequence[Finished]) -> list[Member]:
    """All runs of the table, in its order."""
    by_folder = {run.folder: run for run in finished}
    return [
        Member(f"{row.name}, seed {seed}" if len(row.entrant.seeds) > 1 else row.name, number, place, by_folder[folder])
        for number, row in enumerate(board.rows)
        for place, (seed, folder) in enumerate(zip(row.entrant.seeds, row.entrant.folders, strict=True))
    ]


def first_pair(runs: Sequence[Member]) -> tuple[int, int]:
    """The two runs that are shown first: those of the two best recipes, or two seeds of one."""
    return 0, next((number for number, run in enumerate(runs) if run.row), len(runs) - 1)


def packed(board: Board, runs: Sequence[Member]) -> list[dict[str, Any]]:
    """For each domain the ids of its questions and all values, [runs, items] in base64 (32-bit floats, NaN unscored).

    Base values that are the same for many runs are there once: `base_of` says which ones are a run's.
    """
    found = []
    for name, domain in board.entrants.domains.items():
        after = np.stack([board.rows[run.row].entrant.after[name][run.seed] for run in runs])
        bases: dict[bytes, int] = {}
        base_of = [
            bases.setdefault(_bytes(board.rows[run.row].entrant.before[name][run.seed]), len(bases)) for run in runs
        ]
        found.append(
            {
                "name": visible(name),
                "ids": [visible(key) for key in domain.ids],
                "values": base64.b64encode(_bytes(after)).decode(),
                "bases": base64.b64encode(b"".join(bases)).decode(),
                "base_of": base_of,
            }
        )
    return found


def _bytes(values: Floats) -> bytes:
    return np.ascontiguousarray(values, dtype="<f4").tobytes()


def shown_better(board: Board) -> str:
    """Who is shown to be better than whom: for each two recipes 32 bits, one for each domain, in base64."""
    names = {row.name: number for number, row in enumerate(board.rows)}
    table = np.zeros((len(names), len(names)), dtype="<u4")
    for (one, other), domains in board.better.items():
        table[names[one], names[other]] = sum(1 << list(board.units).index(name) for name in domains)
    return base64.b64encode(table.tobytes()).decode()


def answers(entrants: Entrants, runs: Sequence[Member]) -> dict[str, Any]:
    """Questions on which runs differ most, with the answers of all runs.

    `texts` are all texts once; an item has its `domain` and `item` numbers, its `question`, what was `expected`, and
    for each run the number of its answer.
    """
    texts: dict[str, int] = {}
    questions = _questions(runs, entrants)
    found: list[dict[str, Any]] = []
    size = 0
    for domain, item in _most_disputed(entrants, runs):
        name = list(entrants.domains)[domain]
        key = entrants.domains[name].ids[item]
        said = [_answer(run.run.end[name][key]) for run in runs]
        size += sum(len(text) for text in set(said) if text not in texts)
        if size > ANSWERS:
            break
        question, expected = questions.get((name, key), ("", ""))
        found.append(
            {
                "domain": domain,
                "item": item,
                "question": question,
                "expected": expected,
                "answers": [texts.setdefault(text, len(texts)) for text in said],
            }
        )
    return {"texts": list(texts), "items": found}


def _most_disputed(entrants: Entrants, runs: Sequence[Member]) -> list[tuple[int, int]]:
    """Questions by how far the runs' scores lie apart, domain by domain in turn."""
    turns: list[tuple[int, int, int]] = []
    for number, (name, domain) in enumerate(entrants.domains.items()):
        rows = [[_value(run.run.end[name][key]) for key in domain.ids] for run in runs]
        values = np.array(rows)
        scored = ~np.isnan(values)
        mean = np.where(scored, values, 0.0).sum(axis=0) / np.maximum(1, scored.sum(axis=0))
        spread = np.where(scored, np.square(values - mean), 0.0).sum(axis=0)
        order = np.argsort(-spread, kind="stable")[:PER_DOMAIN]
        turns += [(place, number, int(item)) for place, item in enumerate(order) if spread[item] > 0]
    return [(number, item) for _, number, item in sorted(turns)]


def _value(score: Score) -> float:
    return float("nan") if score.value is None else score.value


def _answer(score: Score) -> str:
    said = [score.unscored or ""] if score.value is None else []
    cut, left = shorten("\n\n".join(score.answers), LONGEST)
    more = f" … {left} characters left out" if left else ""
    return visible("\n".join([*(f"[unscored: {why}]" for why in said), cut + more])) or "(no text)"


def _questions(runs: Sequence[Member], entrants: Entrants) -> dict[tuple[str, str], tuple[str, str]]:
    """Question and expected answer by domain and id, from the first run that keeps them."""
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for name in entrants.domains:
        path = next((p for run in runs if (p := run.run.folder / "items" / f"{name}.jsonl").is_file()), None)
        if path is None:
            continue
        try:
            found |= {(name, str(line["id"])): _question(line) for line in read_lines(path)}
        except BAD:  # without it the answers stand alone
            continue
    return found


def _question(item: Mapping[str, Any]) -> tuple[str, str]:
    turns = [str(message["content"]) for message in item["prompt"]] + [str(turn) for turn in item.get("follow_ups", ())]
    said, left = shorten("\n\n".join(turns), LONGEST)
    gold = shorten(json.dumps(item["gold"], ensure_ascii=False), LONGEST)[0] if item.get("gold") else ""
    return visible(said + (f" … {left} characters left out" if left else "")), visible(gold)


def compared(board: Board, one: Member, other: Member) -> tuple[list[Count], list[Differing]]:
    """Two runs question by question: counts by domain, and the questions on which they differ most."""
    counts, rows = [], []
    for name, domain in board.entrants.domains.items():
        x, y = (board.rows[run.row].entrant.after[name][run.seed].astype(np.float32) for run in (one, other))
        base = board.rows[one.row].entrant.before[name][one.seed]
        difference = x - y
        unscored = int(np.isnan(difference).sum())
        counts.append(
            Count(
                name,
                int((difference > 0).sum()),
                int((difference < 0).sum()),
                int((difference == 0).sum()),
                unscored,
                _told(board, one, other, name),
            )
        )
        unit = board.units[name] or 1.0
        rows += [
            (abs(d) / unit, Differing(name, domain.ids[k], _said(base[k]), _said(x[k]), _said(y[k]), f"{d:+.3g}"))
            for k, d in enumerate(difference)
            if d and not np.isnan(d)
        ]
    rows.sort(key=lambda row: -row[0])
    return counts, [row for _, row in rows[:LISTED]]


def _told(board: Board, one: Member, other: Member, domain: str) -> str:
    names = [board.rows[run.row].name for run in (one, other)]
    if domain in board.better.get((names[0], names[1]), ()):
        return "the first is shown to be better"
    if domain in board.better.get((names[1], names[0]), ()):
        return "the second is shown to be better"
    return "not told apart"


def _said(value: float) -> str:
    return "unscored" if np.isnan(value) else short(float(value))
