"""What differs between two texts, word by word. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

Pieces = list[tuple[str, bool]]
"""Parts of a text in order, each with whether the other text has it not."""

MOST = 5000
"""Texts with more pairs of equal words repeat themselves so much that comparing them would take seconds."""

# A word with the blanks behind it, or a mark; in scripts without blanks every character is a word.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]\s*|[^\W\u3040-\u30ff\u3400-\u9fff]+\s*|[^\w\s]\s*|\s+")


def changed(before: str, after: str) -> tuple[Pieces, Pieces]:
    """Return both texts in pieces; joined again they are the texts. Blanks alone are no difference.

    Of texts that repeat themselves very much only the common beginning and end count as the same.
    """
    if before == after:
        return [(before, False)], [(after, False)]
    left, right = _WORD.findall(before), _WORD.findall(after)
    plain = [word.strip() for word in left], [word.strip() for word in right]
    start = _same(*plain)
    end = _same(plain[0][start:][::-1], plain[1][start:][::-1])
    inner = [words[start : len(words) - end] for words in plain]
    pieces: tuple[Pieces, Pieces] = ([], [])
    for side, words in zip(pieces, (left, right), strict=True):
        _add(side, words[:start], False)
    for new, *places in _opcodes(*inner):
        for side, words, (first, last) in zip(pieces, (left, right), places, strict=True):
            _add(side, words[start + first : start + last], new)
    for side, words in zip(pieces, (left, right), strict=True):
        _add(side, words[len(words) - end :], False)
    return pieces


def _same(left: Sequence[str], right: Sequence[str]) -> int:
    """How many words both begin with."""
    places = range(min(len(left), len(right)))
    return next((place for place in places if left[place] != right[place]), len(places))


def _opcodes(left: Sequence[str], right: Sequence[str]) -> list[tuple[bool, tuple[int, int], tuple[int, int]]]:
    """Which parts differ, and their places in both."""
    counts = Counter(left), Counter(right)
    if sum(number * counts[1][word] for word, number in counts[0].items()) > MOST:
        return [(True, (0, len(left)), (0, len(right)))]
    found = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return [(kind != "equal", (a, b), (c, d)) for kind, a, b, c, d in found]


def _add(side: Pieces, words: Sequence[str], new: bool) -> None:
    """A changed piece ends with its last word: the blanks behind it are not marked."""
    text = "".join(words)
    if not text:
        return
    marked = text.rstrip() if new else text
    if marked:
        side.append((marked, new))
    if marked != text:
        side.append((text[len(marked) :], False))
