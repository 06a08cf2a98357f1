"""The engine of a stage: streams where they are proven exact for the model, its own code where not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from equipoise.dpo.logprobs import PairLogps, pair_logprobs
from equipoise.dpo.lora import fused
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.packing import micro_batches, pack, padded_length
from equipoise.dpo.proof import disproof, length_dependent, refusal
from equipoise.dpo.streams import installed, stream_logprobs
from equipoise.model.chat import EncodedPair


class PairScorer(torch.nn.Module):
    """A policy as a module whose forward pass scores pairs; `shared` says whether along streams.

    `alone` gives every sequence a forward pass of its own on the plain path, for models whose positions depend on
    the longest sequence of a batch.
    """

    def __init__(self, model: Any, *, shared: bool, alone: bool = False) -> None:
        super().__init__()
        self.model = model
        self.shared, self.alone = shared, alone

    @property
    def way(self) -> str:
        """How values are computed: part of what kept ones are known by."""
        return "streams" if self.shared else "alone" if self.alone else "plain"

    def forward(self, pairs: Sequence[EncodedPair]) -> PairLogps:
        """Log-probabilities of both answers of every pair, summed in fp32 or better."""
        if self.shared:
            return stream_logprobs(self.model, pack(pairs))
        return pair_logprobs(self.model, pairs, alone=self.alone)

    def micro_batches(self, pairs: Sequence[EncodedPair], tokens: int) -> list[list[EncodedPair]]:
        """Groups of pairs whose forward pass takes up to `tokens` tokens."""
        return micro_batches(pairs, tokens, shared=self.shared)


@contextmanager
def engine(
    model: Any,
    pairs: Sequence[EncodedPair],
    say: Callable[[str], None] = print,
    *,
    decide: Callable[[Callable[[], str | None]], str | None] = lambda find: find(),
) -> Iterator[PairScorer]:
    """Within this context `model` scores pairs by the fastest way that is exact for it; a slow one is announced.

    `decide` calls what finds the reason against streams; of several processes one may do so for all.
    Raises InputError for what no path here computes.
    """
    longest = max(map(padded_length, pairs))
    reason = decide(lambda: refusal(model, longest=longest) or disproof(model, pairs))
    if reason:  # then nothing of the model's own code is replaced
        say(f"prompts are not shared between the two answers, which is slower: {reason}")
        yield PairScorer(model, shared=False, alone=length_dependent(model, longest=longest))
    else:
        with fused(model), fused_norms(model), installed(model):
            yield PairScorer(model, shared=True)
