"""Attention over streams on CUDA: FlexAttention, with the block structure of `attention.py` as a block mask."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask
from torch.nn.attention.flex_attention import flex_attention as attend

from equipoise.dpo.attention import Scoring
from equipoise.dpo.packing import Bounds


def flex_attention(query: Tensor, key: Tensor, value: Tensor, bounds: tuple[Bounds, ...], how: Scoring) -> Tensor:
    """Attention [1, H, T, D] of query [1, H, T, D] over key and value [1, G, T, D]."""
    window = None if how.plain(query.shape[2]) else how.window
    mask = _block_mask(bounds, window, query.device)
    out: Tensor = _compiled()(
        query,
        key,
        value,
        score_mod=_soft_cap(how.softcap) if how.softcap else None,
        block_mask=mask,
        scale=how.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out


def visible(bounds: tuple[Bounds, ...], window: int | None, device: torch.device) -> Callable[..., Tensor]:
    """mask_mod(batch, head, row, key): same pair, the prompt or the row's own answer, not later, within the window."""
    parts = [(at.prompt - at.start, at.chosen - at.prompt, at.rejected - at.chosen) for at in bounds]
    lengths = torch.tensor([length for part in parts for length in part])
    pair = torch.arange(len(parts)).repeat_interleave(lengths.view(-1, 3).sum(1)).to(device)
    branch = torch.arange(3).repeat(len(parts)).repeat_interleave(lengths).to(device)
    position = torch.cat(
        [torch.cat((torch.arange(prompt + chosen), torch.arange(prompt, prompt + rejected)))
         for prompt, chosen, rejected in parts]
    ).to(device)  # fmt: skip

    def mask(batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        distance = position[row] - position[key]
        own = (pair[row] == pair[key]) & ((branch[key] == 0) | (branch[key] == branch[row])) & (distance >= 0)
        return own if window is None else own & (distance < window)

    return mask


@lru_cache(maxsize=4)  # every layer of a forward and a backward pass asks for the same one
def _block_mask(bounds: tuple[Bounds, ...], window: int | None, device: torch.device) -> BlockMask:
    rows = bounds[-1].rejected
    return create_block_mask(visible(bounds, window, device), None, None, rows, rows, device=device)


@cache
def _soft_cap(cap: float) -> Callable[..., Tensor]:
    def score(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
        return cap * torch.tanh(score / cap)

    return score


@cache
def _compiled() -> Any:
    return torch.compile(attend, dynamic=True)
