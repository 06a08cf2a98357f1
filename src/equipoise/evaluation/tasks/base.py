"""What a task is, and what all tasks share in reading rows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from equipoise.model.generate import Answer
from equipoise.records import Item, Message

Row = Mapping[str, Any]


class Malformed(ValueError):
    """A row that no item can be made of; the text is the reason under which it is counted."""


@dataclass(frozen=True, slots=True)
class Built:
    """The items of a task, and how many rows gave none, by reason."""

    items: list[Item]
    left_out: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The score of one item: a value, or None with the reason why it is unscored; further figures."""

    value: float | None
    unscored: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rewards:
    """Raw rewards of an item's answers, one for each turn, and the map to 0-10.

    `reference` is the raw reward of the data set's own answer, where the item has one; `details` are further figures
    of the rewards (the members of an ensemble), by name.
    """

    raw: Sequence[float]
    to_ten: Callable[[float], float]
    reference: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PairLikelihood:
    """Log-probabilities (nats, summed over the answer) of an item's two answers under the model and its reference,
    and the answers' lengths in tokens."""

    chosen: float
    rejected: float
    reference_chosen: float
    reference_rejected: float
    chosen_tokens: int
    rejected_tokens: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an item is scored by: the model's answers, one for each turn, and what else its task needs."""

    answers: Sequence[Answer] = ()
    rewards: Rewards | None = None
    grades: Sequence[float] | None = None
    """A judge's grades, one for each turn."""
    pair: PairLikelihood | None = None
    outcome: Outcome | None = None
    """What another program made of the item."""


Scorer = Callable[[Item, Evidence], Outcome]
Need = Literal["answers", "reward", "pair", "harness"]


@dataclass(frozen=True, slots=True)
class Task:
    """The code that evaluates a domain.

    `value` says in words what a score's value is; `version` rises whenever prompt or score change, so that
    older scores are not compared with newer ones. `items` turns rows into items (before any limit), where the task is
    made of rows;
    `score` turns an item and the evidence about it into its outcome. `needs` says what evidence there must be: answers
    that the model writes, their rewards, the likelihood of two given answers. `pocket_kind`
    and `pocket_rows` say which rows of the embedded world `id: pocket` stands for.
    """

    name: str
    version: int
    value: str
    default_id: str
    default_split: str
    pocket_kind: str
    pocket_rows: int
    needs: frozenset[Need]
    items: Callable[[list[dict[str, Any]], Any, str], Built] | None
    score: Scorer


def collect(rows: Iterable[Row], convert: Callable[[Row], Item]) -> Built:
    """Convert rows one by one; malformed ones and repeated ids are counted, never silently dropped."""
    items: dict[str, Item] = {}
    left_out: dict[str, int] = {}
    for row in rows:
        try:
            item = convert(row)
            if item.id in items:
                raise Malformed("same id as an earlier row" if items[item.id] != item else "repeated row")
            items[item.id] = item
        except Malformed as error:
            left_out[str(error)] = left_out.get(str(error), 0) + 1
    return Built(list(items.values()), dict(sorted(left_out.items())))


def text(row: Row, name: str, *, blank: bool = False) -> str:
    """A column's text, stripped; raises Malformed where it is something else, or blank unless `blank`."""
    value = row.get(name)
    if value is None and blank:
        return ""
    if not isinstance(value, str):
        raise Malformed(f"{name} is not text")
    if not value.strip() and not blank:
        raise Malformed(f"{name} is empty")
    return valid(value).strip()


def valid(value: str) -> str:
    """The text with `?` for what is not valid unicode (lone surrogates), which no tokenizer takes."""
    return value.encode("utf-8", "replace").decode("utf-8")


def user(content: str) -> tuple[Message, ...]:
    """A prompt of one user turn."""
    return (Message("user", content),)


def with_check(row: Row) -> dict[str, Any]:
    """The `gold` of a task that a reward model scores: the row's independent check, where it has one."""
    return {"check": row["check"]} if row.get("check") else {}


def correct(check: Mapping[str, Any], answer: str) -> float:
    """1.0 where the answer passes the rule check of the embedded world, else 0.0."""
    checker = importlib.import_module("equipoise.pocket.check")
    return float(checker.correct(check, answer))


def score_reply(item: Item, evidence: Evidence) -> Outcome:
    """Score one answer by its reward: value raw, metrics `ten` (0-10) and, with a check, `correct`."""
    rewards = evidence.rewards
    assert rewards is not None  # evaluate() refuses a task that needs a reward model without one
    raw = rewards.raw[0]
    metrics = {"ten": rewards.to_ten(raw), **rewards.details}
    if check := item.gold.get("check"):
        metrics["correct"] = correct(check, evidence.answers[0].text)
    return Outcome(raw, metrics=metrics)


def above(one: float, other: float) -> float:
    """1.0 where the one is larger, 0.0 where the other is, and 0.5 where they are equal."""
    return 0.5 if one == other else float(one > other)


def preferred(pair: PairLikelihood | None) -> dict[str, float]:
    """Whether the model prefers the better of two given answers: `prefers` by log-probability per token, and `learned`
    by the implicit reward of DPO, the log-probability ratio to the reference (Rafailov et al. 2023, eq. 5; the factor
    beta changes no order). Nothing where there is no pair."""
    if pair is None:
        return {}
    won, lost = pair.chosen - pair.reference_chosen, pair.rejected - pair.reference_rejected
    return {
        "prefers": above(pair.chosen / pair.chosen_tokens, pair.rejected / pair.rejected_tokens),
        "learned": above(won, lost),
    }
