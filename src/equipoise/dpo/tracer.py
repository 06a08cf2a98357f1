"""What one micro-batch needs at its peak: the real model code and the real engine, run on the meta device.

Nothing is estimated from formulas of layers, so an architecture with other layers needs no other forecast. Two and
three layers are traced, and the rest follows: every further layer of the same shape adds the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from equipoise.dpo.lora import fused
from equipoise.dpo.norms import fused_norms
from equipoise.dpo.packing import pack, padded_length
from equipoise.dpo.proof import refusal
from equipoise.dpo.recompute import recomputed
from equipoise.dpo.streams import Unsupported, installed, stream_logprobs
from equipoise.model import adapters
from equipoise.model.chat import EncodedPair
from equipoise.model.live import STAND_IN, LiveBytes
from equipoise.recipe import Lora
from equipoise.recipe_lora import DomainLora

FEW = 2
"""Layers of the smaller trace."""


@dataclass(frozen=True, slots=True)
class StepBytes:
    """Bytes at the peak of a micro-batch beside weights and adapters; all tensors that it makes, and operations."""

    activations: int
    vocabulary: int
    made: int
    calls: int


class Tracer:
    """A model that exists in shapes alone, with the adapters that a stage trains.

    Tracing raises RuntimeError (NotImplementedError is one) where the model's own code asks for values.
    """

    def __init__(
        self,
        config: Any,
        lora: Lora | Mapping[str, DomainLora],
        dtype: torch.dtype,
        *,
        quantized: bool = False,
        trust_remote_code: bool = False,
    ) -> None:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            # A copy: a model built from the same configuration must never meet the attention that stands in.
            model = transformers.AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=dtype, trust_remote_code=trust_remote_code
            )
            self._model = adapters.add(model.requires_grad_(False), lora, seed=0, base_name="")
        self._base = self._model.get_base_model()
        self._quantized = quantized
        for parameter in adapters.trainable(self._model).values():
            parameter.grad = torch.zeros_like(parameter)  # counted with the adapter

    def refusal(self, longest: int) -> str | None:
        """Why streams cannot serve the model for pairs of up to `longest` tokens; None where they can."""
        reason = refusal(self._model, longest=longest)
        if reason is None:
            try:
                with self._prepared(FEW), installed(self._model), LiveBytes(self._known()):
                    stream_logprobs(self._model, pack([EncodedPair("", "", "", (0,) * longest, (0,), (0,), 0)]))
            except Unsupported as error:
                return str(error)
        return reason

    def step(self, pairs: Sequence[EncodedPair], *, shared: bool, checkpointing: bool = False) -> StepBytes:
        """Peak of the forward and backward pass over one micro-batch."""
        run, decoder = (self._stream, self._stream_decoder) if shared else (self._plain, self._plain_decoder)
        layers = self._layers()
        alike = len(layers) > FEW + 1 and len({_shapes(layer) for layer in layers}) == 1
        count = FEW if alike else len(layers)
        live = self._trace(lambda: run(pairs), count, checkpointing)
        apart = isinstance(self._base.get_decoder(), PreTrainedModel) and self._base.get_decoder() is not self._base
        without = self._trace(lambda: decoder(pairs), count, checkpointing).peak if apart else live.peak
        vocabulary = max(0, live.peak - without)
        peak, made, calls = live.peak, live.made, live.calls
        if alike:
            more, rest = self._trace(lambda: run(pairs), FEW + 1, checkpointing), len(layers) - FEW
            peak += rest * (more.peak - peak)
            made += rest * (more.made - made)
            calls += rest * (more.calls - calls)
        return StepBytes(activations=peak - vocabulary, vocabulary=vocabulary, made=made, calls=calls)

    def _trace(self, score: Callable[[], Tensor], layers: int, checkpointing: bool) -> LiveBytes:
        with ExitStack() as stack:
            stack.enter_context(self._prepared(layers))
            stack.enter_context(nullcontext() if self._quantized else fused(self._model))
            stack.enter_context(fused_norms(self._model))
            stack.enter_context(recomputed(self._model) if checkpointing else nullcontext())
            live: LiveBytes = stack.enter_context(LiveBytes(self._known()))
            score().backward()  # type: ignore[no-untyped-call]
        return live

    @contextmanager
    def _prepared(self, layers: int) -> Iterator[None]:
        """The first `layers` layers alone, with the attention that stands in."""
        decoder, whole = self._base.get_decoder(), self._layers()
        if len(whole):
            decoder.layers = whole[:layers]
        self._base.set_attn_implementation(STAND_IN)
        try:
            yield
        finally:
            if len(whole):
                decoder.layers = whole

    def _layers(self) -> Any:
        """The decoder's layers; none where they have another name, and then all are traced."""
        layers = getattr(self._base.get_decoder(), "layers", None)
        return layers if isinstance(layers, torch.nn.ModuleList) else torch.nn.ModuleList()

    def _known(self) -> list[Tensor]:
        gradients = [p.grad for p in self._model.parameters() if p.grad is not None]
        return [*self._model.parameters(), *self._model.buffers(), *gradients]

    def _stream(self, pairs: Sequence[EncodedPair]) -> Tensor:
        logps = stream_logprobs(self._model, pack(pairs))
        return (logps.chosen - logps.rejected).sum()

    def _stream_decoder(self, pairs: Sequence[EncodedPair]) -> Tensor:
        stream = pack(pairs).to(torch.device("meta"))
        out = self._base.get_decoder()(
            input_ids=stream.tokens_1T, position_ids=stream.positions_1T, use_cache=False, stream_bounds=stream.bounds
        )
        total: Tensor = out.last_hidden_state.sum()
        return total

    def _plain(self, pairs: Sequence[EncodedPair]) -> Tensor:
        """`logprobs.pair_logprobs`, whose choice of rows by a mask the meta device does not know."""
        inputs = self._padded(pairs)
        logits = self._model(**inputs).logits
        rows = torch.empty(sum(len(p.chosen) + len(p.rejected) for p in pairs), dtype=torch.long, device="meta")
        chosen = logits[:, :-1].flatten(0, 1).index_select(0, rows).float()
        total: Tensor = (chosen.gather(1, rows[:, None])[:, 0] - chosen.logsumexp(1)).sum()
        return total

    def _plain_decoder(self, pairs: Sequence[EncodedPair]) -> Tensor:
        total: Tensor = self._base.get_decoder()(**self._padded(pairs))[0].sum()
        return total

    def _padded(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        tokens = torch.empty(2 * len(pairs), max(map(padded_length, pairs)), dtype=torch.long, device="meta")
        return {"input_ids": tokens, "attention_mask": tokens, "use_cache": False}


def _shapes(layer: torch.nn.Module) -> tuple[tuple[str, torch.Size], ...]:
    return tuple((name, parameter.shape) for name, parameter in layer.named_parameters())
