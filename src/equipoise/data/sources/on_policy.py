"""Kind `on_policy`: any prompts, answered by the model that is trained; the best of its answers against the worst.

The worth of answers is told by a reward model alone, so a reward model that also grades the evaluation would mark its
own homework; the report warns about that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from equipoise.data.built import Built, Dropped, collect, column, draft, optional_text, text
from equipoise.data.prompts import post_prompt, system_and_user
from equipoise.data.read import POCKET, source_rows
from equipoise.data.sampling import ranked_pairs
from equipoise.data.sources import table
from equipoise.data.workshop import Finished, Workshop
from equipoise.recipe import OnPolicySource, PromptColumns
from equipoise.records import Message, Pair

Row = Mapping[str, Any]
Prompt = tuple[Message, ...]
WORLD_COLUMNS = {"general": ("system", "question"), "finance": ("system", "user"), "reddit": ("title", "selftext")}
"""What the embedded world's kinds hold their prompts in; the source's domain says which kind."""


def build(name: str, spec: OnPolicySource) -> Built:
    """One draft, without a reference answer, for each distinct prompt."""
    known = WORLD_COLUMNS.get(spec.domain)
    required = known or () if spec.id == POCKET else list(table.column_names(spec.columns))
    asked: set[Prompt] = set()
    rows = source_rows(name, spec, required, pocket=spec.domain if known else None)
    return collect(name, spec, rows, lambda row: convert(row, name, spec, asked))


def convert(row: Row, name: str, spec: OnPolicySource, asked: set[Prompt]) -> Pair:
    """The draft of one row; raises Dropped where it has none. `asked` remembers the prompts so far."""
    prompt, group = _of_world(row, spec.domain) if spec.id == POCKET else _of_table(row, spec.columns)
    made = draft(prompt, "", spec=spec, name=name, group=group)
    if made.prompt in asked:
        raise Dropped("duplicate prompt", malformed=False)
    asked.add(made.prompt)
    return made


def finish(name: str, spec: OnPolicySource, drafts: Sequence[Pair], workshop: Workshop) -> Finished:
    """The pairs that the model's own answers make of drafts."""
    return ranked_pairs(name, spec.sampling, drafts, workshop)


def _of_table(row: Row, columns: PromptColumns) -> tuple[Prompt, str | None]:
    return table.prompt_of(row, columns), None if columns.group is None else table.group_of(column(row, columns.group))


def _of_world(row: Row, domain: str) -> tuple[Prompt, str | None]:
    first, second = WORLD_COLUMNS[domain]
    if domain == "reddit":
        prompt = post_prompt(text(column(row, first), first), optional_text(row, second))
    else:
        prompt = system_and_user(optional_text(row, first), text(column(row, second), second))
    return prompt, row["group"]
