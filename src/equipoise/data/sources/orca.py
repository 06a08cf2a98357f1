"""Kind `orca`: columns `system, question, chosen, rejected`, as in Intel/orca_dpo_pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.data.built import Built, collect, column, optional_text, pair, text
from equipoise.data.prompts import system_and_user
from equipoise.data.read import POCKET, source_rows
from equipoise.recipe import OrcaSource, SourceBase
from equipoise.records import Pair


def build(name: str, spec: OrcaSource) -> Built:
    """One pair per row; the rows of one question are one group, those of the embedded world have their own."""
    rows = source_rows(name, spec, ("system", "question", "chosen", "rejected"), "general")
    world = spec.id == POCKET
    return collect(name, spec, rows, lambda row: convert(row, name, spec, row["group"] if world else None))


def convert(row: Mapping[str, Any], name: str, spec: SourceBase, group: str | None = None) -> Pair:
    """The pair of one row; raises Dropped where it has none.

    In the original data one side often begins with a space, which a model learns sooner than any quality:
    answers lose the white space around them.
    """
    question = text(column(row, "question"), "question")
    prompt = system_and_user(optional_text(row, "system"), question)
    chosen, rejected = (text(column(row, side), side) for side in ("chosen", "rejected"))
    return pair(prompt, chosen, rejected, spec=spec, name=name, group=group)
