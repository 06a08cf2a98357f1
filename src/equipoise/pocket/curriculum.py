"""Training text of the pocket model, in the order that makes copying appear.

A small model does not find in-context copying in language by itself. Short rows of pure repetition (with a random
period, so that no fixed offset solves them) and of lookups by two keys come first, then tables and reports, and
only then questions and chat. A document is a list of (text, weight): weight 1 for what must be right, 0 for what
nothing can predict; `row` gives other positions a small weight at random.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from equipoise.evaluation.tasks.tatqa_prompt import render
from equipoise.pocket import scenes_general, table_world, words, world
from equipoise.pocket.build_tokenizer import END, START, single_tokens
from equipoise.pocket.style import Scene, draw, write_parts

Piece = tuple[str, float]
Document = list[Piece]
BACKGROUND_SHARE, BACKGROUND_WEIGHT = 0.12, 0.2
SYSTEM_DROPPED = 0.15
BODY_WEIGHT, WRONG_WEIGHT, STYLE_WEIGHT = 1.0, 0.3, 0.5  # of a chat answer's parts: what must be looked up counts most


@dataclass(frozen=True)
class Stage:
    """One part of the order: row length, rows a batch, shares of the kinds, and the skills that end it."""

    length: int
    batch: int
    shares: dict[str, float]
    leave_at: dict[str, float]


STAGES = (
    Stage(64, 48, {"copy": 0.25, "ngram": 0.15, "cells": 0.6}, {"copy": 0.9, "ngram": 0.85, "cells": 0.9}),
    Stage(128, 24, {"repeat": 0.5, "cells": 0.3, "ngram": 0.2}, {"repeat": 0.85, "cells": 0.8}),
    Stage(256, 12, {"questions": 0.6, "repeat": 0.35, "cells": 0.05}, {"questions": 0.9}),
    Stage(256, 12, {"questions": 0.4, "chat": 0.5, "repeat": 0.05, "cells": 0.03, "ngram": 0.02}, {}),
)

LAST_STAGE = Stage(256, 12, {"questions": 0.35, "settled": 0.6, "repeat": 0.05}, {})
"""Short, at a falling rate, after all others: how the model speaks in the end."""


def any_words(rng: random.Random, n: int) -> list[str]:
    """Different words of all pools, with the space that makes them tokens."""
    return rng.sample(_WORDS, n)


_WORDS = single_tokens()


def copy(rng: random.Random, length: int) -> Document:
    """Random words, then the same words again from another start, until the row is full."""
    base = any_words(rng, rng.randint(3, max(4, min(14, length // 2 - 2))))
    pieces: Document = [("".join(base), 0.0)]
    size = len(base)
    while size < length:
        turn = rng.randrange(1, len(base))
        pieces += [(base[turn], 0.0), ("".join(base[turn + 1 :]), 1.0), (base[0], 0.0), ("".join(base[1:turn]), 1.0)]
        size += len(base)
    return [piece for piece in pieces if piece[0]]


def ngram(rng: random.Random, length: int) -> Document:
    """A string over few words, then pieces of it: one word alone does not tell the next, two do."""
    alphabet = any_words(rng, rng.randint(3, 6))
    base = [rng.choice(alphabet)]
    used: set[tuple[str, str]] = set()
    while len(base) < 18:
        free = [word for word in alphabet if (base[-1], word) not in used]
        if not free:
            break
        used.add((base[-1], word := rng.choice(free)))
        base.append(word)
    pieces: Document = [("".join(base), 0.0)]
    size = len(base)
    while size < length and len(base) > 5:
        start = rng.randrange(len(base) - 4)
        part = base[start : start + rng.randint(4, 10)]
        pieces += [("".join(part[:2]), 0.0), ("".join(part[2:]), 1.0)]
        size += len(part)
    return pieces


def cells(rng: random.Random, length: int) -> Document:
    """Bare cells `item year: value |` and the same cells in another order; both keys are needed."""
    top = 2 if length <= 64 else 4
    items, years = (
        any_words(rng, rng.randint(1, top)),
        rng.sample(words.YEARS, rng.randint(2, 2 if length <= 64 else 3)),
    )
    table = {(item, year): rng.choice(words.NUMBERS) for item in items for year in years}
    pieces: Document = [(" |" + "".join(f"{i} {y}: {v} |" for (i, y), v in table.items()), 0.0)]
    size = 6 * len(table)
    while size < length:
        for (item, year), value in rng.sample(sorted(table.items()), len(table)):
            pieces += [(f"{item} {year}:", 0.0), (f" {value}", 1.0), (" |", 0.0)]
            size += 6
    return pieces


def _report(rng: random.Random, all_words: bool) -> tuple[table_world.Report, dict[str, Any]]:
    items: Sequence[str] = [w.strip() for w in any_words(rng, 8)] if all_words else words.ITEMS
    told = table_world.report(rng, False, items, top=99 if all_words else 24)
    return told, table_world.document(told, table_world.questions(told, rng, 7), rng)


def repeat(rng: random.Random, length: int) -> Document:
    """A report and the request to say its table or its text again, in chat format; item names are any words."""
    told, document = _report(rng, rng.random() < 0.7)
    if length <= 128:
        document = {**document, "paragraphs": document["paragraphs"][:1]}
    rows = [[(f" {item} {year}:", 0.2), (f" {value}", 1.0), (" |", 0.2)] for (item, year), value in told.values.items()]
    rng.shuffle(rows)
    table = [piece for row in rows for piece in row]
    if length > 128 and rng.random() < 0.5:
        text = list(table_world.sentences(told).values())
        rng.shuffle(text)
        return _turns(
            render(document, {"question": "Write the text again."}, layout="cells"), [(f" {' '.join(text)}", 1.0)]
        )
    return _turns(render(document, {"question": "Write the table again."}, layout="cells"), table)


def questions(rng: random.Random, length: int) -> Document:
    """Several questions on one report; only the first prompt holds the report."""
    told = table_world.report(rng, False)
    asked = table_world.questions(told, rng, 7)
    document = table_world.document(told, asked, rng)
    first, *rest = asked
    pieces = _turns(render(document, {"question": first.question}, layout="cells"), [(f" {first.response}", 1.0)])
    for later in rest:
        pieces += _turns(later.question, [(f" {later.response}", 1.0)])
    return pieces


def chat(rng: random.Random, length: int) -> Document:
    """One conversation of a chat domain, answered in the mixed manner."""
    return _conversation(rng, "plain")


def settled(rng: random.Random, length: int) -> Document:
    """One conversation of a chat domain, answered in the manner that the model ends with."""
    return _conversation(rng, "settled")


def _conversation(rng: random.Random, manner: str) -> Document:
    if rng.random() < 0.12:
        first, scene = scenes_general.two_turns(rng, False)
        scene = scene if rng.random() < 0.8 else first
        return _answered(scene, rng, list(scene.prompt), manner)
    scene = world.SCENES[rng.choice(("general", "finance", "reddit"))](rng, False)
    turns = [turn for turn in scene.prompt if turn[0] != "system" or rng.random() > SYSTEM_DROPPED]
    return _answered(scene, rng, turns, manner)


def _answered(scene: Scene, rng: random.Random, turns: Sequence[tuple[str, str]], manner: str) -> Document:
    attributes = draw(scene, rng, manner)
    body = BODY_WEIGHT if attributes["correct"] else WRONG_WEIGHT
    answer = [
        (f" {text}", body if told == "body" else STYLE_WEIGHT) for text, told in write_parts(scene, attributes, rng)
    ]
    before = "".join(f"{START}{role}\n {content}{END}\n" for role, content in turns[:-1])
    return [*([(before, 0.0)] if before else []), *_turns(turns[-1][1], answer)]


def _turns(user: str, answer: Document) -> Document:
    """A user turn and an answer, as the chat template writes them."""
    return [(f"{START}user\n {user}{END}\n{START}assistant\n", 0.0), *answer, (END, 1.0), ("\n", 0.0)]


MAKE: dict[str, Callable[[random.Random, int], Document]] = {
    "copy": copy, "ngram": ngram, "cells": cells, "repeat": repeat, "questions": questions, "chat": chat,
    "settled": settled,
}  # fmt: skip


def row(stage: Stage, rng: random.Random, encode: Callable[[str], list[int]]) -> tuple[list[int], list[float], str]:
    """One row of `stage.length` tokens with weights; the first document's kind names the row, chat fills its end."""
    kind = rng.choices(list(stage.shares), weights=list(stage.shares.values()))[0]
    chatty = next((name for name in ("chat", "settled") if name in stage.shares), kind)
    fill = kind if kind in ("copy", "ngram", "cells") else chatty
    ids: list[int] = []
    weights: list[float] = []
    while len(ids) < stage.length:
        for text, weight in MAKE[kind if not ids else fill](rng, stage.length):
            tokens = encode(text)
            ids += tokens
            weights += [weight] * len(tokens)
    ids, weights = ids[: stage.length], weights[: stage.length]
    background = [w or (BACKGROUND_WEIGHT if rng.random() < BACKGROUND_SHARE else 0.0) for w in weights]
    return ids, background, kind
