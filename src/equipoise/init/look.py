"""Looking into a file of pairs: its columns, its layout, and how many of its first rows really make a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from pydantic import TypeAdapter, ValidationError

from equipoise.data.clean import clean
from equipoise.data.kept import held_out_groups
from equipoise.data.read import iter_rows
from equipoise.data.sources import build
from equipoise.init.answers import Answers, domain_of
from equipoise.init.layout import Layout, of_columns, of_kind, recognise, singly_labelled
from equipoise.init.settings import hold_out
from equipoise.recipe_sources import Source, generated
from equipoise.records import InputError, Pair

ROWS = 3000
"""So many rows are looked at; counts of a larger file are those of its beginning."""
FIRST = 50
"""Rows by which the layout is recognised."""


@dataclass(frozen=True)
class Look:
    """What was found in a file.

    `record` is the source as a recipe writes it, without name; `pairs` are those of its first `ROWS` rows that stay
    after cleaning, of which `training` may be trained on and `held_out` are kept for the evaluation; these are of
    `held_groups` different prompts, or groups that the file names.
    """

    id: str
    domain: str
    layout: Layout
    columns: tuple[str, ...]
    rows: int
    whole: bool
    record: Mapping[str, Any]
    pairs: tuple[Pair, ...]
    training: int
    held_out: int
    held_groups: int
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def answered_by_model(self) -> bool:
        """Whether a model has to answer before there are pairs."""
        return generated(_source(self.record))

    def told(self) -> str:
        """One line for the terminal."""
        rows = f"{self.rows} rows" if self.whole else f"more than {self.rows} rows, looked at the first {self.rows}"
        makes = "questions to be answered" if self.answered_by_model else "clean pairs"
        gone = ", ".join(f"{reason}: {count}" for reason, count in self.dropped.items())
        return f"{self.id}: {rows}; {self.layout.words}; {len(self.pairs)} {makes}" + (f" ({gone})" if gone else "")


def look(id: str, answers: Answers, *, general: bool = False) -> Look:
    """Read the beginning of a file and recognise it; raises InputError where that cannot be done."""
    what = "--general" if general else "--data"
    rows = list(islice(iter_rows(id, split=answers.split, what=what), ROWS + 1))
    if not rows:
        raise InputError(f"{what}: {id}: no rows in it; name a file or split that has some")
    whole, rows = len(rows) <= ROWS, rows[:ROWS]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    layout = _layout(id, rows, names, answers, what, general)
    domain = "general" if general else answers.domain or domain_of(id, layout.kind)
    record = _record(id, layout, domain, answers)
    built = build(domain, _source({**record, **({} if whole else {"rows": ROWS})}))
    pairs, cleaned = clean(built.pairs, evaluation_texts=())
    asked = generated(_source(record))
    share = 0.0 if asked else hold_out(len(pairs))
    apart = held_out_groups(built.pairs, share)
    held = [pair.group for pair in pairs if pair.group in apart]
    dropped = {**built.dropped, **{reason: count for reason, count in cleaned.items() if count}}
    if share:
        record = {**record, "hold_out": share}
    training, groups = len(pairs) - len(held), len(set(held))
    return Look(id, domain, layout, names, len(rows), whole, record, tuple(pairs), training, len(held), groups, dropped)


def _layout(
    id: str, rows: list[dict[str, Any]], names: tuple[str, ...], answers: Answers, what: str, general: bool
) -> Layout:
    """What the user says about a file, else what its columns say."""
    first, there = rows[:FIRST], ", ".join(names)
    if answers.columns and not general:
        asked = [name for value in answers.columns.values() for name in ([value] if isinstance(value, str) else value)]
        missing = [name for name in asked if name not in names]
        if missing:
            raise InputError(f"--columns: {id} has no column {', '.join(missing)}; there are {there}")
        return of_columns(answers.columns)
    found = recognise(first)
    if (found is None or found.kind == "on_policy") and singly_labelled(first) and (general or not answers.kind):
        raise InputError(
            f"{what}: {id}: single answers with a label are no pairs, which need a better and a worse answer to one "
            "prompt; to use the prompts alone say --columns prompt=COLUMN"
        )
    if answers.kind and not general:
        if answers.kind in ("table", "on_policy") and (found is None or found.kind != answers.kind):
            raise InputError(f"--kind {answers.kind}: say which column is what with --columns; {id} has {there}")
        return found if found and found.kind == answers.kind else of_kind(answers.kind, dict.fromkeys(names))
    if found is None:
        says = "write the source by hand" if general else "say which column is what, as --columns "
        says += "" if general else "prompt=question,chosen=good,rejected=bad (or first=,second=,label=)"
        raise InputError(f"{what}: {id}: no known layout; it has the columns {there}; {says}")
    return found


def _record(id: str, layout: Layout, domain: str, answers: Answers) -> dict[str, Any]:
    """The source as a recipe writes it."""
    record: dict[str, Any] = {"kind": layout.kind, "id": id, "domain": domain, **layout.options}
    if answers.split != "train":
        record["split"] = answers.split
    if layout.kind == "finance_instruct":
        record["rejected"] = "sampled" if answers.reward else "corrupted"
        record["finance_only"] = domain == "finance"
    return record


def _source(record: Mapping[str, Any]) -> Source:
    """The source of a record; raises InputError where its parts do not go together."""
    try:
        made: Source = TypeAdapter(Source).validate_python(dict(record))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(map(str, problem["loc"][1:])) or "source"
        said = problem["msg"].removeprefix("Value error, ")
        raise InputError(f"{record['id']}: {place}: {said}; see --columns") from None
    return made
