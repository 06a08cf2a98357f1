"""What lm-evaluation-harness makes of a document: its question, its right answer, and what decides its score."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

from jinja2.exceptions import TemplateError

from equipoise.evaluation.harness_figures import figure_name
from equipoise.evaluation.harness_tasks import CHOOSES, Document, Subtask
from equipoise.evaluation.tasks.base import Malformed
from equipoise.records import content_id

DEFINES = (
    "doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter", "fewshot_delimiter",
    "fewshot_config", "gen_prefix", "generation_kwargs", "filter_list", "metric_list", "process_results", "use_prompt",
    "output_type", "repeats",
)  # fmt: skip
"""What of a task's definition decides its prompts and scores; the rest says where the data are, or only describes."""


def question(task: Any, document: Document) -> str:
    """The question as text; where the choices are whole contexts (one of them is right), these."""
    text = _rendered(task.doc_to_text, document)
    return text if isinstance(text, str) else "\n".join(map(str, _rendered(task.doc_to_choice, document)))


def target(task: Any, document: Document) -> str:
    """The right answer as text; raises Malformed where it is none of the choices: the harness would count a 0."""
    answer = _rendered(task.doc_to_target, document)
    if task.OUTPUT_TYPE == CHOOSES and not callable(task.config.process_results):
        choices = _rendered(task.doc_to_choice, document)
        right = _rendered(task.doc_to_text, document) if task.multiple_input else answer
        for one in right if isinstance(right, list) else [right]:
            if one not in choices and not (isinstance(one, int) and 0 <= one < len(choices)):
                raise Malformed("the right answer is none of the choices")
    return str(answer)


def _rendered(render: Callable[[Document], Any], document: Document) -> Any:
    """What a part of the definition makes of a document; raises Malformed where it cannot."""
    try:
        return render(document)
    except (TemplateError, ValueError, SyntaxError, LookupError, TypeError) as error:
        raise Malformed(f"the definition does not fit the document ({type(error).__name__})") from None


def shared_gold(subtask: Subtask) -> dict[str, Any]:
    """What decides the scores of all documents alike: version and definition, how they are asked, what is compared."""
    definition = {key: _plain(getattr(subtask.task.config, key)) for key in DEFINES}
    return {
        "version": str(subtask.task.VERSION),
        "definition": content_id(definition),
        "num_fewshot": subtask.shots,
        "chat_template": subtask.chat,
        "metric": figure_name(subtask.task, subtask.value, subtask.picked_by),
    }


def _plain(value: Any) -> Any:
    """A part of a definition as JSON: functions by their source, so that it is the same in every process."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if is_dataclass(value):
        return _plain(vars(value))
    if callable(value):
        return inspect.getsource(value) if inspect.isroutine(value) else type(value).__name__
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def document_hash(document: Document) -> str:
    """The hash by which the harness itself names a document in its records."""
    utils = import_module("lm_eval.utils")
    text = json.dumps(document, indent=2, default=utils.handle_non_serializable, ensure_ascii=False)
    return str(utils.hash_string(text))
