"""Streams: several pairs in one row of tokens, `[prompt | chosen | rejected]` each, with nothing padded.

A prompt stands in its stream once. Positions of the rejected answer start again behind the prompt, and
attention (`attention.py`) shows it the prompt and itself, never the chosen answer. So both answers meet
exactly the context that they would meet in sequences of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from equipoise.model.chat import EncodedPair


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a pair stands in its stream: rows of the prompt begin at `start`, each part ends before its bound."""

    start: int
    prompt: int
    chosen: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Stream:
    """Pairs as one row of T tokens, and the N rows whose next token is an answer's.

    `rows` names the stream's row that predicts each of the N answer tokens (a prompt's last row stands there
    twice, once for each answer), `targets` the token, `answers` the answer that it belongs to: pair i's chosen
    answer is 2i, its rejected one 2i + 1.
    """

    tokens_1T: Tensor
    positions_1T: Tensor
    rows_N: Tensor
    targets_N: Tensor
    answers_N: Tensor
    bounds: tuple[Bounds, ...]

    def to(self, device: torch.device) -> Stream:
        """The same stream with its tensors on `device`."""
        tensors = (self.tokens_1T, self.positions_1T, self.rows_N, self.targets_N, self.answers_N)
        tokens, positions, rows, targets, answers = (tensor.to(device, non_blocking=True) for tensor in tensors)
        return Stream(tokens, positions, rows, targets, answers, self.bounds)


def pack(pairs: Sequence[EncodedPair]) -> Stream:
    """Put pairs into one stream, in the order given; raises ValueError for a pair without a prompt."""
    if not all(pair.prompt for pair in pairs):
        raise ValueError("the first token of an answer is predicted from the prompt; a pair has none")
    tokens: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    bounds = []
    for pair in pairs:
        start, prompt, chosen, rejected = len(tokens), len(pair.prompt), len(pair.chosen), len(pair.rejected)
        at = Bounds(start, start + prompt, start + prompt + chosen, start + prompt + chosen + rejected)
        tokens += pair.prompt + pair.chosen + pair.rejected
        positions += [*range(prompt + chosen), *range(prompt, prompt + rejected)]
        rows += range(at.prompt - 1, at.chosen - 1)
        rows += [at.prompt - 1, *range(at.chosen, at.rejected - 1)] if rejected else []
        bounds.append(at)
    targets = [token for pair in pairs for token in pair.chosen + pair.rejected]
    lengths = [len(answer) for pair in pairs for answer in (pair.chosen, pair.rejected)]
    return Stream(
        torch.tensor([tokens]),
        torch.tensor([positions]),
        torch.tensor(rows),
        torch.tensor(targets),
        torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        tuple(bounds),
    )


def micro_batches(pairs: Sequence[EncodedPair], tokens: int, *, shared: bool) -> list[list[EncodedPair]]:
    """Group pairs so that the tokens of one forward pass stay within `tokens`: of a stream where the prompt is
    `shared`, else of padded sequences.

    A pair that is longer than that by itself is a group of its own. The groups and their order depend on the
    pairs alone.
    """
    return list(_fitted(pairs, tokens) if shared else _padded(pairs, tokens))


def token_budget(asked: int | None, device: str) -> int:
    """Tokens of one forward pass on `device` (`cpu`, `cuda`): a CPU gains nothing from more, a GPU does."""
    return asked or (1024 if device == "cpu" else 4096)


def stream_length(pair: EncodedPair) -> int:
    """Tokens of a pair in a stream."""
    return len(pair.prompt) + len(pair.chosen) + len(pair.rejected)


def padded_length(pair: EncodedPair) -> int:
    """Length of the longer of a pair's two sequences."""
    return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))


def _sorted(pairs: Sequence[EncodedPair], length: Callable[[EncodedPair], int]) -> list[EncodedPair]:
    return sorted(pairs, key=lambda pair: (length(pair), pair.id), reverse=True)


def _fitted(pairs: Sequence[EncodedPair], tokens: int) -> Iterator[list[EncodedPair]]:
    """First fit, longest first (Johnson 1973): at most 11/9 of the smallest number of groups, and about one."""
    groups: list[list[EncodedPair]] = []
    room: list[int] = []
    for pair in _sorted(pairs, stream_length):
        length = stream_length(pair)
        place = next((number for number, free in enumerate(room) if length <= free), None)
        if place is None:
            groups.append([pair])
            room.append(tokens - length)
        else:
            groups[place].append(pair)
            room[place] -= length
    yield from groups


def _padded(pairs: Sequence[EncodedPair], tokens: int) -> Iterator[list[EncodedPair]]:
    """Pairs of similar length together, longest first."""
    group: list[EncodedPair] = []
    for pair in _sorted(pairs, padded_length):
        if group and 2 * padded_length(group[0]) * (len(group) + 1) > tokens:
            yield group
            group = []
        group.append(pair)
    if group:
        yield group
