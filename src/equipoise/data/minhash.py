"""MinHash: which of many documents may be near each other, found by sorting hashes and not by comparing all with all.

Each document gets `BANDS * ROWS` minima of its hashed runs of three words (Broder 1997). Two documents collide when
all minima of one band agree, which happens with a probability of 1 - (1 - s ** ROWS) ** BANDS at a similarity of s:
95 % at 0.8, 99.99 % at 0.9, 6 % at 0.5.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from equipoise.data.seeds import generator
from equipoise.data.words import Hashes, Places, hashed, mixed, over_blocks

Document = tuple[str, ...]
BANDS, ROWS = 16, 8
RUN = 3
"""Words in a run."""
_BASE = np.uint64(0xD1342543DE82EF95)
_NO_WORD = np.uint64(0x2545F4914F6CDD1D)


def size(document: Document) -> int:
    """Characters of all parts."""
    return sum(map(len, document))


def buckets(documents: Sequence[Document], progress: Callable[[int], None]) -> Places:
    """The number of the bucket that each document shares with others in each band, -1 where it is alone.

    Shape [documents, bands]; buckets of different bands have different numbers. `progress` takes documents done.
    """
    keys = _band_keys(documents, progress)
    result = np.full(keys.shape, -1, np.int64)
    if len(documents) < 2:
        return result
    for band in range(BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        again = np.diff(keys[order, band]) == 0
        number = np.concatenate([[0], np.cumsum(~again)]) * BANDS + band
        shared = np.append(again, False) | np.insert(again, 0, False)
        result[order[shared], band] = number[shared]
    return result


def runs_of(documents: Sequence[Document]) -> tuple[Hashes, Places]:
    """Hashed runs of three words of all parts, with the offsets of each part: [documents * parts + 1].

    A part of one or two words is one run; a part without any word is its own word. The parts of a document never
    share a run.
    """
    texts = [part for document in documents for part in document]
    found = hashed(texts)
    missing = np.maximum(RUN - found.counts, 0)
    fill = np.full(missing.sum(), _NO_WORD, np.uint64)
    wordless = np.flatnonzero(found.counts == 0)
    fill[np.cumsum(missing)[wordless] - RUN] = [_own_word(texts[place]) for place in wordless]
    said = np.insert(found.words, np.repeat(found.offsets[1:], missing), fill)
    runs = (said[:-2] * _BASE + said[1:-1]) * _BASE + said[2:]
    ends = np.cumsum(found.counts + missing)
    whole = np.ones(runs.size, np.bool_)
    whole[ends[:-1] - 1] = whole[ends[:-1] - 2] = False  # the others reach into the next text
    counts = found.counts + missing - (RUN - 1)
    parts = np.tile(np.arange(len(documents[0]), dtype=np.uint64), len(documents))
    return mixed(runs[whole] + np.repeat(parts * _NO_WORD, counts)), np.concatenate([[0], np.cumsum(counts)])


def _own_word(text: str) -> int:
    """The hash of a text that has no word."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _band_keys(documents: Sequence[Document], progress: Callable[[int], None]) -> Hashes:
    """The minima of each document, those of a band mixed into one key: [documents, bands]."""
    draw = generator("minhash")
    factors = draw.integers(0, 1 << 31, BANDS * ROWS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    terms = draw.integers(0, 1 << 32, BANDS * ROWS, dtype=np.uint32)

    def keys_of(block: Sequence[Document]) -> Hashes:
        runs, offsets = runs_of(block)
        small = (runs >> np.uint64(32)).astype(np.uint32)
        starts = offsets[: -1 : len(block[0])]
        scratch = np.empty_like(small)
        lowest = np.empty((BANDS, ROWS, len(block)), np.uint32)
        for row, factor, term in zip(lowest.reshape(-1, len(block)), factors, terms, strict=True):
            np.multiply(small, factor, out=scratch)  # arithmetic modulo 2 to the 32
            np.add(scratch, term, out=scratch)
            np.minimum.reduceat(scratch, starts, out=row)
        keys = np.zeros((BANDS, len(block)), np.uint64)
        for number in range(ROWS):
            keys = mixed(keys ^ lowest[:, number])
        return keys.T

    result = np.empty((len(documents), BANDS), np.uint64)
    start = 0
    for stop, keys in over_blocks(keys_of, documents, size):
        result[start:stop] = keys
        start = stop
        progress(stop)
    return result
