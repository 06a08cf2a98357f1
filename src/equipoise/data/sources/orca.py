"""Kind `orca`: columns `system, question, chosen, rejected`, as in Intel/orca_dpo_pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from equipoise.data.built import Built, collect, column, optional_text, pair, text
from equipoise.data.prompts import system_and_user
from equipoise.data.read import read_rows, require_columns
from equipoise.recipe import OrcaSource, SourceBase
from equipoise.records import Pair


def build(name: str, spec: OrcaSource) -> Built:
    """One pair per row; the rows of one question are one group."""
    where = f"source {name}"
    rows = read_rows(spec.id, revision=spec.revision, split=spec.split, what=where)
    require_columns(rows, ("system", "question", "chosen", "rejected"), f"{where}: {spec.id}")
    return collect(name, spec, rows, lambda row: convert(row, name, spec))


def convert(row: Mapping[str, Any], name: str, spec: SourceBase, group: str | None = None) -> Pair:
    """The pair of one row; raises Dropped where it has none.

    In the original data one side often begins with a space, which a model learns sooner than any quality:
    answers lose the white space around them.
    """
    question = text(column(row, "question"), "question")
    prompt = system_and_user(optional_text(row, "system"), question)
    chosen, rejected = (text(column(row, side), side) for side in ("chosen", "rejected"))
    return pair(prompt, chosen, rejected, spec=spec, name=name, group=group)
