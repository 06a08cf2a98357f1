"""MT-Bench: general questions of eight categories, each with a second turn.

Link: https://github.com/lm-sys/FastChat/tree/main/fastchat/llm_judge (Zheng et al. 2023), 80 questions; also on the
hub as HuggingFaceH4/mt_bench_prompts. Licence: Apache-2.0. Version 2.
Sample: "Compose an engaging travel blog post about a recent trip to Hawaii [...]", then "Rewrite your previous
response. Start every sentence with the letter A."
Chance level: none; a reward has no floor.
Value: mean raw reward of the two turns, or with `scored_by: judge` the mean of a judge's two grades (1 to 10). The
second turn is asked after the model's own first answer. Metrics: `turn_1`, `turn_2` (raw), `ten` (mean of the turns on
0-10, rewards only), `correct` (mean over the turns with a check).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.data.read import read_rows, require_columns
from equipoise.evaluation.tasks.base import (
    Built,
    Evidence,
    Malformed,
    Outcome,
    Row,
    Task,
    collect,
    correct,
    text,
    user,
    valid,
)
from equipoise.recipe_evaluation import MtBenchSpec, TaskSpec
from equipoise.records import InputError, Item

WITH_REFERENCE = ("math", "reasoning", "coding")


def items(rows: list[dict[str, Any]], spec: TaskSpec, where: str) -> Built:
    """One item for each question: `turns`, `question_id`, or the hub's `prompt`, `prompt_id`; and `category`."""
    on_hub = any("prompt" in row for row in rows) and not any("turns" in row for row in rows)
    turns, name = ("prompt", "prompt_id") if on_hub else ("turns", "question_id")
    require_columns(rows, (name, "category", turns), where)
    given = _answers_of_file(spec.references, where) if isinstance(spec, MtBenchSpec) and spec.references else None
    return collect(rows, lambda row: _item(row, turns, name, given))


def _answers_of_file(path: str, where: str) -> dict[str, list[str]]:
    """The two reference answers of each question of a file, by question."""
    rows = read_rows(path, revision=None, split="train", what=f"{where}.references")
    require_columns(rows, ("question_id", "choices"), f"{where}.references")
    found: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        first = row["choices"][0] if isinstance(row["choices"], list) and row["choices"] else None
        turns = first.get("turns") if isinstance(first, dict) else None
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise InputError(f"{path}: row {number}: choices: no list of `turns`, which are texts; mend the row")
        found[str(row["question_id"])] = [valid(turn) for turn in turns]
    return found


def _item(row: Row, column: str, name: str, given: Mapping[str, list[str]] | None) -> Item:
    turns = row.get(column)
    if not isinstance(turns, list) or not all(isinstance(turn, str) and turn.strip() for turn in turns):
        raise Malformed(f"{column} is not a list of texts")
    if len(turns) != 2:
        raise Malformed(f"{len(turns)} turns instead of 2")
    if not isinstance(row.get(name), int | str):
        raise Malformed(f"{name} is missing")
    first, second = (valid(turn).strip() for turn in turns)
    number = str(row[name])
    return Item(
        id=number,
        task="mt_bench",
        prompt=user(first),
        group=str(row.get("group") or number),
        category=text(row, "category", blank=True),
        follow_ups=(second,),
        gold={**({"check": row["check"]} if row.get("check") else {}), **_references(row, number, given)},
    )


def _references(row: Row, number: str, given: Mapping[str, list[str]] | None) -> dict[str, list[str]]:
    """The reference answers of the turns that a judge gets, where there are some (math, reasoning, coding)."""
    found = row.get("reference") if given is None else given.get(number)
    if row.get("category") not in WITH_REFERENCE or not isinstance(found, list) or not found:
        return {}
    if not all(isinstance(one, str) for one in found):
        raise Malformed("reference is not a list of texts")
    return {"references": [valid(one) for one in found]}


def score(item: Item, evidence: Evidence) -> Outcome:
    """Mean grade of the turns where a judge graded them, else their mean raw reward."""
    rewards = evidence.rewards
    raw = list(evidence.grades if evidence.grades is not None else rewards.raw if rewards else ())
    metrics = {f"turn_{number}": value for number, value in enumerate(raw, 1)}
    if evidence.grades is None and rewards:
        metrics |= {"ten": _mean([rewards.to_ten(value) for value in raw]), **rewards.details}
    checks = item.gold.get("check", ())
    checked = [correct(check, answer.text) for check, answer in zip(checks, evidence.answers, strict=False) if check]
    if checked:
        metrics["correct"] = _mean(checked)
    return Outcome(_mean(raw), metrics=metrics)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


TASK = Task(
    name="mt_bench",
    version=2,
    value="mean raw reward of two turns",
    default_id="HuggingFaceH4/mt_bench_prompts",
    default_split="train",
    pocket_kind="mt_bench",
    pocket_rows=300,
    needs=frozenset({"answers", "reward"}),
    items=items,
    score=score,
)
