"""What a user says to `equipoise init`, by flags or when asked, and the first checks of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from equipoise.init.layout import COLUMN_KEYS
from equipoise.recipe_evaluation import Tasks
from equipoise.recipe_file import KINDS
from equipoise.recipe_parts import NAME
from equipoise.records import InputError

POCKET = "pocket"
GENERAL = "general"
TASKS = tuple(
    name for name in ("tatqa", "mt_bench", "finance_instruct", "reddit", "ifeval") if name in Tasks.model_fields
)
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Answers:
    """Everything that a recipe is made of; what is None or empty is chosen."""

    model: str
    data: Sequence[str] = ()
    general: str | None = None
    domain: str | None = None
    kind: str | None = None
    columns: Mapping[str, str | list[str]] = field(default_factory=dict)
    split: str = "train"
    reward: str | None = None
    tasks: Sequence[str] = ()
    eval_data: Mapping[str, str] = field(default_factory=dict)
    pairs: int | None = None
    quantization: str | None = None


def require_answers(answers: Answers) -> None:
    """Raises InputError for a flag whose value makes no sense, before anything is read."""
    kinds = [kind for kind in KINDS if kind != POCKET]
    if answers.kind is not None and answers.kind not in kinds:
        raise InputError(f"--kind {answers.kind}: one of {', '.join(kinds)}")
    if answers.domain is not None and not re.fullmatch(NAME, answers.domain):
        raise InputError(f"--domain {answers.domain!r}: letters, digits, '.', '_' and '-', not beginning with a sign")
    if answers.quantization not in (None, "nf4"):
        raise InputError(f"--quantization {answers.quantization}: nf4, or leave it out")
    for flag, named in (("--tasks", answers.tasks), ("--eval-data", answers.eval_data)):
        for task in named:
            if task not in TASKS:
                raise InputError(f"{flag} {task}: one of {', '.join(TASKS)}")
    if not answers.data and answers.model != POCKET:
        raise InputError("init: name your pairs: --data FILE, a folder or a hub id (--model pocket alone needs none)")
    if not answers.data and (answers.kind or answers.columns or answers.general):
        raise InputError("init: --kind, --columns and --general say how --data is used; name --data as well")
    if answers.model != POCKET and not Path(answers.model).expanduser().is_dir() and not is_hub(answers.model):
        raise InputError(f"--model {answers.model}: no such folder, and no hub id such as Qwen/Qwen3-1.7B")


def is_hub(id: str) -> bool:
    """Whether an id has the form of a hub id."""
    return bool(_HUB.fullmatch(id))


def parse_columns(text: str) -> dict[str, str | list[str]]:
    """`prompt=instruction+input,chosen=good,rejected=bad` as columns; several columns are joined by `+`."""
    found: dict[str, str | list[str]] = {}
    for part in text.split(","):
        key, equals, name = (side.strip() for side in part.partition("="))
        if not equals or not name or key not in COLUMN_KEYS:
            raise InputError(f"--columns {text}: write key=column with commas; keys are {', '.join(COLUMN_KEYS)}")
        names = name.split("+")
        found[key] = name if len(names) == 1 or key not in ("prompt", "label") else names
    return found


def parse_eval_data(texts: Sequence[str]) -> dict[str, str]:
    """`tatqa=dev.json` as the file of each task."""
    found: dict[str, str] = {}
    for text in texts:
        task, equals, place = text.partition("=")
        if not equals or not place:
            raise InputError(f"--eval-data {text}: write TASK=FILE, as tatqa=tatqa_dataset_dev.json")
        found[task] = place
    return found


def domain_of(id: str, kind: str) -> str:
    """A name for what a file teaches, where nobody gave one."""
    known = {"reddit": "reddit", "finance_instruct": "finance", "orca": GENERAL}
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(id).name.partition(".")[0]).strip("-_").lower()[:40]
    return known.get(kind) or stem or "domain"
