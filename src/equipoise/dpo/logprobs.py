"""Log-probabilities of answers under a model: along streams, or plainly in two padded sequences per pair.

The plain path goes through the model's own forward and is right for any causal model: padding stands at the end,
where causal attention never looks. Streams (`engine.py`) are exact and several times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equipoise.model.chat import EncodedPair


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Per pair, shape [batch]: summed answer log-probabilities in nats, and numbers of answer tokens."""

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor


def pair_logprobs(model: Any, pairs: Sequence[EncodedPair], *, alone: bool = False) -> PairLogps:
    """Log-probabilities of both answers of every pair, summed in fp32 or better whatever the model's precision.

    `alone`: one forward pass for each sequence instead of one padded batch.
    """
    sequences = [(pair.prompt, pair.chosen) for pair in pairs] + [(pair.prompt, pair.rejected) for pair in pairs]
    batches = [[sequence] for sequence in sequences] if alone else [sequences]
    sums, counts = map(torch.cat, zip(*(_sequence_logprobs(model, batch) for batch in batches), strict=True))
    chosen, rejected = sums.chunk(2)
    chosen_tokens, rejected_tokens = counts.chunk(2)
    return PairLogps(chosen, rejected, chosen_tokens, rejected_tokens)


def _sequence_logprobs(
    model: Any, sequences: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    length = max(len(prompt) + len(answer) for prompt, answer in sequences)
    tokens_BT = torch.zeros(len(sequences), length, dtype=torch.long)
    real_BT = torch.zeros(len(sequences), length, dtype=torch.long)
    answer_BT = torch.zeros(len(sequences), length, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(sequences):
        end = len(prompt) + len(answer)
        tokens_BT[row, :end] = torch.tensor(prompt + answer)
        real_BT[row, :end] = 1
        answer_BT[row, len(prompt) : end] = True
    tokens_BT, real_BT, answer_BT = tokens_BT.to(device), real_BT.to(device), answer_BT.to(device)
    logits_BTV = model(input_ids=tokens_BT, attention_mask=real_BT, use_cache=False).logits
    # The logits at position t predict token t + 1; only answer positions meet the softmax.
    where_BT = answer_BT[:, 1:]
    logits_NV = logits_BTV[:, :-1][where_BT]
    logits_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    targets_N = tokens_BT[:, 1:][where_BT]
    logps_N = logits_NV.gather(1, targets_N[:, None])[:, 0] - logits_NV.logsumexp(1)
    rows_N = where_BT.nonzero()[:, 0]
    sums_B = torch.zeros(len(sequences), device=device, dtype=logps_N.dtype).index_add(0, rows_N, logps_N)
    return sums_B, where_BT.sum(1)
