"""Micro-batches: pairs grouped so that one forward pass stays within a number of tokens."""

from __future__ import annotations

from collections.abc import Sequence

from equipoise.model.chat import EncodedPair


def micro_batches(pairs: Sequence[EncodedPair], tokens: int) -> list[list[EncodedPair]]:
    """Group pairs of similar length so that the padded tokens of a group stay within `tokens`.

    A pair that is longer than that by itself is a group of its own. The order of the groups, and within
    them, depends on the pairs alone.
    """
    groups: list[list[EncodedPair]] = []
    longest = 0
    for pair in sorted(pairs, key=lambda pair: (padded_length(pair), pair.id)):
        longest = max(longest, padded_length(pair))
        if groups and 2 * longest * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(pair)
        else:
            groups.append([pair])
            longest = padded_length(pair)
    return groups


def padded_length(pair: EncodedPair) -> int:
    """Length of the longer of a pair's two sequences."""
    return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))
