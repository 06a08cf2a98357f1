"""Bytes of live tensors, counted while a computation runs on the meta device: shapes without values or memory.

A tensor there is made and freed exactly when it would be on a real device, so the largest sum of live storages is
what the real computation needs at its peak, apart from its allocator and from what kernels use inside.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

STAND_IN = "equipoise_forecast"
"""Name under which `attention` stands in for the real one while bytes are counted."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within this context, `now` and `peak` are bytes of tensors made in it, `made` is the sum of all of them, and
    `calls` is the number of operations.

    Tensors in `known`, such as parameters, are there before and are not counted. Questions about values, which the
    meta device cannot answer, are answered with 0: transformers asks whether positions restart, for a mask that
    nobody uses here.
    """

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = self.made = self.calls = 0
        self._known: dict[int, Any] = {tensor.untyped_storage()._cdata: tensor for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        self.calls += 1
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in self._known:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        size, key = storage.nbytes(), storage._cdata
        self.now += size
        self.made += size
        self.peak = max(self.peak, self.now)
        self._known[key] = weakref.ref(storage, partial(self._freed, key, size))

    def _freed(self, key: int, size: int, reference: Any) -> None:
        self.now -= size
        del self._known[key]


class _Attention(torch.autograd.Function):
    """What an attention that forms its probabilities again makes and keeps (FlashAttention): q, k, v, output and
    log-sum-exp; in the backward pass three gradients, those of keys and values in fp32."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        out = query.new_empty(query.shape[0], query.shape[2], query.shape[1], value.shape[3]).transpose(1, 2)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, bias, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors[:3]
        dk, dv = torch.empty_like(key, dtype=torch.float32), torch.empty_like(value, dtype=torch.float32)
        return torch.empty_like(query), dk.to(key.dtype), dv.to(value.dtype), None


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """transformers' attention interface. With a mask it keeps what `sdpa` keeps: keys and values repeated for every
    query head, and the mask as numbers, in every layer."""
    bias = None
    if attention_mask is not None:
        bias = attention_mask.to(query.dtype)
        key, value = (t.repeat_interleave(query.shape[1] // t.shape[1], 1) for t in (key, value))
    out: Tensor = _Attention.apply(query, key, value, bias)  # type: ignore[no-untyped-call]
    return out.transpose(1, 2), None


def _mask(batch_size: int, q_length: int, kv_length: int, device: Any = "meta", **options: Any) -> Tensor | None:
    """A mask as `sdpa` gets it; none for streams, which pass no mask in."""
    if options.get("attention_mask") is None:
        return None
    return torch.empty(batch_size, 1, q_length, kv_length, dtype=torch.bool, device=device)


AttentionInterface.register(STAND_IN, attention)
AttentionMaskInterface.register(STAND_IN, _mask)
