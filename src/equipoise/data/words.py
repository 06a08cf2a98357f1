"""Words of a text, one by one for exact comparison, and as 64-bit hashes for many texts at once.

What a word is stands in `words` alone: lower case, without punctuation, the same for different encodings of the same
letters. `hashed` finds the same words in whole blocks of text with numpy and makes no object for each: cleaning meets
every word of every pair, and has to end in seconds.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Whole = TypeVar("Whole")
Result = TypeVar("Result")
Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

_WORD = re.compile(r"\w+")
BLOCK = 1 << 20
"""Characters that are worked on together: few, so that little memory is needed and most of it is the cache's."""
_LEAST = 512  # characters that an item counts as, beside its own: what is computed of it needs memory too
_THREADS = 4
_ODD = np.uint64(0x9E3779B97F4A7C15)
_SPACE = ord(" ")
_PAD = 8
_FIRST_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)


@dataclass(frozen=True, slots=True)
class HashedWords:
    """The words of several texts: those of text t are `words[offsets[t] : offsets[t + 1]]`, in their order."""

    words: Hashes
    offsets: Places

    @property
    def counts(self) -> Places:
        """Words in each text."""
        return np.diff(self.offsets)


def words(value: str) -> list[str]:
    """Words in lower case, without punctuation; the same for different encodings of the same letters."""
    return _WORD.findall(_normal(value))


def hashed(texts: Sequence[str]) -> HashedWords:
    """Hashes of what `words` finds in each text: equal words have equal hashes, in every process.

    Different words of up to 8 bytes always have different hashes, longer ones but for one chance in 2**64.
    """
    encoded = [text.encode() if text.isascii() else b"" for text in texts]
    others = [place for place, text in enumerate(texts) if not text.isascii()]
    for place, text in zip(others, _spaced([texts[place] for place in others]), strict=True):
        encoded[place] = text
    data = b"".join([b" ", b" ".join(encoded).translate(_translation()), b" " * _PAD])
    borders = 1 + np.cumsum([0, *(len(text) + 1 for text in encoded)], dtype=np.int64)
    inside = np.frombuffer(data, np.uint8) != _SPACE
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    return HashedWords(_hashes(data, starts, ends - starts), np.searchsorted(starts, borders).astype(np.int64))


def mixed(values: Hashes) -> Hashes:
    """Spread each number over all 64 bits, in place and one to one; returns `values`."""
    values ^= values >> np.uint64(32)
    values *= _ODD
    values ^= values >> np.uint64(29)
    values *= _ODD
    return values


def over_blocks(
    work: Callable[[Sequence[Whole]], Result], items: Sequence[Whole], characters: Callable[[Whole], int]
) -> Iterator[tuple[int, Result]]:
    """Do `work` on blocks of about `BLOCK` characters, in threads; yields (items done, result) in their order.

    `characters` says how long an item is. numpy lets other threads run while it works, so that more cores help.
    """
    sizes = np.fromiter((characters(item) for item in items), np.int64, len(items))
    block = np.cumsum(sizes + _LEAST) // BLOCK
    stops = [*(np.flatnonzero(np.diff(block)) + 1).tolist(), len(items)] if len(items) else []
    threads = min(_THREADS, os.cpu_count() or 1)
    waiting: deque[tuple[int, Future[Result]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for start, stop in zip([0, *stops], stops, strict=False):
            waiting.append((stop, pool.submit(work, items[start:stop])))
            if len(waiting) > 2 * threads:  # no further ahead: results need memory
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()


def _normal(value: str) -> str:
    """Lower case and NFKC, which is fast only for texts without such signs as the two that most texts have."""
    if not value.isascii():
        value = unicodedata.normalize("NFKC", value.replace("\u2026", "...").replace("\u00a0", " "))
    return value.lower()


def _spaced(texts: Sequence[str]) -> list[bytes]:
    """The same words in the same order, in UTF-8, with a space for every character that belongs to no word."""
    if not texts:
        return []
    normal = [_normal(text) for text in texts]
    codes = np.frombuffer("\n".join(normal).encode("utf-32-le", "surrogatepass"), "<u4")
    spaced = np.where(_in_words()[codes], codes, np.uint32(_SPACE))
    spaced[np.cumsum([len(text) + 1 for text in normal[:-1]], dtype=np.int64) - 1] = ord("\n")
    return spaced.astype("<u4").tobytes().decode("utf-32-le").encode().split(b"\n")


@cache
def _in_words() -> NDArray[np.bool_]:
    """For every character whether it belongs to words."""
    table = np.zeros(0x110000, np.bool_)
    for found in _WORD.finditer("".join(map(chr, range(len(table))))):
        table[found.start() : found.end()] = True
    return table


@cache
def _translation() -> bytes:
    """For every byte: its lower case, or a space outside words. Bytes of characters beyond ASCII stay."""
    ascii_bytes = (ord(sign.lower()) if _WORD.fullmatch(sign) else _SPACE for sign in map(chr, range(0x80)))
    return bytes([*ascii_bytes, *range(0x80, 0x100)])


def _hashes(data: bytes, starts: Places, lengths: Places) -> Hashes:
    """Hash the bytes of each word, 8 at a time; `data` has `_PAD` bytes behind the last word."""
    eights: NDArray[np.uint64] = np.ndarray((max(len(data) - 7, 0),), "<u8", data, 0, (1,))  # at every byte
    result = mixed(eights[starts] & _FIRST_BYTES[np.minimum(lengths, 8)])
    longer, done = np.flatnonzero(lengths > 8), 8
    while longer.size:
        further = eights[starts[longer] + done] & _FIRST_BYTES[np.minimum(lengths[longer] - done, 8)]
        result[longer] = mixed(result[longer] ^ further)
        done += 8
        longer = longer[lengths[longer] > done]
    return result
