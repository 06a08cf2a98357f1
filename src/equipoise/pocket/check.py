"""Rule check of a free answer, independent of the reward model: is what was asked for in the answer?

A check is a JSON-able dict. `any_of`: one of the phrases occurs; `choose`: exactly `count` different words of the
list `from` occur; `sequence`: the words occur in that order and no word of it twice. Any of them may come with
`none_of`: phrases that must not occur, so that naming every option is not an answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_WORD = re.compile(r"[a-z0-9]+")


def correct(check: Mapping[str, Any], answer: str) -> bool:
    """Whether the answer passes the check; case and spacing do not matter, word boundaries do."""
    words = _WORD.findall(answer.lower())
    if any(_contains(words, phrase) for phrase in check.get("none_of", ())):
        return False
    if "any_of" in check:
        return any(_contains(words, phrase) for phrase in check["any_of"])
    if "choose" in check:
        listed = {str(word).lower() for word in check["choose"]["from"]}
        return len(listed.intersection(words)) == int(check["choose"]["count"])
    if "sequence" in check:
        wanted = [str(word).lower() for word in check["sequence"]]
        return [word for word in words if word in set(wanted)] == wanted
    raise ValueError(f"a check needs any_of, choose or sequence, has: {', '.join(sorted(check)) or 'nothing'}")


def _contains(words: Sequence[str], phrase: str) -> bool:
    """Whether the phrase's words stand next to each other in `words`."""
    wanted = _WORD.findall(phrase.lower())
    size = len(wanted)
    return bool(size) and any(list(words[i : i + size]) == wanted for i in range(len(words) - size + 1))
