"""Cleaning: exact and near duplicates, and what the evaluation will ask. Pure; every drop has a counted reason.

Near duplicates: two pairs are near duplicates when their prompts, their chosen and their rejected answers all
have a Jaccard similarity of at least `NEAR` over runs of three words. All three, because prompts share templates
and documents: another question about the same table, or another preference for the same prompt, is a pair of its
own. MinHash finds the candidates, and each one is then compared exactly, so no pair is lost to a hash. Of two
near duplicates the first stays.

Overlap: a pair goes when one of its user turns is the text of an evaluation item, or when a user turn or an answer
shares a run of `OVERLAP_WORDS` words with one. Runs that stand in more than `BOILERPLATE` evaluation texts are
the evaluation's own template (its instruction line) and tell nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from equipoise.records import Pair

NEAR = 0.8
OVERLAP_WORDS = 13
BOILERPLATE = 20
EXACT = "exact duplicate"
NEAR_DUPLICATE = "near duplicate"
EVALUATED = "prompt of the evaluation"
OVERLAP = f"{OVERLAP_WORDS} words of the evaluation"
_SHINGLE_WORDS = 3
_BANDS, _ROWS = 16, 8  # finds 95 % of pairs at a similarity of 0.8, 99.99 % at 0.9, 6 % at 0.5
_WORD = re.compile(r"\w+")
_PARTS = ("chosen", "rejected", "prompt")
Shingles = frozenset[int]
CACHED = 4096
"""Pairs whose shingles are kept; those of others are made again when a candidate needs them (memory)."""


def clean(pairs: Sequence[Pair], *, evaluation_texts: Sequence[str]) -> tuple[list[Pair], dict[str, int]]:
    """Return the pairs that may be trained on, in their order, and how many went for which reason.

    `evaluation_texts` are the questions (first and later user turns) of all items that the recipe evaluates;
    add reference answers only where their wording gives the answer away.
    """
    reasons: Counter[str] = Counter()
    kept = _first_of_each(pairs)
    reasons[EXACT] = len(pairs) - len(kept)
    overlap = _overlaps(kept, evaluation_texts)
    reasons.update(reason for reason in overlap if reason)
    kept = [pair for pair, reason in zip(kept, overlap, strict=True) if reason is None]
    distinct = _without_near_duplicates(kept)
    reasons[NEAR_DUPLICATE] = len(kept) - len(distinct)
    return distinct, {reason: count for reason, count in sorted(reasons.items()) if count}


def words(value: str) -> list[str]:
    """Words in lower case, without punctuation; the same for different encodings of the same letters."""
    return _WORD.findall((value if value.isascii() else unicodedata.normalize("NFKC", value)).lower())


def _first_of_each(pairs: Iterable[Pair]) -> list[Pair]:
    """The pairs without those whose prompt and answers came before, from whatever source."""
    first: dict[tuple[object, ...], Pair] = {}
    for pair in pairs:
        first.setdefault((pair.prompt, pair.chosen, pair.rejected), pair)
    return list(first.values())


# --- overlap with the evaluation ---


def _overlaps(pairs: Sequence[Pair], evaluation_texts: Sequence[str]) -> list[str | None]:
    """For each pair the reason why it touches the evaluation, or None."""
    evaluated = [words(text) for text in dict.fromkeys(evaluation_texts)]
    questions = {" ".join(text) for text in evaluated if text}
    vocabulary = {word: number for number, word in enumerate(sorted({w for text in evaluated for w in text}))}
    known = _runs_of_evaluation(evaluated, vocabulary)

    @cache  # pairs share prompts
    def reason(value: str, asked: bool) -> str | None:
        said = words(value)
        if asked and " ".join(said) in questions:
            return EVALUATED
        return None if known.isdisjoint(_runs(said, vocabulary).tolist()) else OVERLAP

    def first_reason(pair: Pair) -> str | None:
        found = [reason(message.content, True) for message in pair.prompt if message.role == "user"]
        found += [reason(pair.chosen, False), reason(pair.rejected, False)]
        return EVALUATED if EVALUATED in found else next((entry for entry in found if entry), None)

    return [first_reason(pair) for pair in pairs] if questions else [None] * len(pairs)


def _runs_of_evaluation(texts: Sequence[Sequence[str]], vocabulary: dict[str, int]) -> frozenset[int]:
    """Hashes of the runs of words that tell one evaluation text from the others."""
    found = [np.unique(_runs(text, vocabulary)) for text in texts]  # once per text, whatever it repeats
    runs, counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *found]), return_counts=True)
    return frozenset(runs[counts <= BOILERPLATE].tolist())


def _runs(text: Sequence[str], vocabulary: dict[str, int]) -> NDArray[np.uint64]:
    """One 64-bit hash for each run of `OVERLAP_WORDS` words that are all in the vocabulary."""
    count = len(text) - OVERLAP_WORDS + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    ids = np.fromiter((vocabulary.get(word, -1) for word in text), np.int64, len(text))
    unknown = np.concatenate([[0], np.cumsum(ids < 0)])
    result = np.zeros(count, np.uint64)
    for place in range(OVERLAP_WORDS):  # arithmetic modulo 2 to the 64
        result = (result ^ ids[place : place + count].astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        result ^= result >> np.uint64(29)
    whole: NDArray[np.uint64] = result[unknown[OVERLAP_WORDS:] == unknown[:count]]
    return whole


# --- near duplicates ---


def _without_near_duplicates(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs without those that are near an earlier one that stays."""
    vocabulary: dict[str, int] = {}
    shingles = lru_cache(CACHED)(lambda pair: _shingles_of(pair, vocabulary))
    index = MinHashLSH(num_perm=_BANDS * _ROWS, params=(_BANDS, _ROWS))
    blank = MinHash(num_perm=_BANDS * _ROWS, hashfunc=_low_bits)
    kept: list[Pair] = []
    for pair in pairs:
        own = shingles(pair)
        sketch = blank.copy()
        sketch.update_batch(list(frozenset.union(*own)))
        if any(_near(own, shingles(kept[place])) for place in sorted(index.query(sketch))):
            continue
        index.insert(len(kept), sketch)
        kept.append(pair)
    return kept


def _near(one: Sequence[Shingles], other: Sequence[Shingles]) -> bool:
    """Whether all three parts are near each other."""
    return all(len(a & b) >= NEAR * len(a | b) for a, b in zip(one, other, strict=True))


def _shingles_of(pair: Pair, vocabulary: dict[str, int]) -> list[Shingles]:
    """Hashed runs of three words of chosen, rejected and prompt; the parts never share one."""
    texts = (pair.chosen, pair.rejected, "\n".join(message.content for message in pair.prompt))
    return [_shingles(text, part, vocabulary) for part, text in enumerate(texts)]


def _shingles(value: str, part: int, vocabulary: dict[str, int]) -> Shingles:
    found = words(value) or [value]  # a text of signs alone is its own word
    ids = [len(_PARTS) * vocabulary.setdefault(word, len(vocabulary)) + part for word in found]
    if len(ids) < _SHINGLE_WORDS:
        return frozenset([hash(tuple(ids))])
    # Python's hash of a tuple of integers is the same in every process.
    return frozenset(map(hash, zip(*(ids[start:] for start in range(_SHINGLE_WORDS)), strict=False)))


def _low_bits(hashed: int) -> int:
    """The 32 bits that datasketch works on."""
    return hashed & 0xFFFFFFFF
