"""The forecast of a stage: peak memory, token budget and recomputation, micro-batches, operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from equipoise.dpo.learners import by_learner
from equipoise.dpo.packing import micro_batches, padded_length, stream_length, token_budget
from equipoise.dpo.tracer import StepBytes, Tracer
from equipoise.dpo.train import batches
from equipoise.model.chat import EncodedPair
from equipoise.model.memory import (
    FP32,
    Choice,
    MemoryParts,
    Shape,
    adapter_bytes,
    choose,
    lora_parameters,
    memory_parts,
    rough_bytes,
    weight_bytes,
)
from equipoise.recipe import ModelSpec, Stage
from equipoise.recipe_lora import adapters_of


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a stage needs; `tokens` are those of all forward passes that training makes, `plain` without sharing."""

    parts: MemoryParts
    choice: Choice
    refused: str | None
    traced: bool
    micro_batches: int
    tokens: int
    plain_tokens: int
    made: float
    calls: float


class StageForecast:
    """Forecasts of one stage on `device`; `earlier` are the parameters of each earlier adapter, which stay active."""

    def __init__(
        self, config: Any, shape: Shape, model: ModelSpec, stage: Stage, pairs: Sequence[EncodedPair],
        *, seed: int, dtype: torch.dtype, device: str, earlier: Sequence[int] = (), tight: bool = False,
    ) -> None:  # fmt: skip
        self._shape, self._stage, self._pairs, self._device, self._dtype = shape, stage, pairs, device, dtype
        self._tight = tight
        quantized = model.quantization is not None
        self._weights = weight_bytes(shape, dtype.itemsize, model.quantization)
        if quantized:  # a layer's weights are unpacked for its product
            self._weights += max(inputs * outputs for _, inputs, outputs in shape.linears) * dtype.itemsize
        self._copies = sum(earlier) * dtype.itemsize  # of frozen adapters, in the precision of the base
        trained = lora_parameters(shape, stage.lora)
        self._adapters = adapter_bytes([*earlier, trained], stage.optim.optimizer)
        if len(adapters_of(stage.lora)) > 1:  # gradients that are set aside while others of them are made
            self._adapters += trained * FP32
        self._tracer = Tracer(config, stage.lora, dtype, quantized=quantized, trust_remote_code=model.trust_remote_code)
        self.longest = max(map(padded_length, pairs))
        self.traced = True
        try:
            self.refused = self._tracer.refusal(self.longest)
        except (RuntimeError, AttributeError, TypeError):  # its code asks for values; the run itself will prove it
            self.refused, self.traced = None, False
        order = batches(
            [pair.source for pair in pairs],
            epochs=stage.optim.epochs,
            batch_size=stage.optim.batch_size,
            seed=seed,
        )
        self._batches = [[pairs[place] for place in places] for places in order]
        self._step = lru_cache(maxsize=None)(self._trace)

    def forecast(self, available: int) -> Forecast:
        """The stage as it would train within `available` bytes."""
        choice = self.choose(available)
        groups = self._groups(choice.tokens)
        largest = max(groups, key=self._length)
        step = self._bytes(largest, choice.checkpointing)
        tokens = sum(map(self._length, groups))
        return Forecast(
            parts=self.parts(choice.tokens, choice.checkpointing),
            choice=choice,
            refused=self.refused,
            traced=self.traced,
            micro_batches=len(groups),
            tokens=tokens,
            plain_tokens=sum(pair.tokens for batch in self._batches for pair in batch),
            made=step.made * tokens / self._length(largest),
            calls=float(step.calls * len(groups)),
        )

    def choose(self, available: int) -> Choice:
        """Tokens per forward pass and recomputation; see `memory.choose`."""
        return choose(
            lambda tokens, checkpointing: self.parts(tokens, checkpointing).total,
            tokens=token_budget(self._stage.optim.micro_batch_tokens, self._device),
            longest=max(self._length([pair]) for pair in self._pairs),
            available=available,
        )

    def parts(self, tokens: int, checkpointing: bool) -> MemoryParts:
        """Bytes at the peak: of the micro-batch with most tokens, or of that with the longest answers."""
        groups = self._groups(tokens)
        worst = max(
            (self._bytes(group, checkpointing) for group in (max(groups, key=self._length), max(groups, key=_answers))),
            key=lambda step: step.activations + step.vocabulary,
        )
        return memory_parts(
            self._weights,
            self._adapters,
            worst.activations + self._copies,
            worst.vocabulary,
            device=self._device,
            tight=self._tight or checkpointing,  # recomputation on a CPU goes with a tight allocator
        )

    def _groups(self, tokens: int) -> list[list[EncodedPair]]:
        shared = self.refused is None
        turns = (own for batch in self._batches for own in by_learner(batch, self._stage.lora))
        return [group for own in turns for group in micro_batches(own, tokens, shared=shared)]

    def _length(self, group: Sequence[EncodedPair]) -> int:
        """Tokens of a micro-batch's forward pass."""
        if self.refused is None:
            return sum(map(stream_length, group))
        return 2 * len(group) * max(map(padded_length, group))

    def _bytes(self, group: Sequence[EncodedPair], checkpointing: bool) -> StepBytes:
        if self.traced:
            try:
                return self._step(tuple(group), checkpointing)
            except (RuntimeError, AttributeError, TypeError):  # no shapes without values: a rough formula
                self.traced = False
        activations, logits = rough_bytes(
            self._shape, tokens=self._length(group), answer_tokens=_answers(group), dtype_bytes=self._dtype.itemsize
        )
        if checkpointing:
            activations //= self._shape.layers
        return StepBytes(activations, logits, 3 * activations, 200 * self._shape.layers)

    def _trace(self, group: tuple[EncodedPair, ...], checkpointing: bool) -> StepBytes:
        return self._tracer.step(group, shared=self.refused is None, checkpointing=checkpointing)


def _answers(group: Sequence[EncodedPair]) -> int:
    return sum(len(pair.chosen) + len(pair.rejected) for pair in group)
