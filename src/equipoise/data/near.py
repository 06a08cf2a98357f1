"""Near duplicates among many documents, in time that grows with the documents and not with their square.

A document is a tuple of parts (texts). Two documents are near when each part of the one has a Jaccard similarity of
at least `NEAR` with the same part of the other, over runs of three words. Three steps find them:

1. MinHash: each document gets `_BANDS * _ROWS` minima of its hashed runs. Two documents collide when all minima of one
   band agree; that happens to 95 % of documents at a similarity of 0.8, to 99.99 % at 0.9, and to 6 % at 0.5.
2. Of documents that collide, a bitmap of parities gives a lower bound of how many runs are in one and not in the
   other (Sandes, Teodoro and Melo 2020, "Bitmap filter: speeding up exact set similarity joins with bitwise
   operations"). The bound is proven: it rules out, and never wrongly. It costs some nanoseconds, so that thousands of
   documents made from one template may collide with one another.
3. What is left is compared exactly, set by set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from equipoise.data.seeds import generator
from equipoise.data.words import Hashes, Places, hashed, mixed, over_blocks

Document = tuple[str, ...]
Progress = Callable[[int, int], None]

NEAR = 0.8
_RUN = 3
_BANDS, _ROWS = 16, 8
_CACHED = 1024  # documents whose sets are kept; others are made again when they are compared (memory)
_BITMAP = 512
_FEW = 64  # candidates that are gathered one by one; of more, scanning all that stay is faster
_BASE = np.uint64(0xD1342543DE82EF95)
_NO_WORD = np.uint64(0x2545F4914F6CDD1D)
_HALF = np.uint64(32)


def near_duplicates(documents: Sequence[Document], *, progress: Progress | None = None) -> list[int | None]:
    """For each document the place of the first earlier one that is near and stays, or None: it stays itself.

    All documents have the same number of parts; runs of different parts are never the same run. A text without any
    word is its own word. `progress` takes (done, all): twice the documents, which are hashed and then compared.
    """
    result: list[int | None] = [None] * len(documents)
    buckets = _buckets(_band_keys(documents, progress))
    colliding = np.flatnonzero((buckets >= 0).any(axis=1))
    staying = _Staying(documents, len(colliding))
    for done, place in enumerate(colliding.tolist()):
        result[place] = staying.first_near(place, buckets[place])
        if progress is not None and done % 1000 == 0:
            progress(len(documents) + place, 2 * len(documents))
    return result


class _Staying:
    """The documents that stay, of those that collide with any: where to look for an earlier one that is near."""

    def __init__(self, documents: Sequence[Document], most: int) -> None:
        parts = len(documents[0]) if documents else 0
        self._sets = lru_cache(_CACHED)(lambda place: _sets(documents[place]))
        self._places: list[int] = []
        self._members: dict[int, list[int]] = {}  # bucket -> slots: positions in self._places
        self._bitmaps = np.zeros((parts, _BITMAP // 64, most), np.uint64)
        self._sizes = np.zeros((parts, most), np.int64)

    def first_near(self, place: int, buckets: Places) -> int | None:
        """The first document that stays and is near the one at `place`; without one, that one stays."""
        own = self._sets(place)
        bitmaps = [_bitmap(part) for part in own]
        members = [self._members.setdefault(bucket, []) for bucket in buckets[buckets >= 0].tolist()]
        for slot in self._possible(self._candidates(members), bitmaps, [part.size for part in own]).tolist():
            if all(map(_near, own, self._sets(self._places[slot]))):
                return self._places[slot]
        slot = len(self._places)
        self._places.append(place)
        for part, bitmap in enumerate(bitmaps):
            self._bitmaps[part, :, slot] = bitmap
            self._sizes[part, slot] = own[part].size
        for slots in members:
            slots.append(slot)
        return None

    def _candidates(self, members: list[list[int]]) -> Places | None:
        """Slots of the documents in the same buckets, or None where so many are there that all are looked at."""
        total = sum(map(len, members))
        if total > max(_FEW, len(self._places) // 4):
            return None
        return np.array(sorted(set().union(*members)), np.int64)

    def _possible(self, slots: Places | None, bitmaps: list[Hashes], sizes: list[int]) -> Places:
        """Those candidates whose bitmaps do not rule out that all parts are near.

        Where a and b share s runs, Jaccard >= NEAR means a + b - 2 s <= (a + b) (1 - NEAR) / (1 + NEAR). Runs in
        both cancel out in the parities, so the bits in which two bitmaps differ are at most a + b - 2 s.
        """
        for part, bitmap in enumerate(bitmaps):
            chosen = slice(len(self._places)) if slots is None else slots
            differing = np.zeros(self._sizes[part, chosen].size, np.int64)
            for word, bits in zip(self._bitmaps[part], bitmap, strict=True):
                differing += np.bitwise_count(word[chosen] ^ bits)
            most = (self._sizes[part, chosen] + sizes[part]) * ((1 - NEAR) / (1 + NEAR)) + 1e-6
            left = np.flatnonzero(differing <= most)
            slots = left if slots is None else slots[left]
        return np.zeros(0, np.int64) if slots is None else slots


def _near(one: Hashes, other: Hashes) -> bool:
    """Whether two sets have a Jaccard similarity of at least NEAR."""
    shared = np.intersect1d(one, other, assume_unique=True).size
    return bool(shared >= NEAR * (one.size + other.size - shared))


def _bitmap(runs: Hashes) -> Hashes:
    """For each of `_BITMAP` classes of runs whether the set has an odd number of them."""
    odd = np.bincount((runs % np.uint64(_BITMAP)).astype(np.int64), minlength=_BITMAP) & 1
    return np.packbits(odd.astype(np.uint8)).view(np.uint64)


def _sets(document: Document) -> list[Hashes]:
    """The sorted set of runs of each part."""
    runs, offsets = _runs_of([document])
    return [np.unique(runs[start:stop]) for start, stop in zip(offsets, offsets[1:], strict=False)]


def _runs_of(documents: Sequence[Document]) -> tuple[Hashes, Places]:
    """Hashed runs of three words of all parts, with the offsets of each part: [documents * parts + 1].

    A part of one or two words is one run. The parts of a document never share a run.
    """
    texts = [part for document in documents for part in document]
    found = hashed(texts)
    counts = found.counts
    missing = np.maximum(_RUN - counts, 0)
    fill = np.full(missing.sum(), _NO_WORD, np.uint64)
    wordless = np.flatnonzero(counts == 0)
    fill[np.cumsum(missing)[wordless] - _RUN] = [_own_word(texts[place]) for place in wordless]
    said = np.insert(found.words, np.repeat(found.offsets[1:], missing), fill)
    runs = (said[:-2] * _BASE + said[1:-1]) * _BASE + said[2:]
    ends = np.cumsum(counts + missing)
    whole = np.ones(runs.size, np.bool_)
    for back in (1, 2):  # these runs reach into the next text
        whole[ends[:-1] - back] = False
    runs = runs[whole]
    each = counts + missing - (_RUN - 1)
    part = np.tile(np.arange(len(documents[0]), dtype=np.uint64), len(documents))
    runs += np.repeat(part * _NO_WORD, each)
    return mixed(runs), np.concatenate([[0], np.cumsum(each)])


def _own_word(text: str) -> int:
    """The hash of a text that has no word."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


# --- candidates ---


def _band_keys(documents: Sequence[Document], progress: Progress | None) -> Hashes:
    """MinHash of every document, folded to one key per band: [documents, bands]."""
    draw = generator("minhash")
    factors = draw.integers(0, 1 << 31, _BANDS * _ROWS, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    terms = draw.integers(0, 1 << 32, _BANDS * _ROWS, dtype=np.uint32)

    def keys_of(block: Sequence[Document]) -> Hashes:
        runs, offsets = _runs_of(block)
        small = (runs >> _HALF).astype(np.uint32)
        starts = offsets[:-1 : len(block[0])]
        scratch = np.empty_like(small)
        lowest = np.empty((_BANDS, _ROWS, len(block)), np.uint32)
        for row, factor, term in zip(lowest.reshape(-1, len(block)), factors, terms, strict=True):
            np.multiply(small, factor, out=scratch)  # arithmetic modulo 2 to the 32
            np.add(scratch, term, out=scratch)
            np.minimum.reduceat(scratch, starts, out=row)
        keys = np.zeros((_BANDS, len(block)), np.uint64)
        for number in range(_ROWS):
            keys = mixed(keys ^ lowest[:, number])
        return keys.T

    result = np.empty((len(documents), _BANDS), np.uint64)
    start = 0
    for stop, keys in over_blocks(keys_of, documents, lambda document: sum(map(len, document))):
        result[start:stop] = keys
        start = stop
        if progress is not None:
            progress(stop, 2 * len(documents))
    return result


def _buckets(keys: Hashes) -> NDArray[np.int64]:
    """Number of the bucket of each document in each band, -1 where it is alone: [documents, bands]."""
    result = np.full(keys.shape, -1, np.int64)
    for band in range(_BANDS):
        order = np.argsort(keys[:, band], kind="stable")
        same = np.diff(keys[order, band]) == 0
        number = np.cumsum(np.concatenate([[True], ~same])) * _BANDS + band
        shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        result[order[shared], band] = number[shared]
    return result
