"""RMS normalisation in a few passes over memory, in place of a model's own chain of small operations.

A layer is not taken by its name alone: its output on random input decides which formula it is, x / rms(x) * weight
or x / rms(x) * (1 + weight), and a layer that is neither keeps its own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor


class RmsNorm(torch.autograd.Function):
    """x / sqrt(mean(x^2) + eps) * scale over the last dimension (Zhang & Sennrich 2019), for a frozen scale [H]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        """x [..., H] to the same shape; statistics in fp32 or better."""
        exact = x.to(torch.promote_types(x.dtype, torch.float32))
        length = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        rstd = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, scale, rstd)
        y: Tensor = exact * rstd
        return y.mul_(scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """PyTorch's kernel for layer normalisation with mean 0, less the term that comes from its mean."""
        x, scale, rstd = ctx.saved_tensors
        shape = [x.shape[-1]]
        mean, wide = torch.zeros_like(rstd), scale.to(rstd.dtype)
        backward = torch.ops.aten.native_layer_norm_backward
        dx = backward(grad.contiguous(), x, shape, mean, rstd, wide, None, [True, False, False])[0]
        from_mean = (grad @ scale.to(grad.dtype))[..., None] * rstd / x.shape[-1]
        return dx.add_(from_mean.to(dx.dtype)), None, None


@contextmanager
def fused_norms(model: torch.nn.Module) -> Iterator[int]:
    """Within this context the model's RMS norms run fused; yields how many there are."""
    layers = [
        (module, offset)
        for module in model.modules()
        if "forward" not in vars(module) and (offset := _offset(module)) is not None
    ]
    for layer, offset in layers:
        layer.forward = partial(_forward, layer, offset)
    try:
        yield len(layers)
    finally:
        for layer, _ in layers:
            del layer.forward


def _forward(layer: Any, offset: float, x: Tensor) -> Tensor:
    scale = layer.weight + offset if offset else layer.weight
    return RmsNorm.apply(x, scale, _eps(layer))  # type: ignore[no-untyped-call,no-any-return]


def _eps(layer: Any) -> float | None:
    eps = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    return eps if isinstance(eps, float) else None


def _offset(layer: Any) -> float | None:
    """What the layer adds to its weight (0 or 1), or None where it is no RMS norm that is known.

    Tried in fp32 on a copy with weights of its own: real weights can be so uneven that 16 bits hide the difference.
    """
    parameters = dict(layer.named_parameters())
    if "RMSNorm" not in type(layer).__name__ or parameters.keys() != {"weight"} or _eps(layer) is None:
        return None
    weight = parameters["weight"]
    if weight.ndim != 1 or weight.requires_grad or len(signature(layer.forward).parameters) != 1:
        return None  # a gated norm, for one
    random = torch.Generator().manual_seed(0)
    x, scale = torch.randn(2, len(weight), generator=random), torch.randn(len(weight), generator=random)
    copied = copy(layer)
    copied._parameters = {"weight": torch.nn.Parameter(scale, requires_grad=False)}
    with torch.no_grad():
        own = copied(x)
        for offset in (0.0, 1.0):
            if torch.allclose(RmsNorm.apply(x, scale + offset, _eps(layer)), own, rtol=1e-4, atol=1e-5):  # type: ignore
                return offset
    return None
