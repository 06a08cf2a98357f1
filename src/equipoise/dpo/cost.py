"""Time of a stage: operations of its matrix products, bytes of its other steps, and how fast this machine does both."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from equipoise.dpo.forecast import Forecast
from equipoise.model.chat import EncodedPair
from equipoise.model.memory import Shape

CALL_SECONDS = 15e-6
"""What PyTorch needs to begin an operation, from Python, with autograd."""
MEASURED_SECONDS = 0.2
"""Duration of each of the two measurements."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Operations per second of a matrix product, and bytes that element-wise operations write per second."""

    products: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Operations:
    """Floating-point operations of matrix products: a multiplication and an addition count as two."""

    linear: float
    attention: float
    head: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.linear + self.attention + self.head


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """Both rates of this machine, in a fraction of a second."""
    a, b = (torch.randn(1024, 1024, device=device, dtype=dtype) for _ in range(2))
    products = 2 * 1024**3 * _per_second(lambda: a @ b)
    wide = torch.randn(4 * 2**20, device=device, dtype=dtype)
    return Rates(products, wide.nbytes * _per_second(lambda: wide * 2))


def _per_second(call: Callable[[], torch.Tensor]) -> float:
    call()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < MEASURED_SECONDS:
        call()[..., -1:].sum().item()  # waits for the device
        count += 1
    return count / (time.perf_counter() - started)


def operations(shape: Shape, config: Any, pairs: Sequence[EncodedPair], plan: Forecast, epochs: float) -> Operations:
    """Of the reference (a forward pass over every pair) and of training (`epochs` forward and backward passes).

    Frozen weights get no gradient, so backward costs as much as forward: 2 per weight and token. Attention is
    2 products forward and 5 backward over the keys that a row sees (FlashAttention). The vocabulary meets answers
    only: once for the logits, once for their gradient, both in the forward pass.
    """
    text = config.get_text_config()
    width = text.num_attention_heads * (getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads)
    weights = sum(inputs * outputs for _, inputs, outputs in shape.linears)
    forward = 2 if plan.choice.checkpointing else 1
    passes = 2 * (forward + 1)
    shared = plan.refused is None
    stream = sum(pair.tokens if not shared else pair.tokens - len(pair.prompt) for pair in pairs)
    linear = 2 * weights * stream + passes * weights * plan.tokens
    seen = sum(map(_seen_keys, pairs)) * shape.layers * 2 * width
    rows = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs) if shared else stream
    return Operations(
        linear=linear,
        attention=seen * (2 + epochs * (2 * forward + 5)),
        head=rows * 2 * shape.vocabulary * shape.hidden * (1 + 2 * epochs),
    )


def seconds(operations: Operations, plan: Forecast, rates: Rates, epochs: float) -> float:
    """Reference and training; a forward pass makes about a third of what both passes make."""
    again = 1 + 1 / (3 * epochs)
    return operations.total / rates.products + again * (plan.made / rates.bytes + plan.calls * CALL_SECONDS)


def _seen_keys(pair: EncodedPair) -> float:
    """Keys that the rows of a pair see, summed over rows."""
    main, rejected = len(pair.prompt) + len(pair.chosen), len(pair.rejected)
    return main**2 / 2 + rejected * len(pair.prompt) + rejected**2 / 2
