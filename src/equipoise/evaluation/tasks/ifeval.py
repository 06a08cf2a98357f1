"""IFEval: does a response follow an instruction that a program can check?

Source: Zhou et al. 2023, "Instruction-Following Evaluation for Large Language Models"
(https://arxiv.org/abs/2311.07911); program and data in
https://github.com/google-research/google-research/tree/master/instruction_following_eval.

The 25 kinds of instruction are in `ifeval_rules.RULES`. *Strict* looks at the response as it is. *Loose* also
accepts it when it follows without its first line, its last line or both (an opening such as "Sure, here it
is:"), each with and without asterisks (Markdown emphasis): eight variants in all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from equipoise.evaluation.tasks.ifeval_rules import RULES


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
    for text in (response, *cut):
        yield text
        yield text.replace("*", "")
