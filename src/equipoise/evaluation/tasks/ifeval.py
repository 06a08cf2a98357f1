"""IFEval: does a response follow instructions that a program can check?

Link: Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models"
(https://arxiv.org/abs/2311.07911); program and data in
https://github.com/google-research/google-research/tree/master/instruction_following_eval, 541 prompts; also on the hub
as google/IFEval. Licence: Apache-2.0. Version 1.
Sample: "Write a 300+ word summary of [...]. Do not use any commas and highlight at least 3 sections."
Chance level: not 0; a text that knows nothing of the prompt follows some kinds (no comma, at most n words).
Value: 1 where the response follows all of its prompt's instructions, strictly. Metrics: `loose` (the same, loosely),
`instructions` and `instructions_loose` (shares of the prompt's instructions). Categories: groups of instructions.

The 25 kinds of instruction are in `ifeval_rules.RULES`. *Strict* looks at the response as it is. *Loose* also
accepts it when it follows without its first line, its last line or both (an opening such as "Sure, here it
is:"), each with and without asterisks (Markdown emphasis): eight variants in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from equipoise.data.read import require_columns
from equipoise.evaluation.tasks.base import Built, Evidence, Malformed, Outcome, Row, Task, collect, text, user
from equipoise.evaluation.tasks.ifeval_rules import RULES
from equipoise.recipe_evaluation import TaskSpec
from equipoise.records import Item


def follows(
    instruction_id: str, kwargs: Mapping[str, Any], response: str, *, prompt: str = "", strict: bool = True
) -> bool:
    """Return whether the response follows the instruction; a blank response follows none.

    Args:
        instruction_id: one of the 25 kinds, as `punctuation:no_comma`.
        kwargs: the instruction's own values, as in the published data; values that are None count as absent,
            and names that the kind does not know are ignored.
        response: what the model wrote; any text, of any length.
        prompt: the request, for `combination:repeat_prompt` when kwargs do not hold the text to repeat.
        strict: False also accepts the seven other variants of the response.

    Raises:
        ValueError: the instruction id is unknown, or kwargs lack a value or hold a malformed one.
    """
    rule = RULES.get(instruction_id)
    if rule is None:
        raise ValueError(f"unknown instruction id {instruction_id!r}, known: {', '.join(sorted(RULES))}")
    given = {name: value for name, value in kwargs.items() if value is not None}
    values = {"prompt_to_repeat": prompt} | given
    candidates = [response] if strict else dict.fromkeys(variants(response))
    return any(rule(candidate, values) for candidate in candidates if candidate.strip())


def variants(response: str) -> Iterator[str]:
    """The eight texts that the loose score looks at, the response itself first."""
    lines = response.split("\n")
    cut = ("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))
    for variant in (response, *cut):
        yield variant
        yield variant.replace("*", "")


def items(rows: list[dict[str, Any]], spec: TaskSpec, where: str) -> Built:
    """One item for each prompt: `key`, `prompt`, `instruction_id_list`, `kwargs` (one object for each instruction)."""
    require_columns(rows, ("key", "prompt", "instruction_id_list", "kwargs"), where)
    return collect(rows, _item)


def _item(row: Row) -> Item:
    ids, kwargs = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(ids, list) or not ids or not all(isinstance(id, str) for id in ids):
        raise Malformed("instruction_id_list is not a list of names")
    if not isinstance(kwargs, list) or len(kwargs) != len(ids) or not all(isinstance(one, dict) for one in kwargs):
        raise Malformed("kwargs are not one object for each instruction")
    if not isinstance(row.get("key"), int | str):
        raise Malformed("key is missing")
    # A Parquet file fills the values that an instruction does not have with nulls.
    given = [{name: value for name, value in one.items() if value is not None} for one in kwargs]
    return Item(
        id=str(row["key"]),
        task="ifeval",
        prompt=user(text(row, "prompt")),
        group=str(row["key"]),
        category=", ".join(sorted({id.partition(":")[0] for id in ids})),
        gold={"instructions": ids, "kwargs": given},
    )


def score(item: Item, evidence: Evidence) -> Outcome:
    """Whether all instructions are followed; an item whose instructions are malformed is unscored with the reason."""
    response, prompt = evidence.answers[0].text, item.prompt[-1].content
    asked = list(zip(item.gold["instructions"], item.gold["kwargs"], strict=True))
    try:
        strict = [follows(id, kwargs, response, prompt=prompt) for id, kwargs in asked]
        loose = [follows(id, kwargs, response, prompt=prompt, strict=False) for id, kwargs in asked]
    except ValueError as error:
        return Outcome(None, f"malformed gold: {error}")
    shares = {"instructions": sum(strict) / len(strict), "instructions_loose": sum(loose) / len(loose)}
    return Outcome(float(all(strict)), metrics={"loose": float(all(loose)), **shares})


TASK = Task(
    name="ifeval",
    version=1,
    value="all instructions of the prompt followed, strictly (0 or 1)",
    default_id="google/IFEval",
    default_split="train",
    pocket_kind="",
    pocket_rows=0,
    needs=frozenset({"answers"}),
    items=items,
    score=score,
)
