"""A decoder's log-probabilities along a stream: attention by name, vocabulary at answer rows only.

The attention function is registered with transformers under the name IMPLEMENTATION, so that a model's own
code runs unchanged around it: Qwen, Llama, Mistral, Gemma, SmolLM and every other decoder that asks its
configuration which attention to use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from equipoise.dpo.attention import Scoring, StreamAttention
from equipoise.dpo.attention_flex import flex_attention
from equipoise.dpo.head import Head, answer_logprobs
from equipoise.dpo.logprobs import PairLogps
from equipoise.dpo.lora import adapter_matrices, fusible
from equipoise.dpo.packing import Bounds, Stream
from equipoise.model.adapters import base_of

IMPLEMENTATION = "equipoise_streams"


class Unsupported(Exception):
    """A model asks for something that streams do not serve exactly; the message says what."""


def stream_logprobs(model: Any, stream: Stream) -> PairLogps:
    """Log-probabilities of both answers of every pair in a stream, summed in fp32 or better.

    To be called within `installed(model)`. Raises Unsupported where the model's attention asks for what streams
    do not have.
    """
    stream = stream.to(next(model.parameters()).device)
    rows_NH = stream_hidden(model, stream).index_select(0, stream.rows_N)
    sums = answer_logprobs(rows_NH, output_head(model), stream.targets_N, stream.answers_N, 2 * len(stream.bounds))
    tokens = torch.tensor(
        [(at.chosen - at.prompt, at.rejected - at.chosen) for at in stream.bounds], device=sums.device
    )
    return PairLogps(sums[0::2], sums[1::2], tokens[:, 0], tokens[:, 1])


def stream_hidden(model: Any, stream: Stream) -> Tensor:
    """The decoder's last hidden states [T, H] of a stream that is on its device."""
    output = decoder_of(model)(
        input_ids=stream.tokens_1T,
        position_ids=stream.positions_1T,
        attention_mask=None,
        use_cache=False,
        stream_bounds=stream.bounds,
    )
    hidden: Tensor = output.last_hidden_state[0]
    return hidden


def decoder_of(model: Any) -> Any:
    """The part of a causal model before its output layer; raises Unsupported where it is not to be found."""
    base = base_of(model)
    decoder = base.get_decoder()
    if not isinstance(decoder, PreTrainedModel) or decoder is base or decoder.get_output_embeddings() is not None:
        raise Unsupported(f"{type(base).__name__} has no decoder apart from its output layer")
    return decoder


def output_head(model: Any) -> Head:
    """The output projection of a causal model as it is now, with its adapters and what the model does to its logits.

    Raises Unsupported where the projection is no plain linear layer, or its adapter no plain LoRA.
    """
    base = base_of(model)
    layer = base.get_output_embeddings()
    adapted = isinstance(layer, LoraLayer)
    linear = layer.get_base_layer() if adapted else layer
    if type(linear) is not torch.nn.Linear or (adapted and not fusible(layer)):
        raise Unsupported(f"its output layer is a {type(linear).__name__}{' with an adapter' * adapted}")
    a, b = adapter_matrices(layer) if adapted else (None, None)
    config = base.config.get_text_config()
    return Head(linear.weight, linear.bias, a, b, logit_scale(config), getattr(config, "final_logit_softcapping", None))


def logit_scale(config: Any) -> float:
    """By what a model multiplies its logits; the names are those of transformers' configurations."""
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if getattr(config, name, None) is not None:
            return float(getattr(config, name))
    scaling = getattr(config, "logits_scaling", None)
    if scaling is None:
        return 1.0
    return float(scaling) if config.model_type == "hyperclovax" else 1.0 / float(scaling)


@contextmanager
def installed(model: Any) -> Iterator[None]:
    """Within this context the model's attention serves streams, and nothing else."""
    base = base_of(model)
    before = base.config._attn_implementation
    base.set_attn_implementation(IMPLEMENTATION)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def stream_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    stream_bounds: tuple[Bounds, ...] = (),
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: query [1, H, T, D], key and value [1, G, T, D] to [1, T, H, D]."""
    longest = max((_keys(at) for at in stream_bounds), default=0)
    if not stream_bounds:
        raise Unsupported("it does not pass on what its attention needs to know of a stream")
    if attention_mask is not None or dropout or query.shape[0] != 1 or options.get("s_aux") is not None:
        raise Unsupported("its attention uses a mask of its own, dropout or sinks")
    if key.shape[-1] != value.shape[-1] or key.shape[2] != query.shape[2]:
        raise Unsupported("its keys and values differ in width or number from what it queries")
    window = _window_of(module)
    if sliding_window is None and window is not None and longest > window:
        raise Unsupported("its sliding window stands in a mask only")
    how = Scoring(query.shape[-1] ** -0.5 if scaling is None else float(scaling), softcap, sliding_window)
    if query.device.type == "cuda":
        out = flex_attention(query, key, value, stream_bounds, how)
    else:
        out = StreamAttention.apply(query[0], key[0], value[0], stream_bounds, how)[None]  # type: ignore[no-untyped-call]
    return out.transpose(1, 2), None


def _keys(at: Bounds) -> int:
    """Keys of the longer of a pair's two sequences."""
    return at.prompt - at.start + max(at.chosen - at.prompt, at.rejected - at.chosen)


def _window_of(module: Any) -> int | None:
    """The window that a layer should have by its configuration."""
    config, layer = getattr(module, "config", None), getattr(module, "layer_idx", None)
    types = getattr(config, "layer_types", None)
    if types is not None and layer is not None and types[layer] != "sliding_attention":
        return None
    window = getattr(config, "sliding_window", None)
    return window if getattr(config, "use_sliding_window", True) else None


AttentionInterface.register(IMPLEMENTATION, stream_attention)
# Without a mask function of its own transformers would take restarting positions for packed sequences.
AttentionMaskInterface.register(IMPLEMENTATION, lambda *arguments, **options: None)
