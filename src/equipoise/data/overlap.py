"""Which pairs touch what the evaluation will ask.

A pair touches it when one of its user turns is the text of an evaluation item, or when a user turn or an answer shares
a run of `OVERLAP_WORDS` words with one. Runs that stand in more than `BOILERPLATE` evaluation texts are the
evaluation's own template (its instruction line) and tell nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from equipoise.data.words import HashedWords, Hashes, Places, hashed, mixed, over_blocks, words
from equipoise.records import Pair, user_turns

OVERLAP_WORDS = 13
BOILERPLATE = 20
EVALUATED = "prompt of the evaluation"
OVERLAP = f"{OVERLAP_WORDS} words of the evaluation"
_BASE = 0x9E3779B97F4A7C15
_ROOM = 32  # entries of the filter table per run: 3 % of foreign runs pass it


class Overlap:
    """The texts of an evaluation, made ready to be looked for in many pairs.

    `evaluation_texts` are the questions (first and later user turns) of all items that the recipe evaluates;
    add reference answers only where their wording gives the answer away.
    """

    def __init__(self, evaluation_texts: Sequence[str]) -> None:
        texts = list(dict.fromkeys(evaluation_texts))
        found = hashed(texts)
        self._questions = {" ".join(said) for said in map(words, texts) if said}
        self._outlines = np.unique(_outlines(found)[0])
        self._runs = _telling_runs(found)
        bits = min(26, max(16, (self._runs.size * _ROOM).bit_length()))
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, np.bool_)
        self._filter[self._runs >> self._shift] = True

    def reason(self, pair: Pair) -> str | None:
        """`EVALUATED`, `OVERLAP`, or None for a pair that may be trained on."""
        return self._reasons([pair])[0]

    def reasons(self, pairs: Sequence[Pair], *, progress: Callable[[int, int], None] | None = None) -> list[str | None]:
        """What `reason` says of each pair, for many at once; `progress` takes (pairs done, all)."""
        result: list[str | None] = []
        if not self._questions:
            return [None] * len(pairs)
        for done, found in over_blocks(self._reasons, pairs, _characters):
            result += found
            if progress is not None:
                progress(done, len(pairs))
        return result

    def _reasons(self, pairs: Sequence[Pair]) -> list[str | None]:
        texts: list[str] = []
        owners: list[int] = []
        asked: list[bool] = []
        for place, pair in enumerate(pairs):
            turns = user_turns(pair.prompt)
            texts += [*turns, pair.chosen, pair.rejected]
            owners += [place] * (len(turns) + 2)
            asked += [True] * len(turns) + [False, False]
        found = hashed(texts)
        result: list[str | None] = [None] * len(pairs)
        for text in self._sharing(found).tolist():
            result[owners[text]] = OVERLAP
        outlines, spoken = _outlines(found)
        for text in spoken[_among(outlines, self._outlines)].tolist():
            if asked[text] and " ".join(words(texts[text])) in self._questions:
                result[owners[text]] = EVALUATED
        return result

    def _sharing(self, found: HashedWords) -> Places:
        """Places of the texts that share a telling run with the evaluation."""
        runs = _runs(found.words)
        starts = np.flatnonzero(self._filter[runs >> self._shift])
        starts = starts[_among(runs[starts], self._runs)]
        texts = np.searchsorted(found.offsets, starts, side="right") - 1
        whole = starts + OVERLAP_WORDS <= found.offsets[texts + 1]  # the others reach into the next text
        return np.unique(texts[whole])


def _characters(pair: Pair) -> int:
    return sum(len(message.content) for message in pair.prompt) + len(pair.chosen) + len(pair.rejected)


def _runs(said: Hashes) -> Hashes:
    """One hash for each run of `OVERLAP_WORDS` words, whatever texts they belong to."""
    count = said.size - OVERLAP_WORDS + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    result = said[:count].copy()
    for place in range(1, OVERLAP_WORDS):  # arithmetic modulo 2 to the 64
        result *= np.uint64(_BASE)
        result += said[place : place + count]
    return mixed(result)


def _telling_runs(found: HashedWords) -> Hashes:
    """Sorted hashes of the runs of words that tell one evaluation text from the others."""
    each = [_runs(found.words[start:stop]) for start, stop in pairwise(found.offsets.tolist())]
    once = [np.unique(runs) for runs in each]  # once per text, whatever it repeats
    runs, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *once]), return_counts=True)
    telling: Hashes = runs[counts <= BOILERPLATE]
    return telling


def _outlines(found: HashedWords) -> tuple[Hashes, Places]:
    """Hash of the first word, the last word and the count of each text that has words; and the places of these."""
    spoken = np.flatnonzero(found.counts)
    first, last = found.words[found.offsets[spoken]], found.words[found.offsets[spoken + 1] - 1]
    return mixed((first * np.uint64(_BASE) + last) * np.uint64(_BASE) + found.counts[spoken].astype(np.uint64)), spoken


def _among(values: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which values stand in `known`, which is sorted."""
    if not known.size:
        return np.zeros(values.size, np.bool_)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, values), known.size - 1)] == values
    return found
