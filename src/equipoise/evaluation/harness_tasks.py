"""Tasks of lm-evaluation-harness as it defines them: found by name, loaded without a model, and checked.

What a user can mend (an unknown name, data that cannot be had, a figure that has no value per question) is said here,
before anything expensive. The package is optional, so it is imported inside the functions that need it.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from datasets.exceptions import DatasetsError
from jinja2.exceptions import TemplateError

from equipoise.evaluation.harness_figures import value_of
from equipoise.recipe_evaluation import HARNESS, HarnessSpec
from equipoise.records import InputError

SEED = 1234
"""The harness's own seed of few-shot examples, numpy and torch; that of Python's `random` is 0."""
GENERATES = "generate_until"
CHOOSES = "multiple_choice"
CODE_ALLOWED = "HF_ALLOW_CODE_EVAL"
"""The environment variable by which the harness, too, asks whether a model's code may run."""
_LOUD = ("lm_eval", "datasets", "transformers")
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Subtask:
    """One task of the harness that has documents; a group or tag has several of them.

    `category` is its name where it is a part, and empty where it is the whole; `shots` is its number of worked
    examples. Of its `figures`, `value` is the one that is compared; `picked_by` is the filter that picks the answer out
    of what the model said. `chat` says whether the chat template is put around its prompts.
    """

    name: str
    category: str
    task: Any
    shots: int
    figures: tuple[str, ...]
    value: str
    picked_by: str
    chat: bool

    def examples(self, documents: Sequence[Document]) -> list[Sequence[Document]]:
        """The worked examples of each document.

        They come from one random stream that runs over the documents in order, so those of a document are known only
        once those of all before it are drawn. Drawn for all, they are the same whatever part is asked, and the same
        as in a whole run of the harness.
        """
        if not self.shots:
            return [()] * len(documents)
        self.task.set_fewshot_seed(SEED)
        own = _asked_of_its_own(self.task)
        return [self.task.sampler.sample(n=self.shots, eval_doc=one if own else None) for one in documents]


def load(name: str, spec: HarnessSpec) -> list[Subtask]:
    """The task that a recipe calls `name` (`lm_eval:<task>`), or the parts of a group; needs no model.

    Raises InputError where the package is missing, the task is unknown or runs code, its data cannot be had, or what
    the recipe asks of it does not fit.
    """
    where, short = f"evaluation.tasks.{name}", name.removeprefix(HARNESS)
    _require_package(where)
    _require_own_data(spec, where)
    with quiet(), seeded():
        manager = _manager_with(short, spec, where)
        if any(definition.get("unsafe_code") for definition in _definitions(manager.task_index, short)):
            _require_code_allowed(where)
        tasks = _loaded(manager, short, where)
    value = value_of(next(iter(tasks.values())), spec.metric, where)[0]
    made = []
    for part, task in tasks.items():
        _require_plain(task, where)
        named, picked_by = value_of(task, spec.metric or value, where if len(tasks) == 1 else f"{where} ({part})")
        shots = _shots(task, spec.num_fewshot, where)
        category, figures = "" if part == short else part, tuple(task.aggregation())
        made.append(Subtask(part, category, task, shots, figures, named, picked_by, task.OUTPUT_TYPE == GENERATES))
    return made


@contextmanager
def quiet() -> Iterator[TextIO]:
    """Within this context neither the harness nor what it uses prints; yields the stderr of before."""
    before = sys.stderr
    loggers = [logging.getLogger(name) for name in _LOUD]
    levels = [logger.level for logger in loggers]
    with ExitStack() as stack:
        nowhere = stack.enter_context(Path(os.devnull).open("w"))
        stack.enter_context(redirect_stdout(nowhere))
        stack.enter_context(redirect_stderr(nowhere))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield before
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def seeded() -> Iterator[None]:
    """Within this context all random numbers begin as in the harness; afterwards they go on as if nothing was drawn."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(0)
        np.random.seed(SEED)
        torch.manual_seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _require_package(where: str) -> None:
    if find_spec("lm_eval") is None:
        raise InputError(f"{where}: needs lm-evaluation-harness: pip install 'equipoise[lm-eval]'")


def _require_own_data(spec: HarnessSpec, where: str) -> None:
    for key in ("id", "revision", "split"):
        if getattr(spec, key) is not None:
            raise InputError(f"{where}.{key}: a task of the harness names its data itself; leave {key} out")


def _manager_with(short: str, spec: HarnessSpec, where: str) -> Any:
    """A task manager that knows the task: the user's own folder alone where that will do, since reading the
    definitions of all tasks of the harness takes seconds."""
    make = import_module("lm_eval.tasks").TaskManager
    own: list[str] = []
    if spec.include_path is not None:
        folder = Path(spec.include_path).expanduser()
        if not folder.is_dir():
            raise InputError(f"{where}.include_path: {folder}: no such folder")
        manager = make(include_path=str(folder), include_defaults=False)
        own = list(manager.all_tasks)
        if short in own:
            return manager if _is_whole(manager.task_index, short) else make(include_path=str(folder))
    manager = _all_tasks()
    if short in manager.task_index:
        return manager
    near = get_close_matches(short, [*own, *manager.all_tasks], n=5)
    hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    if spec.include_path:  # the harness passes over files that it cannot read
        hint += f" (definitions that can be read in {spec.include_path}: {', '.join(own[:10]) or 'none'})"
    raise InputError(f"{where}: lm-evaluation-harness has no task {short!r}; {hint}")


@cache
def _all_tasks() -> Any:
    return import_module("lm_eval.tasks").TaskManager()


def _is_whole(index: Mapping[str, Any], name: str) -> bool:
    """Whether all tasks are defined of which the task consists."""
    return all(definition.get("task") is not None for definition in _definitions(index, name))


def _definitions(index: Mapping[str, Any], member: Any) -> Iterator[Mapping[str, Any]]:
    """The definitions of a task and of what it consists of, as they are written; {} for one that is not there."""
    if isinstance(member, Mapping):
        yield member
        member = member.get("task", member.get("group"))
    if isinstance(member, list):
        for part in member:
            yield from _definitions(index, part)
        return
    entry = index.get(member)
    if entry is None:
        yield {}
    elif entry.kind.name == "TAG":
        yield from _definitions(index, sorted(entry.tags))
    else:
        yield entry.cfg
        if entry.kind.name == "GROUP":
            yield from _definitions(index, entry.cfg.get("task") or [])


def _loaded(manager: Any, short: str, where: str) -> dict[str, Any]:
    """The tasks with their documents, by name."""
    try:
        found = dict(manager.load([short])["tasks"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        raise _cannot_load(where, error) from None
    except (TemplateError, DatasetsError) as error:
        raise _cannot_load(where, error) from None
    if not found:
        raise InputError(f"{where}: a group without any task")
    return found


def _cannot_load(where: str, error: BaseException) -> InputError:
    reason = (str(error).strip().splitlines() or [""])[0]
    return InputError(
        f"{where}: its definition or its data cannot be loaded ({type(error).__name__}: {reason}); mend the "
        "definition, or get the data where there is a network"
    )


def _require_code_allowed(where: str) -> None:
    if os.environ.get(CODE_ALLOWED) != "1":
        raise InputError(f"{where}: runs code that the model writes; set {CODE_ALLOWED}=1 if this machine may do that")


def _require_plain(task: Any, where: str) -> None:
    if getattr(task, "MULTIMODAL", False):
        raise InputError(f"{where}: asks about pictures or sound; only tasks of text can be evaluated")
    if not isinstance(task, import_module("lm_eval.api.task").ConfigurableTask):
        raise InputError(f"{where}: is written in the harness's old form; derive it from ConfigurableTask")
    if getattr(task, "UNSAFE_CODE", False):
        _require_code_allowed(where)


def _shots(task: Any, asked: int | None, where: str) -> int:
    own = task.config.num_fewshot
    if asked and own == 0:
        raise InputError(f"{where}.num_fewshot: this task is made for 0 worked examples; leave num_fewshot out")
    shots = int(own or 0) if asked is None else asked
    examples = len(task.sampler.df) - _asked_of_its_own(task) if hasattr(task, "sampler") else 0
    if shots > examples:
        raise InputError(f"{where}.num_fewshot: {shots} asked, and there are {examples} examples to take them from")
    task.set_config(key="num_fewshot", value=shots)
    return shots


def _asked_of_its_own(task: Any) -> bool:
    """Whether examples come from the documents that are asked; the harness then leaves out the one that is asked."""
    return bool(task.fewshot_cfg.split == task.config.test_split)
