"""Whether streams are exact for a model: what its configuration says, and then proof on real pairs.

Nothing is taken on trust: the head's logits, log-probabilities and gradients of a short pair, and the hidden states
of the longest pair are computed along a stream and by the model's own code, and must agree before the first step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equipoise.dpo.logprobs import PairLogps, pair_logprobs
from equipoise.dpo.lora import fused
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.packing import pack, padded_length
from equipoise.dpo.streams import Unsupported, decoder_of, installed, output_head, stream_hidden, stream_logprobs
from equipoise.model.adapters import base_of, trainable
from equipoise.model.chat import EncodedPair
from equipoise.model.memory import out_of_memory
from equipoise.records import InputError

PROBE_PROMPT, PROBE_ANSWER = 24, 12
"""Tokens of the pair whose log-probabilities and gradients are compared."""
SERVED = {"full_attention", "sliding_attention"}
"""Kinds of layers in which a row sees others through attention alone."""


def refusal(model: Any, *, longest: int) -> str | None:
    """Why streams cannot serve a model for pairs of up to `longest` tokens, by its configuration; None if they can.

    Raises InputError where the configuration asks for what no path here computes.
    """
    base = base_of(model)
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
    if length_dependent(model, longest=longest):
        return f"{name}: its positions depend on the length of the sequence"
    return None


def length_dependent(model: Any, *, longest: int) -> bool:
    """Whether positions of a sequence of `longest` tokens depend on its length: it must then be alone in its batch.

    Raises InputError where they depend even on what was computed before.
    """
    config = base_of(model).config.get_text_config()
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        limit = rope.get("original_max_position_embeddings") or getattr(config, "max_position_embeddings", None)
        if rope.get("rope_type") not in ("dynamic", "longrope") or limit is None or longest <= limit:
            continue
        if rope["rope_type"] == "dynamic":
            raise InputError(
                f"dpo.max_length: above {limit} tokens this model's positions (rope_type: dynamic) depend on the "
                f"sequences it saw before; set max_length to {limit} or less"
            )
        return True
    return False


def _ropes(parameters: Any) -> list[Mapping[str, Any]]:
    """The settings of rotary positions: one, or one for each kind of layer."""
    if not isinstance(parameters, Mapping):
        return []
    nested = [value for value in parameters.values() if isinstance(value, Mapping)]
    return nested or [parameters]


def disproof(model: Any, pairs: Sequence[EncodedPair]) -> str | None:
    """How streams with fused layers differ from the model's own code; None where they do not.

    Raises InputError where the longest pair does not fit into memory.
    """
    pair, longest = pairs[0], max(pairs, key=lambda pair: (padded_length(pair), pair.id))
    short = replace(
        pair,
        prompt=pair.prompt[-PROBE_PROMPT:],
        chosen=pair.chosen[:PROBE_ANSWER],
        rejected=pair.rejected[:PROBE_ANSWER],
    )
    several = [short, replace(short, chosen=short.rejected, rejected=short.chosen)]
    try:
        with torch.enable_grad(), _without_dropout(model):
            return _of_head(model, short) or _of_gradients(model, several) or _of_length(model, longest)
    except Unsupported as error:
        return str(error)
    except (RuntimeError, TypeError) as error:
        if out_of_memory(error):
            raise InputError(
                f"out of memory: pair {longest.id} of {padded_length(longest)} tokens has no room beside the model, "
                f"even without gradients; lower dpo.max_length, load the model in fewer bits, or use more memory"
            ) from None
        return f"its code fails along a stream: {(str(error).splitlines() or [type(error).__name__])[0]}"


def _of_head(model: Any, pair: EncodedPair) -> str | None:
    """The head on the model's own hidden states against the model's own logits."""
    with torch.no_grad():
        tokens = torch.tensor([pair.prompt + pair.chosen], device=next(model.parameters()).device)
        own = model(input_ids=tokens, use_cache=False).logits[0]
        hidden = decoder_of(model)(input_ids=tokens, use_cache=False).last_hidden_state[0]
        head = output_head(model)
        found = head.logits(hidden, None if head.a is None else hidden @ head.a.mT)[0]
    return _differ("the logits", found, own, 4e-3 if _sixteen(model) else 1e-4)


def _of_gradients(model: Any, pairs: Sequence[EncodedPair]) -> str | None:
    """Log-probabilities and gradients of pairs packed into one stream, with an adapter that does something."""
    parameters = list(trainable(model).values())
    with _moved(trainable(model)):
        expected, slope = _sums(pair_logprobs(model, pairs), parameters)
        with fused(model), fused_norms(model), installed(model):
            found, shared_slope = _sums(stream_logprobs(model, pack(pairs)), parameters)
    rough = _sixteen(model)
    return _differ("log-probabilities", found, expected, 3e-2 if rough else 1e-4) or _differ(
        "gradients", shared_slope, slope, 0.1 if rough else 1e-3
    )


def _of_length(model: Any, pair: EncodedPair) -> str | None:
    """Hidden states of a whole pair with its longer answer: windows, chunks and positions beyond a short one."""
    device, at = next(model.parameters()).device, len(pair.prompt)
    rejected = len(pair.rejected) > len(pair.chosen)
    with torch.no_grad():
        tokens = torch.tensor([pair.prompt + (pair.rejected if rejected else pair.chosen)], device=device)
        expected = decoder_of(model)(input_ids=tokens, use_cache=False).last_hidden_state[0]
        with fused(model), fused_norms(model), installed(model):
            found = stream_hidden(model, pack([pair]).to(device))
    end = at + len(pair.chosen)
    found = torch.cat((found[:at], found[end:])) if rejected else found[:end]
    # Row by row: a difference that begins late must not drown in the rows before it.
    scale = expected.float().norm(dim=1).clamp_min(1e-6)
    error = float(((found - expected).float().norm(dim=1) / scale).max())
    if not error <= (0.15 if _sixteen(model) else 1e-3):
        return f"hidden states of the longest pair differ from the model's own by {error:.1%}"
    return None


def _differ(what: str, found: Tensor, expected: Tensor, allowed: float) -> str | None:
    """A sentence where the relative distance is above `allowed`, or is no number."""
    distance, length = float((found - expected).double().norm()), float(expected.double().norm())
    if not distance <= allowed * length:
        return f"{what} along a stream differ from the model's own by {distance / max(length, 1e-30):.1%}"
    return None


def _sixteen(model: Any) -> bool:
    """Whether a model computes in 16 bits or less, so that two orders of the same sum differ visibly."""
    return any(parameter.dtype.itemsize <= 2 for parameter in model.parameters())


def _sums(logps: PairLogps, parameters: Sequence[torch.nn.Parameter]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of all answers, and the gradient of a mixture of them as one vector."""
    sums = torch.stack((logps.chosen, logps.rejected), 1)
    if not parameters:
        return sums.detach(), sums.new_zeros(1)
    # Weights that do not cancel where answers begin alike.
    mixture = (sums * sums.new_tensor([[1.0, -0.4], [0.7, 0.3]])).sum()
    slopes = torch.autograd.grad(mixture, parameters, allow_unused=True)
    filled = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(parameters, slopes, strict=True)]
    return sums.detach(), torch.cat([slope.flatten().double() for slope in filled])


@contextmanager
def _moved(parameters: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Within this context the trained adapter's B is not 0, as it is at its start: else half of it would go unseen."""
    random = torch.Generator().manual_seed(0)
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items() if "lora_B" in name}
    with torch.no_grad():
        for name in kept:
            parameters[name].add_(0.02 * torch.randn(kept[name].shape, generator=random).to(kept[name]))
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


@contextmanager
def _without_dropout(model: torch.nn.Module) -> Iterator[None]:
    """Two passes can only be compared where neither drops anything."""
    dropping = [module for module in model.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for module in dropping:
        module.training = False
    try:
        yield
    finally:
        for module in dropping:
            module.training = True
