"""Kind `pocket`: pairs from the embedded synthetic world, in the columns of the real sources.

The world stands beside this package and is reached by name only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.data.built import Built, Dropped, collect, pair
from equipoise.data.prompts import post_prompt, system_and_user
from equipoise.data.sources import orca
from equipoise.recipe import PocketSource
from equipoise.records import Pair

Row = Mapping[str, Any]
MIN_RATIO = 2.0
"""The better comment has at least this many times the score of the worse one ..."""
MIN_PERCENTILES = 0.2
"""... and stands at least this much higher among the comments of the forum (both 0-1)."""


def build(name: str, spec: PocketSource) -> Built:
    """Pairs of one of the world's domains; its groups are topics, which evaluation never shares."""
    world = importlib.import_module("equipoise.pocket.world")
    rows: list[dict[str, Any]] = world.rows(spec.domain, split="train", n=spec.rows, seed=spec.seed)
    if spec.domain == "reddit":
        return _from_posts(name, spec, rows)
    convert = _general if spec.domain == "general" else _finance
    return collect(name, spec, rows, lambda row: convert(row, name, spec))


def _general(row: Row, name: str, spec: PocketSource) -> Pair:
    return orca.convert(row, name, spec, row["group"])


def _finance(row: Row, name: str, spec: PocketSource) -> Pair:
    prompt = system_and_user(row["system"], row["user"])
    chosen, rejected = row["assistant"].strip(), row["rejected"].strip()
    return pair(prompt, chosen, rejected, spec=spec, name=name, group=row["group"])


def _from_posts(name: str, spec: PocketSource, rows: Sequence[Row]) -> Built:
    posts: dict[str, list[Row]] = {}
    for row in rows:
        posts.setdefault(row["id"], []).append(row)
    built = collect(name, spec, posts.values(), lambda comments: _best_and_worst(comments, name, spec))
    more = {"further comments of a post": len(rows) - len(posts)}
    return Built(built.pairs, len(rows), dict(sorted({**built.dropped, **more}.items())))


def _best_and_worst(comments: Sequence[Row], name: str, spec: PocketSource) -> Pair:
    """The best comment of a post against its worst, where the gap is real; there is no second choice."""
    ranked = sorted(comments, key=lambda row: (row["combined_score"], row["body"]))
    worst, best = ranked[0], ranked[-1]
    ratio = best["combined_score"] >= MIN_RATIO * max(worst["combined_score"], 1.0)
    gap = best["comment_normalized_score"] - worst["comment_normalized_score"]
    if not ratio or gap < MIN_PERCENTILES:
        raise Dropped("no pair in this post", malformed=False)
    prompt = post_prompt(best["title"], best["selftext"])
    chosen, rejected = best["body"].strip(), worst["body"].strip()
    return pair(prompt, chosen, rejected, spec=spec, name=name, group=best["group"])
