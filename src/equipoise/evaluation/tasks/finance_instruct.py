"""Finance-Instruct: instructions and questions about finance.

Link: https://huggingface.co/datasets/Josephgflowers/Finance-Instruct-500k, about 518,000 rows in one split; take a
`limit`. What is evaluated must not be trained on: cleaning removes pairs that overlap with these items.
Licence: as its page on the hub states; its rows are gathered from sets with licences of their own. Version 2.
Sample: a system message that sets the role, then a question such as "What is the quick ratio, and what does it tell?"
Chance level: none; a reward has no floor.
Value: raw reward. Metrics: `ten` (0-10), `success` (1 where `ten` is 7.0 or more), `win` (1 where the reward is above
that of the data set's own answer, 0.5 where it is equal), `correct` (with a check).
"""

from __future__ import annotations

from typing import Any

from equipoise.data.prompts import system_and_user
from equipoise.data.read import require_columns
from equipoise.evaluation.tasks.base import (
    Built,
    Evidence,
    Outcome,
    Row,
    Task,
    above,
    collect,
    score_reply,
    text,
    with_check,
)
from equipoise.recipe_evaluation import TaskSpec
from equipoise.records import Item, chat, content_id

SUCCESS = 7.0
"""An answer of at least this on 0-10 is a success."""


def items(rows: list[dict[str, Any]], spec: TaskSpec, where: str) -> Built:
    """One item for each distinct prompt of the columns `system`, `user`, `assistant`."""
    require_columns(rows, ("system", "user", "assistant"), where)
    return collect(rows, _item)


def _item(row: Row) -> Item:
    prompt = system_and_user(text(row, "system", blank=True), text(row, "user"))
    id = content_id(chat(prompt))
    given = text(row, "assistant", blank=True)
    gold = {**with_check(row), **({"reference": given} if given else {})}
    return Item(id=id, task="finance_instruct", prompt=prompt, group=str(row.get("group") or id), gold=gold)


def score(item: Item, evidence: Evidence) -> Outcome:
    """Raw reward, whether it is a success on 0-10, and whether it beats the data set's answer."""
    outcome = score_reply(item, evidence)
    metrics = {**outcome.metrics, "success": float(outcome.metrics["ten"] >= SUCCESS)}
    rewards = evidence.rewards
    if rewards and rewards.reference is not None:
        metrics["win"] = above(rewards.raw[0], rewards.reference)
    return Outcome(outcome.value, metrics=metrics)


TASK = Task(
    name="finance_instruct",
    version=2,
    value="raw reward",
    default_id="Josephgflowers/Finance-Instruct-500k",
    default_split="train",
    pocket_kind="finance",
    pocket_rows=300,
    needs=frozenset({"answers", "reward"}),
    items=items,
    score=score,
)
