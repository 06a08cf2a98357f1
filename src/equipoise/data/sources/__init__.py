"""Sources of preference pairs: one small function for each `kind` of the recipe.

A source that needs a model first builds drafts (pairs whose `rejected` is empty) and finishes them later, when the
drafts are clean and a model is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from equipoise.data.built import Built
from equipoise.data.sources import finance_instruct, hh, mt_bench_style, on_policy, orca, pocket, reddit, table
from equipoise.data.workshop import Finished, Workshop
from equipoise.recipe import Source
from equipoise.records import Pair

KINDS: dict[str, Callable[[str, Any], Built]] = {
    "pocket": pocket.build,
    "table": table.build,
    "orca": orca.build,
    "hh": hh.build,
    "reddit": reddit.build,
    "finance_instruct": finance_instruct.build,
    "on_policy": on_policy.build,
    "mt_bench_style": mt_bench_style.build,
}
"""Every kind maps (name of the source, its part of the recipe) to its pairs, or to drafts."""
FINISH: dict[str, Callable[[str, Any, Sequence[Pair], Workshop], Finished]] = {
    "finance_instruct": finance_instruct.finish,
    "on_policy": on_policy.finish,
    "mt_bench_style": mt_bench_style.finish,
}
"""The kinds that may generate map drafts to pairs."""


def build(name: str, spec: Source) -> Built:
    """The pairs (or drafts) of a source, not yet cleaned, with what was dropped on the way, by reason.

    Raises InputError where the source cannot be read, lacks a column, is malformed beyond
    `spec.max_malformed`, or makes no pair at all.
    """
    return KINDS[spec.kind](name, spec)


def finish(name: str, spec: Source, drafts: Sequence[Pair], workshop: Workshop) -> Finished:
    """The pairs that models make of drafts, and why the other drafts make none."""
    return FINISH[spec.kind](name, spec, drafts, workshop)


__all__ = ["FINISH", "KINDS", "Built", "build", "finish"]
