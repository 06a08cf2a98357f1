"""LoRA without waste: one autograd function in place of PEFT's forward; parameters and files stay PEFT's.

PEFT runs a chain of small operations for every adapter, in fp32 beside a 16-bit base, and keeps the result of each
for the backward pass. Here all active adapters of a layer are one pair of thin matrix products in the precision
of the base; only the layer's input and the thin product are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor


class AdaptedLinear(torch.autograd.Function):
    """y = x W^T + bias + (x A^T) B^T for x [..., in], frozen W [out, in], A [rank, in] and B [out, rank]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
        """Two thin products beside the wide one; keep the input and the first thin product."""
        rows = x.reshape(-1, x.shape[-1])
        thin = rows @ a.mT
        y = x.new_empty(*x.shape[:-1], weight.shape[0])
        out = y.view(-1, weight.shape[0])  # not the other way round: a model may change what it gets in place
        torch.mm(rows, weight.mT, out=out)
        if bias is not None:
            out += bias
        out.addmm_(thin, b.mT)
        ctx.save_for_backward(rows, thin, weight, a, b)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input, if anything before it learns, and of A and B."""
        rows, thin, weight, a, b = ctx.saved_tensors
        dy = grad.reshape(-1, grad.shape[-1])
        dthin = dy @ b
        dx = None
        if ctx.needs_input_grad[0]:  # not so below the first adapted layer
            dx = (dy @ weight).addmm_(dthin, a).view(*grad.shape[:-1], -1)
        # The thin factor stands first: a product with few rows is faster than one with few columns.
        return dx, None, None, dthin.mT @ rows, (thin.mT @ dy).mT


@contextmanager
def fused(model: torch.nn.Module) -> Iterator[int]:
    """Within this context eligible LoRA layers run fused; yields how many there are.

    Others (4-bit bases, dropout that is on, DoRA and other variants, biases of adapters, merged adapters) keep PEFT's
    forward, and so does a layer whose forward somebody else has replaced.
    """
    layers = [
        module
        for module in model.modules()
        if type(module) is LoraLinear and fusible(module) and "forward" not in vars(module)
    ]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield len(layers)
    finally:
        for layer in layers:
            del layer.forward  # PEFT's own, from the class


def fusible(layer: Any) -> bool:
    """Whether a layer's active adapters are two matrices each on a plain frozen linear layer, and nothing else."""
    base = layer.get_base_layer()
    active = _active(layer)
    return (
        type(base) is torch.nn.Linear
        and not base.weight.requires_grad
        and (base.bias is None or not base.bias.requires_grad)
        and not layer.merged
        and not any(name in layer.lora_variant or _drops(layer, name) for name in active)
        and not any(layer.lora_B[name].bias is not None for name in active)
    )


def _forward(layer: Any, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    if arguments or options or not _active(layer) or not fusible(layer):
        return LoraLinear.forward(layer, x, *arguments, **options)  # type: ignore[no-any-return]
    base = layer.get_base_layer()
    return AdaptedLinear.apply(x, base.weight, base.bias, *adapter_matrices(layer))  # type: ignore


def adapter_matrices(layer: LoraLinear) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """A [rank, in] and scaled B [out, rank] of all active adapters of a layer, in the precision of its base."""
    active = _active(layer)
    if not active:
        return None, None
    dtype = layer.get_base_layer().weight.dtype
    a = torch.cat([layer.lora_A[name].weight.to(dtype) for name in active])
    b = torch.cat([(layer.scaling[name] * layer.lora_B[name].weight).to(dtype) for name in active], dim=1)
    return a, b


def _active(layer: Any) -> list[str]:
    return [] if layer.disable_adapters else [name for name in layer.active_adapters if name in layer.lora_A]


def _drops(layer: Any, name: str) -> bool:
    dropout = layer.lora_dropout[name]
    return isinstance(dropout, torch.nn.Dropout) and dropout.training and dropout.p > 0
