"""What stops a training: a start that is not the reference, figures that are not finite, memory that is not there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from equipoise.dpo.distributed import Team, TrainingStopped
from equipoise.dpo.engine import PairScorer
from equipoise.dpo.logprobs import PairLogps
from equipoise.dpo.packing import padded_length, stream_length
from equipoise.model.chat import EncodedPair


def stop_together(team: Team, message: str | None) -> None:
    """Raises TrainingStopped in every process when one of them has a message: the first one's."""
    found = next((text for text in team.gather(message) if text), None)
    if found:
        raise TrainingStopped(found)


def forward_tokens(scorer: PairScorer, pair: EncodedPair) -> int:
    """Tokens of the forward pass of a single pair, as the token budget counts them."""
    return stream_length(pair) if scorer.shared else 2 * padded_length(pair)


def difference(
    pairs: Sequence[EncodedPair], logps: PairLogps, anchors: tuple[Tensor, Tensor], *, exact: bool
) -> str | None:
    """How the policy differs from its reference before the first step, where every margin must be 0 and so DPO's loss
    ln 2; None where it does not.

    Chosen and rejected are checked apart, since an equal drift of both would cancel out of the margin. The
    tolerance is rounding: 1e-4 of the log-probability if `exact` (fp32), 0.1 nats * sqrt(tokens) in 16 bits (the
    errors of single tokens are independent).
    """
    sides = ((logps.chosen, anchors[0], logps.chosen_tokens), (logps.rejected, anchors[1], logps.rejected_tokens))
    for policy, anchor, count in sides:
        off = (policy - anchor).detach().abs()
        excess = off - (1e-4 * (1 + anchor.abs()) if exact else 0.1 * count.sqrt())
        if bool((excess > 0).any()):
            worst = int(excess.argmax())
            return (
                f"before the first step the policy differs from its reference by {off[worst].item():.4g} nats on pair "
                f"{pairs[worst].id}; a stage must start where its reference is. Look at the adapter stack and at the "
                f"stored reference (kind `reference` in the cache folder)"
            )
    return None


def require_finite(record: Mapping[str, Any], batch: Sequence[EncodedPair], step: int) -> None:
    """Raises TrainingStopped, with the batch named, where a step's loss or gradient is not finite."""
    if not (math.isfinite(record["loss"]) and math.isfinite(record["grad_norm"])):
        ids = ", ".join(pair.id for pair in batch[:4])
        raise TrainingStopped(
            f"step {step + 1}: the loss is {record['loss']} and the gradient norm {record['grad_norm']}; "
            f"training stops before this step. The batch has {len(batch)} pairs: {ids}, ... (ids as in pairs.parquet). "
            f"Lower the learning rate, or look at these pairs"
        )


def reference_of(
    pairs: Sequence[EncodedPair], reference: Mapping[str, tuple[float, float]], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Chosen and rejected reference log-probabilities of `pairs`, each [batch], in nats."""
    both = torch.tensor([reference[pair.id] for pair in pairs], device=device)
    return both[:, 0], both[:, 1]
