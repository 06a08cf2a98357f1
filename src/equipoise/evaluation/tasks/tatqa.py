"""TAT-QA: questions about a table of a financial report and the passages beside it.

Link: https://github.com/NExTplusplus/TAT-QA (Zhu et al. 2021), development split, 278 documents, 1,668 questions.
Licence of the data: CC BY 4.0. Version 2.
Sample: "What is the amount of total sales in 2019?" -> `$1,496.5`, scale million (type span, from table and text).
Chance level: 0 (free answers); naming a cell of the table at random is right in a few per cent of the span questions.
Value: exact match of answer and scale, as the official evaluator counts it. Metrics: `f1`; `format` (1 where
the answer has an `Answer:` line). Items of one document are one group; the categories of an item are the type of its
answer and where it is from (table, text, table-text).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from equipoise.data.read import require_columns
from equipoise.evaluation.tasks.base import Built, Evidence, Malformed, Outcome, Task, collect, text, user, valid
from equipoise.evaluation.tasks.tatqa_metric import exact_match_and_f1
from equipoise.evaluation.tasks.tatqa_prompt import parse_answer, render
from equipoise.recipe_evaluation import TaskSpec
from equipoise.records import Item

__all__ = ["TASK", "exact_match_and_f1", "items", "score"]

_ANSWER_LINE = re.compile(r"answer\s*:", re.IGNORECASE)
GOLD = ("answer", "answer_type", "scale", "answer_from")


def items(rows: list[dict[str, Any]], spec: TaskSpec, where: str) -> Built:
    """One item for each question; rows are documents (`table`, `paragraphs`, `questions`)."""
    require_columns(rows, ("table", "paragraphs", "questions"), where)
    layout = str(getattr(spec, "layout", "markdown"))
    documents = [_document(row) for row in rows]
    asked = [(document, question) for document in documents for question in _questions(document)]
    return collect(
        ({"document": document, "question": question} for document, question in asked),
        lambda row: _item(row["document"], row["question"], layout),
    )


def _document(row: Mapping[str, Any]) -> Mapping[str, Any] | str:
    """The document, or the reason why none of its questions can be asked."""
    table = row.get("table")
    cells = table.get("table") if isinstance(table, dict) else None
    if not isinstance(cells, list) or not all(isinstance(line, list) for line in cells):
        return "the table is not a list of rows"
    paragraphs = row.get("paragraphs")
    if not isinstance(paragraphs, list) or not all(_is_paragraph(part) for part in paragraphs):
        return "the paragraphs are not a list of texts"
    if not isinstance(row.get("questions"), list):
        return "the questions are not a list"
    return row


def _is_paragraph(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str) and str(part.get("order", "")).isdecimal()


def _questions(document: Mapping[str, Any] | str) -> list[Any]:
    return [None] if isinstance(document, str) else list(document["questions"])


def _item(document: Mapping[str, Any] | str, question: Any, layout: str) -> Item:
    if isinstance(document, str):
        raise Malformed(document)
    if not isinstance(question, dict):
        raise Malformed("a question is not an object")
    text(question, "question")
    return Item(
        id=text(question, "uid"),
        task="tatqa",
        prompt=user(valid(render(document, question, layout=layout))),
        group=text(document["table"], "uid"),
        category=", ".join(filter(None, (text(question, name, blank=True) for name in ("answer_type", "answer_from")))),
        gold={name: question.get(name) for name in GOLD},
    )


def score(item: Item, evidence: Evidence) -> Outcome:
    """Exact match; an item whose gold answer is malformed is unscored with the reason."""
    said = evidence.answers[0].text
    answer, scale = parse_answer(said)
    try:
        exact, f1 = exact_match_and_f1(
            answer,
            scale,
            gold_answer=item.gold["answer"],
            answer_type=item.gold["answer_type"],
            gold_scale=item.gold["scale"],
        )
    except ValueError as error:
        return Outcome(None, f"malformed gold: {error}")
    return Outcome(exact, metrics={"f1": f1, "format": float(_ANSWER_LINE.search(said) is not None)})


TASK = Task(
    name="tatqa",
    version=2,
    value="exact match of answer and scale (0 or 1)",
    default_id="next-tat/TAT-QA",
    default_split="validation",
    pocket_kind="tatqa",
    pocket_rows=100,
    needs=frozenset({"answers"}),
    items=items,
    score=score,
)
