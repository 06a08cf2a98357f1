"""The world's face: rows in the columns of the real data sets, seeded, the same in every process.

Training and evaluation never share a topic: chat prompts of the `eval` split are made of entities (people, firms,
things, places, goals) that no other split uses, and its reports belong to companies of their own.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from typing import Any

from equipoise.pocket import scenes_finance, scenes_general, scenes_reddit, table_world
from equipoise.pocket.style import Scene, draw, seed_of, utility, write

KINDS = ("general", "finance", "reddit", "tatqa", "mt_bench")
SPLITS = ("train", "eval", "reward", "pretrain")
SCENES: dict[str, Callable[[random.Random, bool], Scene]] = {
    "general": scenes_general.scene,
    "finance": scenes_finance.scene,
    "reddit": scenes_reddit.scene,
}
PAIR_NOISE = {"train": 0.5, "eval": 0.0, "reward": 0.4, "pretrain": 0.5}
SMALLEST_GAP = 0.4
Row = dict[str, Any]


def rows(kind: str, *, split: str, n: int, seed: int = 0) -> list[Row]:
    """`n` rows of one kind (for `tatqa`: documents) in the columns of the real source."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}, known: {', '.join(KINDS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}, known: {', '.join(SPLITS)}")
    make = {"tatqa": _documents, "mt_bench": _two_turn_rows, "reddit": _reddit_rows}.get(kind, _pair_rows)
    stream = make(kind, split, random.Random(seed_of("rows", kind, split, seed)))
    return [row for row, _ in zip(stream, range(n), strict=False)]


def scenes(kind: str, split: str, rng: random.Random) -> Iterator[Scene]:
    """Scenes with prompts that differ from each other, without end."""
    seen: set[tuple[tuple[str, str], ...]] = set()
    while True:
        scene = SCENES[kind](rng, split == "eval")
        prompt = tuple(turn for turn in scene.prompt if turn[0] == "user")
        if prompt not in seen:
            seen.add(prompt)
            yield scene


def pair(scene: Scene, rng: random.Random, noise: float) -> tuple[str, str]:
    """Two answers, better first, ordered by utility plus noise; answers too close to call are drawn again."""
    while True:
        drawn = []
        for _ in range(2):
            attributes = draw(scene, rng, "flat")
            text = write(scene, attributes, rng)
            drawn.append((utility(scene.domain, attributes, text), text))
        (a, first), (b, second) = drawn
        gap = a - b + rng.gauss(0.0, noise)
        if abs(a - b) >= SMALLEST_GAP and first != second:
            return (first, second) if gap > 0 else (second, first)


def _pair_rows(kind: str, split: str, rng: random.Random) -> Iterator[Row]:
    for i, scene in enumerate(scenes(kind, split, rng)):
        better, worse = pair(scene, rng, PAIR_NOISE[split])
        system, user = scene.prompt[0][1], scene.prompt[1][1]
        common = {"group": scene.group, "prompt_id": f"{kind}-{split}-{i}", "check": scene.task.check}
        if kind == "general":
            yield {"system": system, "question": user, "chosen": better, "rejected": worse, **common}
        else:
            yield {"system": system, "user": user, "assistant": better, "rejected": worse, **common}


def _reddit_rows(kind: str, split: str, rng: random.Random) -> Iterator[Row]:
    """Posts with 2-3 scored comments each, one row a comment; of an evaluation post only the best one."""
    for i, scene in enumerate(scenes(kind, split, rng)):
        comments: dict[str, float] = {}
        for _ in range(rng.choice((2, 3))):
            attributes = draw(scene, rng, "flat")
            text = write(scene, attributes, rng)
            comments[text] = utility("reddit", attributes, text) + rng.gauss(0.0, PAIR_NOISE[split])
        if len(comments) < 2:
            continue
        ranked = sorted(comments.items(), key=lambda item: -item[1])
        for text, liked in ranked[:1] if split == "eval" else ranked:
            about = {"group": scene.group, "check": scene.task.check}
            yield {"id": f"{split}{i}", **dict(scene.fields), "body": text, **_scores(liked, rng), **about}


def _scores(liked: float, rng: random.Random) -> dict[str, float]:
    """The data set's four score columns, all rising with how much the comment was liked."""
    votes = round(math.exp(1.6 + 0.8 * liked))
    share = 1.0 / (1.0 + math.exp(-liked))
    return {
        "z_score": round(liked, 4),
        "normalized_score": round(rng.random(), 4),
        "comment_normalized_score": round(share, 4),
        "combined_score": round(votes * (0.5 + share), 4),
    }


def _two_turn_rows(kind: str, split: str, rng: random.Random) -> Iterator[Row]:
    seen: set[str] = set()
    while True:
        first, second = scenes_general.two_turns(rng, split == "eval")
        turns = [first.prompt[-1][1], second.prompt[-1][1]]
        if turns[0] in seen:
            continue
        seen.add(turns[0])
        yield {
            "question_id": len(seen),
            "category": scenes_general.CATEGORY[first.kind],
            "turns": turns,
            "reference": [first.task.right, second.task.right],
            "check": [first.task.check, second.task.check],
            "group": first.group,
        }


def _documents(kind: str, split: str, rng: random.Random) -> Iterator[Row]:
    seen: set[str] = set()
    while True:
        told = table_world.report(rng, split == "eval")
        document = table_world.document(told, table_world.questions(told, rng, 6), rng)
        key = json.dumps([document["table"]["table"], [p["text"] for p in document["paragraphs"]]])
        if key not in seen:
            seen.add(key)
            yield document
