"""Reddit: replies to posts of forums about money.

Link: https://huggingface.co/datasets/winddude/reddit_finance_43_250k, one row for each comment of a post; take a
`limit`. What is evaluated must not be trained on: cleaning removes pairs that overlap with these items.
Licence: as its page on the hub states; the texts belong to their authors. Version 2.
Sample: subreddit, title and text of a post, then "Write a helpful reply to this post."
Chance level: none; a reward has no floor.
Value: raw reward of the reply. Metrics: `ten` (0-10), `correct` (with a check); and for posts with two comments whose
scores really differ (by the rule of the `reddit` source) `prefers`: 1 where the model finds the better comment likelier
than the worse one, per token, and `learned`: 1 where its log-probability ratio to the base model does (0.5: equal).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from equipoise.data.prompts import post_prompt, reddit_prompt
from equipoise.data.read import require_columns
from equipoise.data.sources.reddit import preferences
from equipoise.evaluation.tasks.base import (
    Built,
    Evidence,
    Malformed,
    Outcome,
    Row,
    Task,
    collect,
    preferred,
    score_reply,
    text,
    valid,
    with_check,
)
from equipoise.recipe_evaluation import TaskSpec
from equipoise.recipe_sources import RedditSource
from equipoise.records import Item, Message

Prompt = Callable[[Row], tuple[Message, ...]]


def items(rows: list[dict[str, Any]], spec: TaskSpec, where: str) -> Built:
    """One item for each post (`id`); the embedded model knows posts as title and text alone."""
    require_columns(rows, ("id", "title", "selftext", "subreddit"), where)
    prompt = _bare if spec.id == "pocket" else reddit_prompt
    posts: dict[str, Row] = {}
    for number, row in enumerate(rows):
        posts.setdefault(str(row.get("id") or f"row {number}"), row)
    pairs = preferences(rows, _gap_rule(spec))
    return collect(posts.values(), lambda row: _item(row, prompt, pairs))


def _gap_rule(spec: TaskSpec) -> RedditSource:
    """The rule of a real gap. Near duplicates, which take long to find, do no harm to a question."""
    unwanted = ["deleted", "bot", "edit_notice", "link_only"]
    return RedditSource.model_validate({"kind": "reddit", "id": spec.id or TASK.default_id, "drop": unwanted})


def _bare(row: Row) -> tuple[Message, ...]:
    return post_prompt(text(row, "title", blank=True), text(row, "selftext", blank=True))


def _item(row: Row, prompt: Prompt, pairs: Mapping[str, tuple[str, str]]) -> Item:
    id = text(row, "id")
    columns = {name: text(row, name, blank=True) for name in ("subreddit", "title", "selftext")}
    if not columns["title"] and not columns["selftext"]:
        raise Malformed("no title and no text")
    group = str(row.get("group") or id)
    return Item(
        id=id,
        task="reddit",
        prompt=prompt(columns),
        group=group,
        category=valid(columns["subreddit"]),
        gold={**with_check(row), **({"pair": list(pairs[group])} if group in pairs else {})},
    )


def score(item: Item, evidence: Evidence) -> Outcome:
    """Raw reward of the reply, and which of two given comments the model prefers."""
    outcome = score_reply(item, evidence)
    return Outcome(outcome.value, metrics={**outcome.metrics, **preferred(evidence.pair)})


TASK = Task(
    name="reddit",
    version=2,
    value="raw reward",
    default_id="winddude/reddit_finance_43_250k",
    default_split="train",
    pocket_kind="reddit",
    pocket_rows=300,
    needs=frozenset({"answers", "reward", "pair"}),
    items=items,
    score=score,
)
