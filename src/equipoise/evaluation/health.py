"""What can be said about an answer whatever its score is: empty, cut off, repeating itself, in another language.

A reward model likes long and repeated text, so these figures stand next to every reward.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from equipoise.evaluation.language import switches
from equipoise.records import Health

SENTENCE_WORDS = 5
"""A sentence of at least this many words that occurs twice in one answer is a repetition."""
IN_A_ROW = 4
"""So often the same word in a row is a repetition ("very, very, very good" is not)."""
NGRAM = 4
REPEATED_SHARE = 0.3
"""An answer repeats itself when more than this share of its words lies in 4-grams that occurred before."""

_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)|\n+|[。!?]+")
_STRIP = re.compile(r"^\W+|\W+$")
_LOOP = re.compile(r"(\S{1,20}?)\1{10,}")


NOTHING_WRITTEN = Health(empty=False, cut_off=False, repeated=False, words=0)
"""Of an item for which the model writes nothing."""


def health(answers: Sequence[str], cut_off: bool, question: str = "") -> Health:
    """Return the health of the answers to one item, one answer per turn; each turn is judged by itself.

    `empty`: there is no answer, or one of them is only white space. `repeated`: one of them `repeats`.
    `words`: of all turns, separated by white space. `cut_off` is passed on: only generation knows it. `switched`: one
    of them is in another language than the `question` (see `evaluation.language`).
    """
    return Health(
        empty=not answers or any(not answer.strip() for answer in answers),
        cut_off=cut_off,
        repeated=any(repeats(answer) for answer in answers),
        words=sum(len(answer.split()) for answer in answers),
        switched=any(switches(question, answer) for answer in answers),
    )


def repeats(answer: str) -> bool:
    """Return whether a text repeats itself, by any of four stated rules.

    A sentence (or line) of 5 words or more occurs twice; one word stands 4 times in a row; more than 30 %
    of the words lie in 4-grams that occurred before; a piece of 1-20 characters that holds a letter or
    digit follows itself 10 times ("hahaha...", also in scripts without spaces). Case and punctuation do
    not count, so table rules such as `|---|---|` are no words and no repetition.
    """
    words = _words(answer)
    return _same_sentence(answer) or _in_a_row(words) or _share_repeated(words) > REPEATED_SHARE or _loops(answer)


def _words(text: str) -> list[str]:
    """Return the words of `text` in lower case without punctuation at their ends."""
    stripped = (_STRIP.sub("", word) for word in text.casefold().split())
    return [word for word in stripped if word]


def _same_sentence(text: str) -> bool:
    sentences = (tuple(_words(part)) for part in _SENTENCE_END.split(text))
    counts = Counter(sentence for sentence in sentences if len(sentence) >= SENTENCE_WORDS)
    return any(count > 1 for count in counts.values())


def _in_a_row(words: list[str]) -> bool:
    run = 1
    for previous, word in pairwise(words):
        run = run + 1 if word == previous else 1
        if run >= IN_A_ROW:
            return True
    return False


def _share_repeated(words: list[str]) -> float:
    """Return the share of words covered by a 4-gram that also stands earlier in the text; 0 for no words."""
    seen: set[tuple[str, ...]] = set()
    covered: set[int] = set()
    for start in range(len(words) - NGRAM + 1):
        gram = tuple(words[start : start + NGRAM])
        if gram in seen:
            covered.update(range(start, start + NGRAM))
        seen.add(gram)
    return len(covered) / len(words) if words else 0.0


def _loops(text: str) -> bool:
    return any(any(map(str.isalnum, found[1])) for found in _LOOP.finditer(text))
