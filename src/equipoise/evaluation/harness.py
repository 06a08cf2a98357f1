"""Any task of lm-evaluation-harness as a task of ours: its documents as items, its evaluator's records as outcomes.

The harness asks and scores; which items are asked, and what their scores mean, is decided here as for every other task.
Tasks that generate are asked through the model's chat template, worked examples as earlier turns; tasks that weigh
given texts by their likelihood continue plain text. Both are what the harness's own users do with chat models and what
most published figures stand for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from equipoise.evaluation.harness_documents import document_hash, question, shared_gold, target
from equipoise.evaluation.harness_figures import Record, figure_name, figures_of
from equipoise.evaluation.harness_model import language_model
from equipoise.evaluation.harness_tasks import CHOOSES, Document, Subtask, load, quiet, seeded
from equipoise.evaluation.tasks.base import Built, Malformed, Outcome, user, valid
from equipoise.model.generate import Progress
from equipoise.model.load import Loaded
from equipoise.recipe_evaluation import HarnessSpec
from equipoise.records import InputError, Item

Scored = tuple[Item, Outcome, tuple[str, ...]]
"""An item, its outcome, and what the model said."""
Key = tuple[str, int]
"""Category and place of a document."""


def harness_items(name: str, spec: HarnessSpec) -> Built:
    """Every document of the task as an item, and how many made none, by reason; needs no model.

    The parts of a group are categories, and their items are called `part/number`. Raises InputError as
    `harness_tasks.load` does.
    """
    items: list[Item] = []
    left_out: Counter[str] = Counter()
    for subtask in load(name, spec):
        with quiet(), seeded():
            documents = list(subtask.task.eval_docs)
            shared = shared_gold(subtask)
            for place, (document, shots) in enumerate(zip(documents, subtask.examples(documents), strict=True)):
                try:
                    right = target(subtask.task, document)
                    prompt = user(valid(question(subtask.task, document)))
                except Malformed as error:
                    left_out[str(error)] += 1
                    continue
                id = f"{subtask.category}/{place:06d}" if subtask.category else f"{place:06d}"
                gold = {**shared, "document": document_hash(document), "target": right}
                gold["examples"] = [document_hash(one) for one in shots]
                items.append(Item(id, name, prompt, group=id, category=subtask.category, gold=gold))
    return Built(items, dict(sorted(left_out.items())))


def harness_scores(
    name: str,
    spec: HarnessSpec,
    items: Sequence[Item],
    loaded: Loaded,
    *,
    batch_size: int,
    thinking: bool = False,
    progress: Progress | None = None,
) -> list[Scored]:
    """Ask the items of one task and return each with its outcome and what the model said, in order.

    What was said is the generated answer before any filter, the choice with the highest log-probability, or the text
    whose likelihood was asked. An item whose prompt had to be cut is unscored. Raises InputError where the task cannot
    be loaded any more, or its documents are others than those of the items.
    """
    subtasks = {subtask.category: subtask for subtask in load(name, spec)}
    places: dict[str, list[int]] = {}
    for item in items:
        places.setdefault(_key(item)[0], []).append(_key(item)[1])
    if gone := sorted(set(places) - set(subtasks)):
        raise InputError(f"evaluation.tasks.{name}: {gone[0]!r} is no part of it any more; begin the evaluation anew")
    records: dict[Key, list[Record]] = {}
    with quiet() as stderr, seeded():
        model = language_model(loaded, batch_size=batch_size, thinking=thinking, stderr=stderr, progress=progress)
        for chat in (False, True):
            chosen = [subtasks[category] for category in sorted(places) if subtasks[category].chat == chat]
            if chosen:
                records |= _records(model, chosen, places)
    found = []
    for item in items:
        own = records.get(_key(item), [])
        if not own or own[0]["doc_hash"] != item.gold["document"]:
            raise InputError(f"evaluation.tasks.{name}: item {item.id} has changed; begin the evaluation anew")
        subtask = subtasks[_key(item)[0]]
        cut = any(arguments[0] in model.cut for arguments in own[0]["arguments"])
        outcome = Outcome(None, "prompt too long for the model") if cut else _outcome(subtask, own)
        found.append((item, outcome, _said(subtask.task, own[0])))
    return found


def _key(item: Item) -> Key:
    """Category and place among the documents, as the item's id states them."""
    category, _, place = item.id.rpartition("/")
    return category, int(place)


def _records(model: Any, chosen: Sequence[Subtask], places: Mapping[str, Sequence[int]]) -> dict[Key, list[Record]]:
    """What the harness's own evaluator logs of the documents at these places, by item."""
    samples = {}
    for subtask in chosen:
        documents = list(subtask.task.eval_docs)
        wanted = sorted(set(places[subtask.category]))
        if wanted[-1] >= len(documents):
            raise InputError(f"evaluation.tasks: {subtask.name} has fewer documents than before; begin anew")
        examples = subtask.examples(documents)
        subtask.task.sampler = _Drawn([examples[place] for place in wanted])
        # None asks all: a list is searched once for each document
        samples[subtask.name] = wanted if len(wanted) < len(documents) else None
    logged = import_module("lm_eval").evaluate(
        lm=model,
        task_dict={"tasks": {subtask.name: subtask.task for subtask in chosen}},
        samples=samples,
        bootstrap_iters=0,
        apply_chat_template=chosen[0].chat,
        fewshot_as_multiturn=chosen[0].chat,
        confirm_run_unsafe_code=True,  # `load` has asked
    )["samples"]
    records: dict[Key, list[Record]] = {}
    for subtask in chosen:
        for record in logged[subtask.name]:
            records.setdefault((subtask.category, record["doc_id"]), []).append(record)
    return records


class _Drawn:
    """Stands for a sampler of worked examples: gives those that were drawn already, one document after another."""

    def __init__(self, drawn: Sequence[Sequence[Document]]) -> None:
        self._drawn: Iterator[Sequence[Document]] = iter(drawn)

    def sample(self, n: int, **options: Any) -> Sequence[Document]:
        """The `n` examples of the next document."""
        return next(self._drawn)


def _outcome(subtask: Subtask, records: Sequence[Record]) -> Outcome:
    """The figure that is compared as the value, all others as further metrics."""
    record = next(record for record in records if record["filter"] == subtask.picked_by)
    named = subtask.value
    if named not in record["metrics"]:  # `pass_at_k` is declared, and `pass@1`, `pass@10` are what comes of it
        named = next((name for name in record["metrics"] if name not in subtask.figures), named)
    figures = figures_of(subtask.task, records)
    value = figures.pop(figure_name(subtask.task, named, subtask.picked_by), None)
    return Outcome(value, None if value is not None else f"the harness gives no {named} for it", figures)


def _said(task: Any, record: Record) -> tuple[str, ...]:
    """What the model said, as far as it can be put as a text."""
    first = [responses[0] for responses in record["resps"]]
    if isinstance(first[0], str):
        return (first[0],)
    if task.OUTPUT_TYPE != CHOOSES:
        return (str(record["arguments"][0][1]).strip(),)
    choices = task.doc_to_choice(record["doc"])
    likelihoods = [likelihood for likelihood, _ in first[: len(choices)]]
    return (str(choices[likelihoods.index(max(likelihoods))]),)
