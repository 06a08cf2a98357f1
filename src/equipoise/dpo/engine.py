"""The engine of a stage: streams where they are exact for the model, the plain path where not, and which of both.

A model is refused by what its configuration says, and then asked for proof: log-probabilities and gradients of a
real pair, along a stream and plainly, must agree before the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from equipoise.dpo.logprobs import PairLogps, pair_logprobs
from equipoise.dpo.lora import fused
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.packing import micro_batches, pack, padded_length
from equipoise.dpo.streams import Unsupported, installed, stream_logprobs
from equipoise.model.adapters import trainable
from equipoise.model.chat import EncodedPair
from equipoise.records import InputError

PROBE_PROMPT, PROBE_ANSWER = 24, 12
"""Tokens of the pair on which both paths are compared."""
SERVED = {"full_attention", "sliding_attention"}
"""Kinds of layers in which a row sees others through attention alone."""


class PairScorer(torch.nn.Module):
    """A policy as a module whose forward pass scores pairs; `shared` says whether along streams."""

    def __init__(self, model: Any, *, shared: bool) -> None:
        super().__init__()
        self.model = model
        self.shared = shared

    def forward(self, pairs: Sequence[EncodedPair]) -> PairLogps:
        """Log-probabilities of both answers of every pair, summed in fp32 or better."""
        return stream_logprobs(self.model, pack(pairs)) if self.shared else pair_logprobs(self.model, pairs)

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
    reason = decide(lambda: refusal(model, longest=longest) or _disproof(model, pairs[0]))
    with fused(model), fused_norms(model):
        if reason:
            say(f"prompts are not shared between the two answers, which is slower: {reason}")
            yield PairScorer(model, shared=False)
        else:
            with installed(model):
                yield PairScorer(model, shared=True)


def refusal(model: Any, *, longest: int) -> str | None:
    """Why streams cannot serve a model for pairs of up to `longest` tokens, by its configuration; None if they can.

    Raises InputError where the configuration asks for a loss that training does not add.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    config = base.config.get_text_config()
    name = type(base).__name__
    if getattr(config, "output_router_logits", False):
        raise InputError(
            f"model.id: {name}: its configuration asks for the auxiliary loss of its router, which DPO does not add "
            f"here; set output_router_logits to false in config.json"
        )
    if not base._can_set_attn_implementation() or getattr(config, "is_encoder_decoder", False):
        return f"{name}: its attention cannot be replaced"
    if not getattr(config, "is_causal", True):
        return f"{name}: it is not causal"
    other = set(getattr(config, "layer_types", None) or ()) - SERVED
    if other:
        return f"{name}: it has layers of kind {', '.join(sorted(other))}"
    if any(isinstance(module, torch.nn.Conv1d) for module in base.modules()):
        return f"{name}: its layers mix neighbouring tokens by convolution"
    rope = getattr(config, "rope_parameters", None) or {}
    short = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if rope.get("rope_type") in ("dynamic", "longrope") and longest > short:
        return f"{name}: its positions depend on the length of the sequence"
    return None


def _disproof(model: Any, pair: EncodedPair) -> str | None:
    """How streams and fused adapters differ from the model's own code on a short pair; None where they do not."""
    short = replace(
        pair,
        prompt=pair.prompt[-PROBE_PROMPT:],
        chosen=pair.chosen[:PROBE_ANSWER],
        rejected=pair.rejected[:PROBE_ANSWER],
    )
    pairs = [short, replace(short, chosen=short.rejected, rejected=short.chosen)]
    parameters = list(trainable(model).values())
    expected, slope = _sums(pair_logprobs(model, pairs), parameters)
    try:
        with fused(model), fused_norms(model), installed(model):
            found, shared_slope = _sums(stream_logprobs(model, pack(pairs)), parameters)
    except Unsupported as error:
        return str(error)
    exact = expected.dtype == torch.float64 or next(model.parameters()).dtype == torch.float32
    allowed = 1e-4 * (1 + expected.abs()) if exact else 0.1 * max(len(short.chosen), len(short.rejected)) ** 0.5
    if not bool(((found - expected).abs() <= allowed).all()):  # so that NaN is a difference
        return f"log-probabilities along a stream differ from the model's own by {(found - expected).abs().max():.3g}"
    distance, length = float((shared_slope - slope).norm()), float(slope.norm())
    if not distance <= (1e-3 if exact else 0.1) * length:
        return f"gradients along a stream differ from the model's own by {distance / length:.1%}"
    return None


def _sums(logps: PairLogps, parameters: Sequence[torch.nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all answers, and the gradient of the first pair's margin as one vector."""
    sums = torch.stack((logps.chosen, logps.rejected), 1)
    if not parameters:
        return sums.detach(), sums.new_zeros(1)
    slopes = torch.autograd.grad(sums[0, 0] - sums[0, 1], parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(parameters, slopes, strict=True)]
    return sums.detach(), torch.cat([slope.flatten().double() for slope in filled])
