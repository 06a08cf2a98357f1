"""What is asked: the items of each task, within its limit, and their division into dev and test."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from equipoise.data.read import read_rows
from equipoise.evaluation.preferences import preference_items
from equipoise.evaluation.tasks import TASKS
from equipoise.evaluation.tasks.base import Built, Task
from equipoise.recipe_evaluation import HarnessSpec, PreferenceSpec, TaskSpec, kind_of
from equipoise.recipe_sources import Source
from equipoise.records import InputError, Item, Split, content_id, user_turns


def task(name: str) -> Task:
    """The task called `name`; raises InputError where there is none."""
    kind = kind_of(name)
    if kind not in TASKS:
        raise InputError(f"evaluation.tasks: no task {name!r}; there are {', '.join(TASKS)}")
    return TASKS[kind]


def task_version(name: str) -> int:
    """Version of a task: scores of different versions are not comparable."""
    return task(name).version


def read_items(name: str, spec: TaskSpec, sources: Mapping[str, Source] | None = None) -> Built:
    """Items of a task within its limit, and how many rows gave none, by reason.

    `sources` are those of the recipe, whose held-out pairs a task may ask about. Raises InputError where there is
    nothing to read, a column is missing, or no item is left.
    """
    where = f"evaluation.tasks.{name}"
    built = _all_items(name, spec, sources or {}, where)
    if not built.items:
        raise InputError(f"{where}: no usable item ({_reasons(built.left_out)})")
    ranked = built.items
    if spec.pick == "spread":
        ranked = sorted(built.items, key=lambda item: (content_id(["item", item.id]), item.id))
    return Built(ranked[: spec.limit], built.left_out)


def _all_items(name: str, spec: TaskSpec, sources: Mapping[str, Source], where: str) -> Built:
    found = task(name)
    if isinstance(spec, HarnessSpec):
        from equipoise.evaluation.harness import harness_items

        return harness_items(name, spec)
    if isinstance(spec, PreferenceSpec):
        return preference_items(name, spec, sources)
    if spec.id == "pocket" and not found.pocket_kind:
        raise InputError(f"{where}.id: the embedded world has no rows for it; name a file, a folder or a hub id")
    assert found.items is not None  # the other tasks are made of rows
    return found.items(_rows(found, spec, where), spec, where)


def load_items(name: str, spec: TaskSpec, sources: Mapping[str, Source] | None = None) -> list[Item]:
    """Items of a task as `read_items` gives them; rows that were left out are reported on stderr."""
    built = read_items(name, spec, sources)
    if built.left_out:
        count = sum(built.left_out.values())
        reasons = _reasons(built.left_out)
        print(f"equipoise: warning: evaluation.tasks.{name}: {count} left out ({reasons})", file=sys.stderr)
    return built.items


def evaluation_texts(items: Iterable[Item]) -> list[str]:
    """First and later user turns of the items, for finding training pairs that overlap with them.

    System messages are not among them: many prompts share one, and it gives nothing away.
    """
    return [turn for item in items for turn in (*user_turns(item.prompt), *item.follow_ups)]


def splits(groups: Iterable[str], dev_share: float) -> dict[str, Split]:
    """Divide groups into dev and test: `dev_share` of the *groups*, rounded, is dev, the rest is test.

    Groups are ranked by a fixed hash of their name, so the division depends on nothing but the set of names.
    From two groups on, each side has at least one.
    """
    ranked = sorted(set(groups), key=lambda group: (content_id(["split", group]), group))
    dev = round(dev_share * len(ranked))
    if len(ranked) > 1:
        dev = min(max(dev, 1), len(ranked) - 1)
    return {group: "dev" if place < dev else "test" for place, group in enumerate(ranked)}


def _rows(found: Task, spec: TaskSpec, where: str) -> list[dict[str, Any]]:
    if spec.id == "pocket":
        world = importlib.import_module("equipoise.pocket.world")
        return list(world.rows(found.pocket_kind, split="eval", n=found.pocket_rows))
    split = spec.split or found.default_split
    return read_rows(spec.id or found.default_id, revision=spec.revision, split=split, what=where)


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in left_out.items()) or "no rows"
