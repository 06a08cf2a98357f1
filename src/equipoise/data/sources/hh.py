"""Kind `hh`: whole dialogues in `chosen` and `rejected`, as in Anthropic/hh-rlhf.

The prompt is everything up to the last assistant turn, in real chat turns; the answers are what follows it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from equipoise.data.built import Built, Dropped, collect, column, pair, text, turns
from equipoise.data.read import source_rows
from equipoise.recipe import HhSource
from equipoise.records import Pair, Role, content_id

_MARK = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
Turn = tuple[Role, str]


def build(name: str, spec: HhSource) -> Built:
    """One pair per row; dialogues that begin with the same words are one group."""
    rows = source_rows(name, spec, ("chosen", "rejected"), None)
    return collect(name, spec, rows, lambda row: convert(row, name, spec))


def convert(row: Mapping[str, Any], name: str, spec: HhSource) -> Pair:
    """The pair of one row; raises Dropped where the two prompts differ or a reply is empty."""
    *prompt, chosen = dialogue(text(column(row, "chosen"), "chosen"), "chosen")
    *other, rejected = dialogue(text(column(row, "rejected"), "rejected"), "rejected")
    if prompt != other:
        raise Dropped("prompts differ", "chosen and rejected answer different dialogues")
    if not prompt or prompt[-1][0] != "user":
        raise Dropped("prompt does not end with a user turn")
    return pair(turns(prompt), chosen[1], rejected[1], spec=spec, name=name, group=content_id(prompt[0][1]))


def dialogue(value: str, name: str) -> list[Turn]:
    """Turns of `\\n\\nHuman: ...\\n\\nAssistant: ...`; raises Dropped where the last is not a reply."""
    before, *parts = _MARK.split(value)
    if before.strip() or not parts or parts[0] != "Human":
        raise Dropped("not a dialogue", f"{name} does not begin with 'Human:'")
    found = [(_ROLES[role], said.strip()) for role, said in zip(parts[::2], parts[1::2], strict=True)]
    if found[-1][0] != "assistant":
        raise Dropped("no reply at the end", f"{name} ends with a human turn")
    return found
