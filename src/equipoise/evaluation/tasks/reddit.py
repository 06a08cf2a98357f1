"""Reddit: replies to posts of forums about money.

Link: https://huggingface.co/datasets/winddude/reddit_finance_43_250k, one row for each comment of a post; take a
`limit`. What is evaluated must not be trained on: cleaning removes pairs that overlap with these items.
Licence: as its page on the hub states; the texts belong to their authors. Version 1.
Sample: subreddit, title and text of a post, then "Write a helpful reply to this post."
Chance level: none; a reward has no floor.
Value: raw reward of the reply. Metrics: `ten` (0-10), `correct` (with a check).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from equipoise.data.prompts import post_prompt, reddit_prompt
from equipoise.data.read import require_columns
from equipoise.evaluation.tasks.base import Built, Malformed, Row, Task, collect, score_reply, text, valid, with_check
from equipoise.recipe_evaluation import TaskSpec
from equipoise.records import Item, Message

Prompt = Callable[[Row], tuple[Message, ...]]


def items(rows: list[dict[str, Any]], spec: TaskSpec, where: str) -> Built:
    """One item for each post (`id`); the embedded model knows posts as title and text alone."""
    require_columns(rows, ("id", "title", "selftext", "subreddit"), where)
    prompt = _bare if spec.id == "pocket" else reddit_prompt
    posts: dict[str, Row] = {}
    for number, row in enumerate(rows):
        posts.setdefault(str(row.get("id") or f"row {number}"), row)
    return collect(posts.values(), lambda row: _item(row, prompt))


def _bare(row: Row) -> tuple[Message, ...]:
    return post_prompt(text(row, "title", blank=True), text(row, "selftext", blank=True))


def _item(row: Row, prompt: Prompt) -> Item:
    id = text(row, "id")
    columns = {name: text(row, name, blank=True) for name in ("subreddit", "title", "selftext")}
    if not columns["title"] and not columns["selftext"]:
        raise Malformed("no title and no text")
    return Item(
        id=id,
        task="reddit",
        prompt=prompt(columns),
        group=str(row.get("group") or id),
        category=valid(columns["subreddit"]),
        gold=with_check(row),
    )


TASK = Task(
    name="reddit",
    version=1,
    value="raw reward",
    default_id="winddude/reddit_finance_43_250k",
    default_split="train",
    pocket_kind="reddit",
    pocket_rows=300,
    needs_reward=True,
    items=items,
    score=score_reply,
)
