"""Near duplicates among many documents, in time that grows with the documents and not with their square.

A document is a tuple of parts (texts). Two documents are near when each part of the one has a Jaccard similarity of
at least `NEAR` with the same part of the other, over runs of three words. Three steps find them:

1. MinHash (`data/minhash.py`): documents that are near collide in a band of hashes, 95 % of those at a similarity of
   0.8, 99.99 % of those at 0.9; few others do.
2. Of documents that collide, a bitmap of parities gives a lower bound of how many runs are in one and not in the
   other (Sandes, Teodoro and Melo 2020, "Bitmap filter: speeding up exact set similarity joins with bitwise
   operations"). The bound is proven: what it rules out is not near. It costs some nanoseconds, so thousands of
   documents made from one template may collide with one another.
3. What is left is compared exactly, set by set.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from equipoise.data.minhash import Document, buckets, runs_of, size
from equipoise.data.words import Hashes, Places, over_blocks

Progress = Callable[[int, int], None]

NEAR = 0.8
_APART = (1 - NEAR) / (1 + NEAR)
"""Sets of a and b elements are near only where at most (a + b) times this are in one of them alone."""
_WORDS = 16  # of 64 bits, in a bitmap
_WORD_SHIFT, _BIT_SHIFT = np.uint64(60), np.uint64(54)  # the highest bits of a run choose word and bit
_FEW = 64  # candidates that are gathered one by one; of more, scanning all that stay is faster
_KEPT_BYTES = 128 << 20  # sets that are kept; others are made again when they are compared


def near_duplicates(documents: Sequence[Document], *, progress: Progress | None = None) -> list[int | None]:
    """For each document the place of the first earlier one that is near and stays, or None: it stays itself.

    All documents have the same number of parts; runs of different parts are never the same run. A text without any
    word is its own word. `progress` takes (done, all): twice the documents, which are hashed and then compared.
    """

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, 2 * len(documents))

    result: list[int | None] = [None] * len(documents)
    shared = buckets(documents, tell)
    colliding = np.flatnonzero((shared >= 0).any(axis=1)).tolist()
    staying = _Staying(documents, len(colliding))
    start = 0
    for stop, sets in over_blocks(
        lambda places: _sets([documents[place] for place in places]),
        colliding,
        lambda place: size(documents[place]) + 64 * _WORDS * len(documents[place]),
    ):
        for number, place in enumerate(colliding[start:stop]):
            result[place] = staying.first_near(place, shared[place], sets, number)
        start = stop
        tell(len(documents) + place)
    tell(2 * len(documents))
    return result


@dataclass(frozen=True, slots=True)
class _RunSets:
    """The sets of runs of some documents, part after part, each one sorted."""

    runs: Hashes
    offsets: Places  # [documents * parts + 1]
    sizes: Places  # [documents, parts]
    bitmaps: Hashes  # [documents, parts, words]: for each class of runs whether the set has an odd number of them

    def of(self, number: int) -> list[Hashes]:
        """The set of each part of one document."""
        parts = self.sizes.shape[1]
        offsets = self.offsets[number * parts : (number + 1) * parts + 1].tolist()
        return [self.runs[start:stop] for start, stop in pairwise(offsets)]


def _sets(documents: Sequence[Document]) -> _RunSets:
    runs, offsets = runs_of(documents)
    for start, stop in pairwise(offsets.tolist()):
        runs[start:stop].sort()
    first = np.concatenate([[True], runs[1:] != runs[:-1]])
    first[offsets[:-1]] = True
    sizes = np.add.reduceat(first, offsets[:-1], dtype=np.int64)
    runs = runs[first]
    words = np.repeat(np.arange(sizes.size, dtype=np.uint64) * np.uint64(_WORDS), sizes) + (runs >> _WORD_SHIFT)
    starts = np.flatnonzero(np.concatenate([[True], words[1:] != words[:-1]]))  # runs are sorted: so are words
    bitmaps = np.zeros(sizes.size * _WORDS, np.uint64)
    bitmaps[words[starts]] = np.bitwise_xor.reduceat(np.uint64(1) << (runs >> _BIT_SHIFT) % np.uint64(64), starts)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return _RunSets(runs, offsets, sizes.reshape(len(documents), -1), bitmaps.reshape(len(documents), -1, _WORDS))


class _Staying:
    """The documents that stay, of those that collide with any: where to look for an earlier one that is near."""

    def __init__(self, documents: Sequence[Document], most: int) -> None:
        parts = len(documents[0]) if documents else 0
        self._documents = documents
        self._places: list[int] = []  # a position in this list is a slot
        self._slots_in: dict[int, list[int]] = {}  # bucket -> slots
        self._bitmaps = np.zeros((parts, _WORDS, most), np.uint64)
        self._folded = np.zeros((parts, most), np.uint64)
        self._sizes = np.zeros((parts, most), np.int64)
        self._kept: OrderedDict[int, list[Hashes]] = OrderedDict()
        self._kept_bytes = 0

    def first_near(self, place: int, shared: Places, sets: _RunSets, number: int) -> int | None:
        """The first document that stays and is near the one at `place`; without one, that one stays.

        `shared` are its buckets; its runs are those of document `number` in `sets`.
        """
        own = sets.of(number)
        members = [self._slots_in.setdefault(bucket, []) for bucket in shared[shared >= 0].tolist()]
        for slot in self._possible(members, sets.bitmaps[number], sets.sizes[number]).tolist():
            earlier: int = self._places[slot]
            if all(map(_near, own, self._sets_at(earlier))):
                return earlier
        slot = len(self._places)
        self._places.append(place)
        self._bitmaps[:, :, slot] = sets.bitmaps[number]
        self._folded[:, slot] = np.bitwise_xor.reduce(sets.bitmaps[number], axis=1)
        self._sizes[:, slot] = sets.sizes[number]
        for slots in members:
            slots.append(slot)
        self._keep(place, [runs.copy() for runs in own])  # not a view that holds a whole block
        return None

    def _possible(self, members: list[list[int]], bitmaps: Hashes, sizes: Places) -> Places:
        """Slots, in order, of documents in the same buckets whose bitmaps do not rule out that all parts are near.

        Runs in both sets cancel out in the parities, so the bits in which two bitmaps differ are at most the runs
        that are in one of the sets alone. The same holds for bitmaps that are folded to 64 bits.
        """
        if sum(map(len, members)) <= max(_FEW, len(self._places) // 4):
            slots = np.array(sorted(set().union(*members)), np.int64)
        else:
            slots = np.arange(len(self._places))
            for part, folded in enumerate(np.bitwise_xor.reduce(bitmaps, axis=1)):
                slots = self._left(slots, part, self._folded[part : part + 1], folded[None], sizes)
        for part, bitmap in enumerate(bitmaps):
            slots = self._left(slots, part, self._bitmaps[part], bitmap, sizes) if slots.size else slots
        return slots

    def _left(self, slots: Places, part: int, words: Hashes, bits: Hashes, sizes: Places) -> Places:
        """The slots whose bitmaps, `words`: [words, slots], differ from `bits` in no more places than near ones may."""
        count = len(self._places)
        if slots.size <= max(_FEW, count // 4):
            differing = np.bitwise_count(words[:, slots] ^ bits[:, None]).sum(axis=0)
            within = differing <= _most(self._sizes[part, slots], sizes[part])
        else:  # copying many is slower than looking at all
            differing = np.zeros(count, np.uint16)
            for word, own in zip(words[:, :count], bits, strict=True):
                differing += np.bitwise_count(word ^ own)
            within = (differing <= _most(self._sizes[part, :count], sizes[part]))[slots]
        left: Places = slots[within]
        return left

    def _sets_at(self, place: int) -> list[Hashes]:
        if place not in self._kept:
            self._keep(place, _sets([self._documents[place]]).of(0))
        self._kept.move_to_end(place)
        return self._kept[place]

    def _keep(self, place: int, sets: list[Hashes]) -> None:
        """Keep the sets of a document, and forget those that were not needed for longest."""
        self._kept[place] = sets
        self._kept_bytes += sum(runs.nbytes for runs in sets)
        while self._kept_bytes > _KEPT_BYTES and len(self._kept) > 1:
            self._kept_bytes -= sum(runs.nbytes for runs in self._kept.popitem(last=False)[1])


def _most(sizes: Places, size: int) -> NDArray[np.floating]:
    """How many runs may be in one alone of two sets that are near."""
    return (sizes + size) * _APART + 1e-6


def _near(one: Hashes, other: Hashes) -> bool:
    """Whether two sets have a Jaccard similarity of at least NEAR."""
    shared = np.intersect1d(one, other, assume_unique=True).size
    return bool(shared >= NEAR * (one.size + other.size - shared))
